"""Broken pipeline.yaml files as people write them: every mistake at once, by file, line and column, with what to do."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from pacsnode.errors import ConfigError
from pacsnode.infer.catalogue import load_service
from tests.infer.bundles import README

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = b"made up"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
IMAGE = f"""\
version: 1
name: NAME
title: Lungs
status: trained
machine_learning: true
input: image
procedure: {{value: "399208008", scheme: SCT, meaning: Plain chest X-ray}}
accepts:
  Modality: {{in: [CR, DX]}}
needs: {{pixel_spacing_mm: [0.05, 0.3]}}
network:
  weights: models/model.pt
  sha256: "{SHA256}"
card:
  method: A network.
  training_data: 10 films.
  quality: Not measured.
  intended_use: Tests.
  licence: Apache-2.0
  measured:
    - {{metric: Dice, of: Lung, value: 0.9, data: 10 films, cases: 10, real_data: true}}
segments:
  - value: 1
    label: Lung
    category: {{value: "91723000", scheme: SCT, meaning: Anatomical Structure}}
    type: {{value: "39607008", scheme: SCT, meaning: Lung}}
    color_rgb: [70, 160, 255]
measurements:
  - {{method: area, of: [1], name: {{value: "42798000", scheme: SCT, meaning: Area}}}}
