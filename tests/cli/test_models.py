"""`pacsnode models`: what IT does with a service, from a skeleton or a vendor's zip to one that runs in the node."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file

from pacsnode.infer.catalogue import hash_file, load_service
from tests.infer import bundles

ROOT = Path(__file__).resolve().parents[2]
ECG = Path(str(get_testdata_file("waveform_ecg.dcm")))
KEYS = {"name", "status", "licence", "intended_use", "version", "hash", "quality", "obstacle", "may_run"}


class Site:
    """A node's settings and the command on them."""

    def __init__(self, folder: Path) -> None:
        self.models = folder / "models"
        self.folder = folder
        self.models.mkdir()
        self.extra: dict[str, str] = {}

    def run(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PACSNODE_HOME": str(self.folder / "home"),
            "PACSNODE_MODELS": str(self.models),
            "PACSNODE_MINIMUM_FREE_MB": "1",
            "PYTHONPATH": str(ROOT),
            **self.extra,
        }
        command = [sys.executable, "-m", "pacsnode", *map(str, arguments)]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=self.folder)
        assert answer.returncode == code, answer
        assert "Traceback" not in answer.stderr
        return answer

    def rows(self) -> dict[str, dict[str, Any]]:
        """`models list --json` by name."""
        return {row["name"]: row for row in json.loads(self.run("models", "list", "--json").stdout)}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def says(site: Site, **changes: Any) -> Path:
    """A service that says of every ECG that its rate is 61."""
    accepts = {"Modality": "ECG"}
    said = "{'values': {'heart_rate': 61.0}, 'findings': {'af': {'presence': 'absent', 'comment': 'regular'}}}"
    return bundles.with_card(bundles.workflow_bundle(site.models, said, **({"accepts": accepts} | changes)))


def fill_in(folder: Path) -> None:
    """As a person who has an answer to every TODO."""
    for name in ("pipeline.yaml", "docs/README.md", "configs/metadata.json", "LICENSE", "scripts/workflow.py"):
        path = folder / name
        if path.exists():
            path.write_text(
                re.sub(r"TODO:?", "Said:", path.read_text()).replace('"Said: ', '"').replace("# Said: ", "# ")
            )


# --- list, allow


def test_a_service_is_listed_before_there_is_a_node_and_allowed_by_name(site: Site) -> None:
    folder = says(site)
    row = site.rows()["says"]
    assert row.keys() >= KEYS
    assert (row["hash"], row["may_run"], row["allowed_by"]) == (load_service(folder).bundle_hash, False, "")
    assert "run `pacsnode migrate`" in site.run("models", "allow", "says", code=3).stderr
    site.run("migrate")
    assert "says 0.1.0 may run: hash " in site.run("models", "allow", "says").stdout
    row = site.rows()["says"]
    assert (row["may_run"], row["allowed_how"]) == (True, "allow")
    assert row["allowed_by"] and row["allowed_at"]
    assert "allowed by" in site.run("models", "list").stdout
    (folder / "scripts" / "more.py").write_text("")
    assert not site.rows()["says"]["may_run"]
    assert "not allowed yet; look at it, then `pacsnode models allow says`" in site.run("models", "list").stdout


def test_a_broken_service_does_not_hide_the_others(site: Site) -> None:
    says(site)
    broken = says(site, name="broken")
    (broken / "pipeline.yaml").write_text("version: 1\nname: broken\n")
    answer = site.run("models", "list", "--json", code=2)
    assert [row["name"] for row in json.loads(answer.stdout)] == ["says"]
    assert f"{broken / 'pipeline.yaml'}:1:1 title: this key is missing [missing]" in answer.stderr


def test_what_does_not_pass_the_check_is_not_allowed_and_neither_is_what_stands_beside_it(site: Site) -> None:
    site.run("migrate")
    says(site)
    other = says(site, name="other")
    (other / "LICENSE").write_text("TODO\n")
    answer = site.run("models", "allow", "says", "other", code=2)
    assert "LICENSE:1:1 LICENSE: still to be filled in [todo]" in answer.stderr
    assert "nothing was allowed" in answer.stderr
    assert not site.rows()["says"]["may_run"]


@pytest.mark.parametrize(
    ("command", "name"), [("check", "sayz"), ("allow", "../says"), ("card", "/etc"), ("check", ".")]
)
def test_a_name_of_nothing_is_a_sentence(site: Site, command: str, name: str) -> None:
    says(site)
    site.run("migrate")
    stderr = site.run("models", command, name, code=2).stderr
    assert f"there is no service {name} in {site.models}" in stderr
    assert ("did you mean says?" in stderr) == (name in ("sayz", "../says"))


