"""A bundle comes in whole or not at all, whatever is in the folder or zip."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pacsnode.errors import ConfigError
from pacsnode.infer import install as installing
from pacsnode.infer.catalogue import bundle_hash, load_catalogue
from pacsnode.infer.install import install
from tests.infer.bundles import with_card, workflow_bundle, write_said


@pytest.fixture
def models(tmp_path: Path) -> Path:
    made = tmp_path / "models"
    made.mkdir()
    return made


@pytest.fixture
def vendor(tmp_path: Path) -> Path:
    return with_card(workflow_bundle(tmp_path / "vendor", "{}"))


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def zipped(folder: Path, path: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{inside}{file.relative_to(folder).as_posix()}")
    return path


@pytest.mark.parametrize("inside", ["folder", "", "says/", "vendor release 3/"])
def test_a_folder_and_a_zip_of_it_become_the_same_service(
    vendor: Path, models: Path, tmp_path: Path, inside: str
) -> None:
    source = vendor if inside == "folder" else zipped(vendor, tmp_path / "bundle.zip", inside)
    (vendor / "scripts" / "__pycache__").mkdir()
    (vendor / "scripts" / "__pycache__" / "said.pyc").write_bytes(b"x")
    done = install(source, models)
    assert (done.service.name, done.is_new, done.older) == ("says", True, None)
    assert done.service.bundle_hash == bundle_hash(vendor)
    assert [path.name for path in models.iterdir()] == ["says"]
    assert not (models / "says" / "scripts" / "__pycache__").exists()
    assert list(load_catalogue(models)) == ["says"]


def test_the_version_before_is_kept_and_can_be_installed_again(vendor: Path, models: Path) -> None:
    before = install(vendor, models).service.bundle_hash
    assert not install(vendor, models).is_new
    write_said(vendor, "{'a': 1}")
    first = install(vendor, models)
    write_said(vendor, "{'a': 2}")
    second = install(vendor, models)
    assert first.older == models / "_older" / "says-0.1.0"
    assert second.older == models / "_older" / "says-0.1.0-2"
    assert list(load_catalogue(models)) == ["says"]
    assert first.older is not None
    back = install(first.older, models)
    assert back.service.bundle_hash == before
    assert back.older == models / "_older" / "says-0.1.0-3"


def test_a_broken_service_of_that_name_is_replaced_and_kept(vendor: Path, models: Path) -> None:
    shutil.copytree(vendor, models / "says")
    (models / "says" / "pipeline.yaml").write_text("version: 2\n")
    assert install(vendor, models).older == models / "_older" / "says-broken"
    assert list(load_catalogue(models)) == ["says"]


def test_what_does_not_pass_the_check_is_not_installed_and_says_why_by_the_names_of_its_owner(
    vendor: Path, models: Path, tmp_path: Path
) -> None:
    (vendor / "docs" / "README.md").write_text("TODO\n")
    with pytest.raises(ConfigError) as caught:
        install(vendor, models)
    assert f"{vendor}/docs/README.md:1:1 README.md: still to be filled in [todo]" in str(caught.value)
    assert str(caught.value).endswith("not installed; correct the lines above")
    with pytest.raises(ConfigError, match=r"^says/docs/README.md:1:1 "):
        install(zipped(vendor, tmp_path / "bundle.zip"), models)
    assert everything(models) == []


NOTHING: list[tuple[str, str]] = [
    ("nowhere", "there is no such file or folder"),
    ("empty.zip", "neither a folder nor a zip"),
    ("folder", "a service needs a pipeline.yaml; there is none"),
]


@pytest.mark.parametrize(("name", "sentence"), NOTHING)
def test_what_is_no_bundle_is_a_sentence(tmp_path: Path, models: Path, name: str, sentence: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.zip").write_bytes(b"")
    with pytest.raises(ConfigError, match=sentence):
        install(tmp_path / name, models)
    assert everything(models) == []


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", ".hidden", "Says", "", "a" * 40, "a/b"])
def test_a_name_that_leads_elsewhere_is_refused(vendor: Path, models: Path, name: str) -> None:
    path = vendor / "pipeline.yaml"
    path.write_text(path.read_text().replace("name: says", f"name: {name}", 1))
    with pytest.raises(ConfigError, match="has no `name:` of small letters"):
        install(vendor, models)
    assert everything(models) == []


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    return made


def bomb(archive: zipfile.ZipFile) -> None:
    made = entry("models/bomb.pt")
    made.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(made, bytes(64 << 20))


def many(archive: zipfile.ZipFile) -> None:
    for number in range(installing.MOST_FILES + 1):
        archive.writestr(entry(f"many/{number}"), b"")


HOSTILE: list[tuple[str, Callable[[zipfile.ZipFile], None], str]] = [
    ("traversal", lambda a: a.writestr(entry("../evil"), b"x"), "is a name that no file"),
    ("deep traversal", lambda a: a.writestr(entry("docs/../../../evil"), b"x"), "is a name that no file"),
    ("absolute", lambda a: a.writestr(entry("/tmp/evil"), b"x"), "is a name that no file"),
    ("backslash", lambda a: a.writestr(entry("..\\evil"), b"x"), "is a name that no file"),
    ("drive", lambda a: a.writestr(entry("C:evil"), b"x"), "is a name that no file"),
    ("control", lambda a: a.writestr(entry("docs/a\nb"), b"x"), "is a name that no file"),
    ("empty part", lambda a: a.writestr(entry("docs//a"), b"x"), "is a name that no file"),
    ("dot", lambda a: a.writestr(entry("./a"), b"x"), "is a name that no file"),
    ("deep", lambda a: a.writestr(entry("a/" * 20 + "a"), b"x"), "too deep or too long"),
    ("long", lambda a: a.writestr(entry("가" * 100), b"x"), "too deep or too long"),
    ("symlink", lambda a: a.writestr(entry("scripts/x.py", stat.S_IFLNK | 0o777), b"/etc/passwd"), "is a link"),
    ("device", lambda a: a.writestr(entry("scripts/x.py", stat.S_IFCHR | 0o666), b""), "is a link or no plain file"),
    ("pipe", lambda a: a.writestr(entry("scripts/x.py", stat.S_IFIFO | 0o666), b""), "is a link or no plain file"),
    ("twice", lambda a: a.writestr(entry("license"), b"x"), "is in the zip twice"),
    ("bomb", bomb, "would grow by more than 200 times"),
    ("many", many, "has more than 5000 files"),
    ("file as folder", lambda a: a.writestr(entry("LICENSE/x"), b"x"), "cannot be installed"),
]


@pytest.mark.parametrize(("add", "sentence"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_a_hostile_zip_changes_nothing(
    vendor: Path, models: Path, tmp_path: Path, add: Callable[[zipfile.ZipFile], None], sentence: str
) -> None:
    path = zipped(vendor, tmp_path / "bundle.zip")
    before = everything(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        add(archive)
    with pytest.raises(ConfigError, match=sentence):
        install(path, models)
    assert everything(tmp_path) == before


def test_a_zip_that_lies_about_its_sizes_is_refused(vendor: Path, models: Path, tmp_path: Path) -> None:
    """The directory says ten bytes, the data are 64 MB of zeros in 64 KB."""
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(zipped(vendor, path), "a") as archive:
        bomb(archive)
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02", 0, raw.rindex(b"models/bomb.pt"))
    struct.pack_into("<I", raw, at + 24, 10)
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match="this zip cannot be read"):
        install(path, models)
    assert everything(models) == []


@pytest.mark.parametrize("cut", [50, 0.3, 0.9])
def test_a_damaged_zip_is_a_sentence(vendor: Path, models: Path, tmp_path: Path, cut: float) -> None:
    path = zipped(vendor, tmp_path / "bundle.zip")
    raw = bytearray(path.read_bytes())
    at = int(cut if cut > 1 else cut * raw.index(b"PK\x01\x02"))
    raw[at : at + 20] = b"\xff" * 20
    path.write_bytes(raw)
    with pytest.raises(ConfigError):
        install(path, models)
    assert everything(models) == []


def test_a_zip_with_a_password_is_a_sentence(vendor: Path, models: Path, tmp_path: Path) -> None:
    path = zipped(vendor, tmp_path / "bundle.zip")
    raw = bytearray(path.read_bytes())
    at = -1
    while (at := raw.find(b"PK\x01\x02", at + 1)) >= 0:
        raw[at + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match="the zip has a password; unpack it, and install the folder"):
        install(path, models)


@pytest.mark.parametrize("kind", ["link", "folder link", "pipe"])
def test_a_folder_with_links_or_pipes_is_refused(vendor: Path, models: Path, tmp_path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(vendor / "scripts" / "pipe")
    else:
        target = tmp_path / "secret" if kind == "folder link" else tmp_path / "secret.txt"
        if kind == "folder link":
            target.mkdir()
        else:
            target.write_text("x")
        (vendor / "docs" / "more").symlink_to(target)
    with pytest.raises(ConfigError, match="is a link or no plain file; a bundle is copied whole"):
        install(vendor, models)
    assert everything(models) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_services_that_may_not_be_written_is_a_sentence(vendor: Path, models: Path) -> None:
    models.chmod(0o500)
    with pytest.raises(ConfigError, match="run this as the node's user"):
        install(vendor, models)