"""
SERIES = IMAGE.replace("input: image", "input: series").replace(
    "needs: {pixel_spacing_mm: [0.05, 0.3]}",
    "series:\n  - {role: t2, when: {SeriesDescription: {contains: t2}}, needs: {orientation: axial}}\n"
    "  - {role: adc, when: {SeriesDescription: {contains: adc}}}",
)
SLOT_SERIES = SERIES.replace("status: trained", "status: slot").replace("method: area", "method: volume")
CLASSES = IMAGE[: IMAGE.index("segments:")].replace("of: Lung", "of: pneumonia") + (
    "classification:\n"
    "  activation: softmax\n"
    "  classes:\n"
    "    - {index: 0, label: normal}\n"
    "    - index: 1\n"
    "      label: pneumonia\n"
    '      name: {value: "233604007", scheme: SCT, meaning: Pneumonia}\n'
    "      threshold: 0.5\n"
)
SLOT_CLASSES = CLASSES.replace("status: trained", "status: slot")
ECG = IMAGE[: IMAGE.index("needs:")].replace("input: image", "input: waveform") + (
    "needs: {leads: [I, II]}\n"
    "workflow: {class: Algorithm}\n"
    "card:\n"
    "  method: A rule.\n"
    "  training_data: None.\n"
    "  quality: Not measured.\n"
    "  intended_use: Tests.\n"
    "  licence: Apache-2.0\n"
    "evaluations:\n"
    '  - {key: af, name: {value: "49436004", scheme: SCT, meaning: Atrial Fibrillation}}\n'
)
REMOTE = ECG[: ECG.index("needs:")] + (
    "remote: {peer: vendor-ai, results: [sr], within: 30m}\n"
    + ECG[ECG.index("card:") : ECG.index("evaluations:")]
    + "  measured:\n"
    + "    - {metric: sensitivity, of: af, value: 0.9, data: 10 ECG, cases: 10, real_data: true}\n"
)

HTTP = IMAGE.replace("network:\n  weights: models/model.pt\n", "").replace(
    f'  sha256: "{SHA256}"\n',
    "http:\n"
    "  url: https://triton.hospital.local:8000\n"
    "  model: chest\n"
    '  version: "3"\n'
    "  input: {name: image, shape: [-1, 1, 256, 256], datatype: FP32}\n"
    "  output: {name: scores, shape: [-1, 2], datatype: FP32}\n"
    "  timeout: 60s\n"
    "  token_file: /etc/pacsnode/triton.token\n",
)
HTTP_CLASSES = (
    HTTP[: HTTP.index("segments:")].replace("of: Lung", "of: pneumonia") + CLASSES[CLASSES.index("classif") :]
)

REGIONS = (
    "regions:\n"
    "  - key: nodule\n"
    "    label: Nodule\n"
    "    shape: box\n"
    "    index: 0\n"
    "    threshold: 0.5\n"
    '    category: {value: "49755003", scheme: SCT, meaning: Morphologically Abnormal Structure}\n'
    '    name: {value: "27925004", scheme: SCT, meaning: Nodule}\n'
)


class Broken(NamedTuple):
    """One edit of a good file, and what is told: where, by which code, in which words."""

    good: str
    old: str
    new: str
    place: str
    code: str
    fragment: str


BROKEN = [
    Broken(HTTP, "https://triton", "triton", "12:8", "server-url", "it does not begin with https:// or http://"),
    Broken(HTTP, "https://triton", "ftp://triton", "12:8", "server-url", "it does not begin with https:// or http://"),
    Broken(HTTP, "//triton", "//node:secret@triton", "12:8", "server-url", "a password in an address"),
    Broken(HTTP, ":8000", ":80000", "12:8", "server-url", "its port or its brackets cannot be read"),
    Broken(HTTP, ":8000", ":8000/v2?x=1", "12:8", "server-url", "only a path of plain words may stand"),
    Broken(HTTP, ":8000", ":8000/../x", "12:8", "server-url", "only a path of plain words may stand"),
    Broken(HTTP, "triton.hospital.local", "", "12:8", "server-url", "there is no host, or no port that one can have"),
    Broken(HTTP, "model: chest", "model: ../chest", "13:10", "wrong-value", "expected text like"),
    Broken(HTTP, 'version: "3"', "version: 3", "14:12", "wrong-type", "put it in quotes"),
    Broken(HTTP, "FP32}\n  output", "FLOAT32}\n  output", "15:60", "unknown-value", "expected: 'FP16', 'FP32'"),
    Broken(HTTP, "[-1, 1, 256", "[-1, 0, 256", "15:36", "wrong-value", "expected a size from 1 on, or -1 for any"),
    Broken(HTTP, "shape: [-1, 2]", "shap: [-1, 2]", "16:26", "unknown-key", "did you mean shape?"),
    Broken(HTTP, "timeout: 60s", "timeout: 60", "17:12", "duration", "expected a time such as 20s"),
    Broken(HTTP, "timeout: 60s", "timeout: 5m", "17:12", "timeout", "below `limits.time_s` (300 s), which ends"),
    Broken(HTTP, "timeout: 60s", "timeout: 0s", "17:12", "timeout", "found 0 s"),
    Broken(HTTP, "timeout: 60s", "ca: ca.pem", "17:7", "ca-file", "the folder has no ca.pem; copy"),
    Broken(HTTP, "https://", "http://", "18:3", "token", "a token is sent over https only"),
    Broken(HTTP, "/etc/pacsnode/triton.token", "triton.token", "18:15", "token", "a whole path outside of the folder"),
    Broken(HTTP, "timeout: 60s", "token_env: TRITON_TOKEN", "17:3", "token", "give either `token_file` or `token_env`"),
    Broken(HTTP, "timeout: 60s", "token_env: PATH", "17:14", "wrong-value", "expected text like"),
    Broken(HTTP, "timeout: 60s", "token: abc", "17:3", "unknown-key", "there is no such key"),
    Broken(HTTP, "timeout: 60s", "token_env: PACSNODE_X_TOKEN", "17:14", "token", "are the node's own settings"),
    Broken(HTTP, "timeout: 60s", "config: configs/x.json", "17:11", "no-config", "the folder has no configs/x.json"),
    Broken(HTTP, "http:\n", "workflow: {class: A}\nhttp:\n", "1:1", "one-model", "exactly one of `network`, `http`"),
    Broken(
        HTTP, "input: image\n", "input: waveform\n", "6:8", "input", "an `http` reads images, clips, volumes or series"
    ),
    Broken(
        HTTP_CLASSES, "[-1, 2]", "[-1, 3]", "16:33", "output-shape", "3 numbers for each input; there are 2 classes"
    ),
    Broken(HTTP, "segments:\n", f"{REGIONS}segments:\n", "27:1", "not-of-this-model", "for a `network` that runs here"),
    Broken(IMAGE, "status: trained", "status: trainned", "4:9", "unknown-value", "did you mean trained?"),
    Broken(IMAGE, "title: Lungs", "titel: Lungs", "3:1", "unknown-key", "did you mean title?"),
    Broken(IMAGE, "title: Lungs\n", "", "1:1", "missing", "this key is missing"),
    Broken(IMAGE, "machine_learning: true", "machine_learning: yes", "5:19", "wrong-type", "expected true or false"),
    Broken(IMAGE, "input: image", "input: picture", "6:8", "unknown-value", "'image', 'multi-frame', 'volume'"),
    Broken(IMAGE, '"399208008"', "399208008", "7:20", "wrong-type", "put it in quotes"),
    Broken(IMAGE, "Modality: {in", "Modallity: {in", "9:3", "unknown-attribute", "did you mean Modality?"),
    Broken(IMAGE, "{in: [CR, DX]}", "[CR, DX]", "9:13", "wrong-value", "write {in: [...]} for one of several"),
    Broken(IMAGE, "[0.05, 0.3]", "[0.3, 0.05]", "10:27", "wrong-value", "the smaller one first, found 0.3 and 0.05"),
    Broken(
        IMAGE, "[0.05, 0.3]", "0.3", "10:27", "wrong-type", "expected two numbers, [from, to], found the number 0.3"
    ),
    Broken(
        IMAGE, "pixel_spacing_mm:", "slices:", "10:9", "not-of-this-input", "image has no slices; it may need views"
    ),
    Broken(IMAGE, "{pixel_spacing_mm: [0.05, 0.3]}", "{views: [{age: 40Y}]}", "10:18", "not-in-the-file", "`accepts`"),
    Broken(IMAGE, "network:\n", "network:\n  format: onnxx\n", "12:11", "unknown-value", "did you mean onnx?"),
    Broken(IMAGE, "models/model.pt", "models/modle.pt", "12:12", "weights", "there is no file "),
    Broken(IMAGE, "models/model.pt", "../model.pt", "12:12", "weights", "weights must lie inside the service's folder"),
    Broken(IMAGE, f'  sha256: "{SHA256}"\n', "", "11:1", "missing", f"the file that is there has {SHA256}"),
    Broken(IMAGE, SHA256[:4], "0000" if SHA256[:4] != "0000" else "1111", "12:12", "weights", "enter the new hash"),
    Broken(
        IMAGE,
        "weights: models/model.pt",
        "weights: models/model.pt\n  config: configs/x.json",
        "13:11",
        "no-config",
        "x.json",
    ),
    Broken(IMAGE, "of: Lung", "of: Lungs", "21:26", "unknown-output", "did you mean Lung?"),
    Broken(
        IMAGE,
        "metric: Dice, of: Lung, value: 0.9",
        "metric: sensitivity, of: Lung, value: 90",
        "21:46",
        "wrong-value",
        "0 to 1, found 90",
    ),
    Broken(
        IMAGE, "metric: Dice, of: Lung", "metric: sensitivity", "21:7", "unknown-output", "a sensitivity needs `of`"
    ),
    Broken(IMAGE, "cases: 10", "cases: 0", "21:67", "wrong-value", "a number of at least 1"),
    Broken(IMAGE, "- value: 1", "- value: 2", "23:3", "segment-values", "1 to n without gaps"),
    Broken(IMAGE, "of: [1]", "of: [2]", "29:5", "unknown-segment", "must name values of segments"),
    Broken(IMAGE, "method: area", "method: volume", "29:5", "method", "an image by `area`"),
    Broken(IMAGE, "title: Lungs", "title: Lungs\ntitle: Heart", "4:1", "duplicate-key", "first on line 3"),
    Broken(IMAGE, "title: Lungs", "title:\tLungs: x", "3:", "not-readable", "not YAML"),
    Broken(SLOT_SERIES, "role: adc", "role: t2", "12:12", "same-key", "t2 is here twice"),
    Broken(SLOT_SERIES, "orientation: axial", "orientation: axil", "", "unknown-value", "did you mean axial?"),
    Broken(
        SLOT_SERIES, SERIES[SERIES.index("series:\n") : SERIES.index("network:")], "", "6:8", "roles", "go together"
    ),
    Broken(SLOT_SERIES, "input: series", "input: volume", "11:3", "roles", "go together"),
    Broken(IMAGE, "title: Lungs", "title: Lungs\nmost_frames: 3", "4:1", "not-of-this-input", "is for `input: multi"),
    Broken(SLOT_CLASSES, "index: 1", "index: 2", "25:5", "class-indexes", "0 to n without gaps"),
    Broken(SLOT_CLASSES, "      threshold: 0.5\n", "", "26:7", "class-threshold", "go together"),
    Broken(SLOT_CLASSES, "threshold: 0.5", "threshold: 50", "", "wrong-value", "a number of at most 1"),
    Broken(ECG, "leads: [I, II]", "leads: I", "10:16", "wrong-type", "write [I]"),
    Broken(
        ECG, "evaluations:\n", "polarity_check: true\nevaluations:\n", "18:1", "not-of-this-input", "for a network on"
    ),
    Broken(REMOTE, "within: 30m", "within: 30", "10:50", "duration", "such as 20s, 2m, 1h or 7d, found the number 30"),
    Broken(REMOTE, ", within: 30m", "", "10:1", "missing", "within: this key is missing"),
    Broken(REMOTE, "[sr]", "[sr, docx]", "10:41", "unknown-value", "docx"),
    Broken(REMOTE, "[sr]", "[]", "", "wrong-value", "at least 1"),
    Broken(REMOTE, "card:", "needs: {leads: [I]}\ncard:", "11:1", "not-of-this-model", "delete `needs`"),
    Broken(REMOTE, "card:", "workflow: {class: A}\ncard:", "1:1", "one-model", "exactly one of"),
]


def service(models: Path, name: str, text: str) -> Path:
    folder = models / name
    for inside in ("configs", "models", "scripts", "docs"):
        (folder / inside).mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text('{"version": "1.0"}')
    (folder / "configs" / "inference.yaml").write_text("network_def: {}\n")
    (folder / "models" / "model.pt").write_bytes(WEIGHTS)
    (folder / "scripts" / "workflow.py").write_text("")
    (folder / "docs" / "README.md").write_text(README)
    (folder / "LICENSE").write_text("Apache-2.0\n")
    (folder / "pipeline.yaml").write_text(text.replace("NAME", name))
    return folder


GOOD = {"image": IMAGE, "series": SLOT_SERIES, "classes": SLOT_CLASSES, "ecg": ECG, "remote": REMOTE}
GOOD |= {"http": HTTP, "http-classes": HTTP_CLASSES}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_the_files_that_are_broken_here_are_good_before(tmp_path: Path, text: str) -> None:
    assert load_service(service(tmp_path, "good", text)).name == "good"


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.fragment[:40])
def test_a_mistake_is_told_at_its_place_with_what_to_write(tmp_path: Path, broken: Broken) -> None:
    assert broken.old in broken.good
    folder = service(tmp_path, "case", broken.good.replace(broken.old, broken.new, 1) if broken.old else broken.good)
    with pytest.raises(ConfigError) as caught:
        load_service(folder)
    (line,) = [line for line in str(caught.value).splitlines() if broken.fragment in line]
    assert line.startswith(f"{folder / 'pipeline.yaml'}:{broken.place}"), line
    assert re.match(r".*pipeline\.yaml:\d+:\d+ ", line)
    assert line.endswith(f"[{broken.code}]"), line


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    text = IMAGE.replace("of: [1]", "of: [2]").replace("of: Lung", "of: Lungs").replace("models/model.pt", "nowhere.pt")
    folder = service(tmp_path, "case", text.replace("name: NAME", "name: other"))
    (folder / "configs" / "metadata.json").write_text("{")
    with pytest.raises(ConfigError) as caught:
        load_service(folder)
    lines = str(caught.value).splitlines()
    assert [re.sub(r".*\[([a-z-]+)\]$", r"\1", line) for line in lines[1:]] == [
        "folder-name",
        "weights",
        "unknown-output",
        "unknown-segment",
    ]
    assert "metadata.json:1:2: not JSON" in lines[0]


def test_the_command_ends_with_2_and_names_every_mistake_without_a_traceback(tmp_path: Path) -> None:
    for number, broken in enumerate(BROKEN):
        text = broken.good.replace(broken.old, broken.new, 1) if broken.old else broken.good
        service(tmp_path / "models", f"case-{number:02}", text)
    service(tmp_path / "models", "good", IMAGE)
    environment = os.environ | {"PACSNODE_MODELS": str(tmp_path / "models"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pacsnode", "models", "check"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr
    assert answer.stdout == "good 1.0 (trained): in order\n"
    for number, broken in enumerate(BROKEN):
        place = re.escape(f"{tmp_path}/models/case-{number:02}/pipeline.yaml:{broken.place}")
        assert re.search(rf"^{place}.*{re.escape(broken.fragment)}", answer.stderr, re.MULTILINE), broken
    assert len(BROKEN) >= 35