def test_a_slot_is_reported_and_no_mistake(site: Site) -> None:
    site.run("migrate")
    folder = bundles.with_card(bundles.network_bundle(site.models, name="slot", status="slot"))
    weights = folder / "models" / "model.pt"
    sha256 = hash_file(weights)
    assert site.rows()["slot"]["obstacle"].startswith(f"slot: the weights are there; enter sha256: {sha256}")
    weights.unlink()
    row = site.rows()["slot"]
    assert row["obstacle"].startswith("slot: copy the vendor's weights to models/model.pt")
    assert not row["may_run"]
    (folder / "configs" / "inference.yaml").unlink()
    told = "slot: copy the vendor's weights to models/model.pt and its config to configs/inference.yaml, then enter"
    assert told in site.rows()["slot"]["obstacle"]
    assert "in order, but cannot be used: slot: copy the vendor's weights" in site.run("models", "check").stdout
    assert "slot cannot be used" in site.run("models", "allow", "slot", code=2).stderr
    assert "slot cannot be used" in site.run("models", "run", "slot", ECG, code=2).stderr


# --- card, install


def test_the_card_is_printed(site: Site) -> None:
    says(site)
    assert site.run("models", "card", "says").stdout.startswith("# Threshold for tests\n\n**Not for diagnosis.")


def test_a_zip_of_a_vendor_is_installed_and_allowed_in_one_step(site: Site, tmp_path: Path) -> None:
    site.run("migrate")
    folder = bundles.with_card(bundles.workflow_bundle(tmp_path / "vendor", "{}"))
    path = tmp_path / "says.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder.parent))
    answer = site.run("models", "install", path).stdout
    assert f"says 0.1.0 installed: {site.models / 'says'}" in answer
    assert site.rows()["says"]["allowed_how"] == "install"
    assert "was installed already" in site.run("models", "install", folder).stdout


def test_a_hostile_zip_is_a_sentence_and_exit_code_2(site: Site, tmp_path: Path) -> None:
    site.run("migrate")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../evil", "x")
    answer = site.run("models", "install", tmp_path / "evil.zip", code=2)
    assert "'../evil' is a name that no file of a bundle may have" in answer.stderr
    assert list(site.models.iterdir()) == []


# --- new


