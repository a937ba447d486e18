"""Bundles that hang, eat, raise, leave or give rubbish, at a whole node: each case is parked, the others go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
from harness import Node, Pacs, electrocardiogram, radiograph, wait_until
from pydicom.uid import generate_uid

from tests.infer import bundles

ECG = {"Modality": "ECG"}
SAID = repr({"values": {"heart_rate": 61.0}, "findings": {}})
RULES = """\
version: 1
unmatched: keep
peers:
  xray-1: {{ae_title: XR1, host: 127.0.0.1, may: [store], issuer: CLINIC}}
  main-pacs: {{ae_title: PACS, host: 127.0.0.1, port: {port}, investigational: true}}
defaults: {{results: [sr], send_to: [main-pacs], complete: {{quiet: 1s}}}}
rules:
{rules}
"""
OF_ECG = {
    "hangs": ("import time; time.sleep(600)", "it took longer than its limit of 3 s"),
    "eats": ("held = [bytearray(b'x' * (8 << 20)) for _ in range(10000)]", "more than its limit of 1500 MB"),
    "raises": ("raise ZeroDivisionError('nothing there')", "the model failed: ZeroDivisionError: nothing there"),
    "leaves": ("import os; os._exit(7)", "it was tried 2 times and is not tried again"),
}
OF_FILM: dict[str, tuple[dict[str, Any], str]] = {
    "gives-nan": ({"threshold": float("nan")}, "the model's output is not a number"),
    "wrong-grid": (
        {"after": [{"_target_": "Resized", "keys": "pred", "spatial_size": [16, 16]}]},
        "the model's mask has the shape 1 x 16 x 16",
    ),
}


def sent(node: Node, original: Path) -> str:
    """As a new study; its UID."""
    dataset = pydicom.dcmread(original)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(dataset, keyword, generate_uid())
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path = node.home.parent / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path)
    node.send([path])
    return str(dataset.StudyInstanceUID)


def test_each_hostile_bundle_is_parked_with_its_reason_and_the_good_one_delivers(tmp_path: Path) -> None:
    models, rules = tmp_path / "models", []
    for name, (statement, _) in OF_ECG.items():
        limits = {"time_s": 3.0 if name == "hangs" else 60.0, "memory_mb": 1500}
        bundles.with_card(bundles.workflow_bundle(models, SAID, statement, name=name, accepts=ECG, limits=limits))
        rules.append(f"  - {{name: {name}, when: {{Modality: ECG}}, run: {name}}}")
    for name, (changes, _) in OF_FILM.items():
        bundles.with_card(bundles.network_bundle(models, name=name, **changes))
        rules.append(f"  - {{name: {name}, when: {{Modality: CR}}, run: {name}}}")
    bundles.with_card(bundles.network_bundle(models))
    rules.append("  - {name: film, when: {Modality: CR}, run: threshold}")
    with Pacs(tmp_path / "pacs") as pacs:
        path = tmp_path / "rules.yaml"
        path.write_text(RULES.format(port=pacs.port, rules="\n".join(rules)))
        with Node(tmp_path / "home", path, models) as node:
            wait_until(lambda: '"working"' in node.log())
            ecg, film = sent(node, electrocardiogram()), sent(node, radiograph())
            later = sent(node, radiograph())
            expected = {name: sentence for name, (_, sentence) in (OF_ECG | OF_FILM).items()}
            for study, count in ((ecg, len(OF_ECG)), (film, 1 + len(OF_FILM)), (later, 1 + len(OF_FILM))):
                wait_until(lambda s=study, n=count: ended(node, s) == n, 120, 0.5)  # type: ignore[misc]
                for case in node.life(study)["cases"]:
                    if case["service"] == "threshold":
                        assert case["state"] == "done"
                    else:
                        assert case["state"] == "parked"
                        assert expected[case["service"]] in case["reason"]
            wait_until(lambda: {str(o.StudyInstanceUID) for o in pacs.objects()} == {film, later}, 60, 0.5)


def ended(node: Node, study: str) -> int:
    """How many cases of a study have come to their end."""
    if node.run("studies", "show", study, "--json", check=False).returncode:
        return 0
    return sum(case["state"] in ("done", "parked") for case in node.life(study)["cases"])
