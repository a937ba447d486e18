"""Two destinations want the same results in two forms: each gets its own, whole, under UIDs of its own."""

from __future__ import annotations

from pathlib import Path

import pydicom
from harness import Node, Pacs, radiograph, wait_until
from sending import NAME, with_raw_name

RULES = """\
version: 1
peers:
  xray-1: {{ae_title: XR1, host: 127.0.0.1, may: [store]}}
  main-pacs: {{ae_title: PACS, host: 127.0.0.1, port: {pacs}, investigational: true}}
  old-pacs:
    ae_title: OLD
    host: 127.0.0.1
    port: {old}
    investigational: true
    wants: {{sr: comprehensive, seg: fractional, charset: korean}}
rules:
  - name: chest
    when: {{Modality: {{in: [CR, DX]}}}}
    complete: {{quiet: 1s}}
    run: chest-xray
    results: [sr, seg, sc, pdf, pr]
    send_to: [main-pacs, old-pacs]
unmatched: keep
"""
CLASSES = {
    "main": {
        "Comprehensive 3D SR Storage",
        "Segmentation Storage",
        "Secondary Capture Image Storage",
        "Encapsulated PDF Storage",
        "Grayscale Softcopy Presentation State Storage",
    },
    "old": {
        "Comprehensive SR Storage",
        "Segmentation Storage",
        "Secondary Capture Image Storage",
        "Encapsulated PDF Storage",
        "Grayscale Softcopy Presentation State Storage",
    },
}


def test_each_destination_gets_the_form_that_it_wants(tmp_path: Path) -> None:
    sent = tmp_path / "cr.dcm"
    original = with_raw_name(radiograph(), sent, "forms", "ISO_IR 192", NAME.encode())
    with Pacs(tmp_path / "pacs") as pacs, Pacs(tmp_path / "old", ae_title="OLD") as old:
        rules = tmp_path / "rules.yaml"
        rules.write_text(RULES.format(pacs=pacs.port, old=old.port))
        with Node(tmp_path / "home", rules) as node:
            node.send([sent])
            wait_until(lambda: len(pacs.objects()) == 5 and len(old.objects()) == 5, 90, 0.3)
            at = {"main": pacs.objects(), "old": old.objects()}
            (case,) = node.life(original.StudyInstanceUID)["cases"]
    for where, objects in at.items():
        assert {str(o.SOPClassUID.name) for o in objects} == CLASSES[where]
        assert {str(o.PatientName) for o in objects} == {NAME}
        assert {o.StudyInstanceUID for o in objects} == {original.StudyInstanceUID}
    assert {str(o.SpecificCharacterSet) for o in at["main"]} == {"ISO_IR 192"}
    assert {tuple(o.SpecificCharacterSet) for o in at["old"]} == {("", "ISO 2022 IR 149")}
    seg = {where: next(o for o in objects if o.Modality == "SEG") for where, objects in at.items()}
    assert (seg["main"].SegmentationType, seg["old"].SegmentationType) == ("BINARY", "FRACTIONAL")
    for where, objects in at.items():
        report = next(o for o in objects if o.Modality == "SR")
        assert seg[where].SOPInstanceUID in uids_in(report)
    uids = [o.SOPInstanceUID for objects in at.values() for o in objects]
    assert len(set(uids)) == len(uids)
    assert {d["state"] for d in case["deliveries"]} == {"sent"}


def uids_in(dataset: pydicom.Dataset) -> set[str]:
    return {str(element.value) for element in dataset.iterall() if element.VR == "UI"}