@pytest.mark.parametrize(
    ("options", "obstacle"),
    [
        ([], "slot: copy the vendor's weights to models/model.pt"),
        (["--input", "volume"], "slot: copy the vendor's weights to models/model.pt"),
        (["--task", "classification"], "slot: copy the vendor's weights to models/model.pt"),
        (["--http"], "slot: enter address and model of the inference server under `http`, then another status"),
        (["--http", "--input", "volume"], "slot: enter address and model of the inference server"),
        (["--http", "--task", "classification"], "slot: enter address and model of the inference server"),
        (["--task", "detection"], "slot: copy the vendor's weights to models/model.pt"),
        (["--task", "algorithm"], "slot: put the algorithm into scripts/workflow.py"),
        (["--task", "remote"], "slot: enter the vendor's node as peer vendor-ai in the rules file"),
        (["--task", "remote", "--input", "waveform"], "slot: enter the vendor's node as peer vendor-ai"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_skeleton_names_its_todos_and_passes_the_check_once_they_are_filled_in(
    site: Site, options: list[str], obstacle: str
) -> None:
    site.run("models", "new", "mine", *options)
    folder = site.models / "mine"
    told = site.run("models", "check", "mine", code=2).stderr.splitlines()
    assert len(told) >= 15
    for line in told:
        place = re.match(r"(.+):(\d+):(\d+) \S+: still to be filled in.* \[todo\]$", line)
        assert place, line
        assert Path(place[1]).read_text().splitlines()[int(place[2]) - 1][int(place[3]) - 1 :].startswith("TODO")
    fill_in(folder)
    assert "mine 0.1.0 (slot): in order, but cannot be used: " in site.run("models", "check", "mine").stdout
    assert obstacle in site.rows()["mine"]["obstacle"]


def test_a_skeleton_with_weights_runs(site: Site, tmp_path: Path) -> None:
    """Random weights of the network that the skeleton's config describes."""
    import torch
    from monai.bundle import ConfigParser

    site.run("models", "new", "mine")
    folder = site.models / "mine"
    fill_in(folder)
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.yaml"))
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "models" / "model.pt")
    text = (folder / "pipeline.yaml").read_text()
    text = text.replace("status: slot ", "status: trained ").replace("minimum_fraction: 0.01", "minimum_fraction: 0.0")
    assert "# sha256:" in text
    text = re.sub(r"# sha256: \S+", f'sha256: "{hash_file(folder / "models" / "model.pt")}"', text)
    (folder / "pipeline.yaml").write_text(text)
    assert "mine 0.1.0 (trained): in order\n" in site.run("models", "check").stdout
    film = bundles.saved_image(tmp_path, bundles.gradient(200, 300), PatientID="1", PixelSpacing=[0.2, 0.2])
    answer = site.run("models", "run", "mine", film).stdout
    assert "Area (lung): " in answer


def test_a_service_of_a_vendors_node_is_a_folder_without_a_model_that_is_tried_by_sending(site: Site) -> None:
    site.run("migrate")
    site.run("models", "new", "mine", "--task", "remote")
    folder = site.models / "mine"
    fill_in(folder)
    text = (folder / "pipeline.yaml").read_text().replace("status: slot ", "status: certified ")
    (folder / "pipeline.yaml").write_text(text)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "LICENSE",
        "configs/metadata.json",
        "docs/README.md",
        "pipeline.yaml",
    ]
    assert "mine 0.1.0 (certified): in order\n" in site.run("models", "check").stdout
    assert "Made by the vendor's node vendor-ai: sr, seg, within 1800 s" in site.run("models", "card", "mine").stdout
    site.run("models", "allow", "mine")
    assert site.rows()["mine"]["may_run"]
    answer = site.run("models", "run", "mine", ECG, code=2).stderr
    assert "mine is run by the vendor's node vendor-ai: send a study to this node to try it" in answer
    (folder / "pipeline.yaml").write_text(text.replace("within: 30m", "within: 31m"))
    assert not site.rows()["mine"]["may_run"], "the hash does not cover the contract"


def test_a_skeleton_never_overwrites_and_needs_a_name(site: Site) -> None:
    site.run("models", "new", "mine")
    assert "is there already; take another name" in site.run("models", "new", "mine", code=2).stderr
    for name in ("Mine", "../mine", "m", "a" * 33, "_older"):
        assert "is no name: 2 to 32 small letters" in site.run("models", "new", name, code=2).stderr
    assert (
        "an algorithm reads waveform"
        in site.run("models", "new", "b2", "--task", "algorithm", "--input", "image", code=2).stderr
    )
    assert [path.name for path in site.models.iterdir()] == ["mine"]


# --- run


def test_a_service_is_tried_on_files_and_leaves_its_objects_in_a_folder(site: Site, tmp_path: Path) -> None:
    says(site)
    (tmp_path / "files" / "more").mkdir(parents=True)
    (tmp_path / "files" / "more" / "ecg.dcm").write_bytes(ECG.read_bytes())
    (tmp_path / "files" / "note.txt").write_text("no DICOM")
    answer = site.run("models", "run", "says", tmp_path / "files", "--out", tmp_path / "out")
    assert "note.txt is left out: " in answer.stderr
    assert "says is not allowed to run in the node yet" in answer.stderr
    assert "Heart rate: 61" in answer.stdout
    assert "Atrial fibrillation: undetermined (No candidate found; sensitivity not measured. regular)" in answer.stdout
    made = [pydicom.dcmread(path) for path in sorted((tmp_path / "out").iterdir())]
    assert sorted(path.stem.split("-")[1] for path in (tmp_path / "out").iterdir()) == ["pdf", "sc", "sr"]
    source = pydicom.dcmread(ECG)
    assert {one.StudyInstanceUID for one in made} == {source.StudyInstanceUID}
    assert all(f"written: {path}" in answer.stdout for path in (tmp_path / "out").iterdir())
    assert str(source.PatientName) not in answer.stdout + answer.stderr
    assert not (tmp_path / "home").exists()
    assert (
        "is not empty; name a new folder"
        in site.run("models", "run", "says", ECG, "--out", tmp_path / "out", code=2).stderr
    )


def test_files_that_the_service_does_not_accept_say_why(site: Site, tmp_path: Path) -> None:
    says(site)
    film = bundles.saved_image(tmp_path, bundles.gradient())
    answer = site.run("models", "run", "says", film, code=1)
    assert "says accepts none of its 1 image: Modality is CR, expected ECG" in answer.stdout
    answer = site.run("models", "run", "says", site.models, code=1)
    assert "there are no DICOM objects in" in answer.stderr
    assert "there is no such file or folder" in site.run("models", "run", "says", tmp_path / "nowhere", code=2).stderr


def test_an_age_that_the_service_is_not_for_is_not_accepted(site: Site, tmp_path: Path) -> None:
    says(site, accepts={"Modality": "ECG", "age": {"between": ["18Y", "120Y"]}})
    child = pydicom.dcmread(ECG)
    child.PatientAge = "004Y"
    child.save_as(tmp_path / "child.dcm")
    assert "age is 004Y" in site.run("models", "run", "says", tmp_path / "child.dcm", code=1).stdout
    child.PatientAge = "040Y"
    child.save_as(tmp_path / "grown.dcm")
    assert "Heart rate: 61" in site.run("models", "run", "says", tmp_path / "grown.dcm").stdout


def test_a_model_that_cannot_read_a_file_ends_with_its_reason(site: Site) -> None:
    says(site, needs={"leads": ["V9"]})
    answer = site.run("models", "run", "says", ECG, code=1)
    assert "the service needs the leads V9; the recording has I, II, III" in answer.stdout


def test_without_the_extra_it_says_what_to_install(site: Site, tmp_path: Path) -> None:
    says(site)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import sys\nsys.modules['torch'] = sys.modules['monai'] = None\n"  # as where they are not installed
    )
    site.extra = {"PYTHONPATH": f"{hidden}:{ROOT}"}
    stderr = site.run("models", "run", "says", ECG, code=1).stderr
    assert "pip install 'pacsnode[ai]'" in stderr
