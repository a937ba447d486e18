"""A compressed image that a rule forwards to a PACS that takes no compression: the compute process decompresses it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
from harness import Node, Pacs, wait_until
from pydicom.data import get_testdata_file

RULES = """
version: 1
peers:
  modality: {{ae_title: MR1, host: 127.0.0.1, may: [store]}}
  pacs:     {{ae_title: PACS, host: 127.0.0.1, port: {port}}}
rules:
  - name: everything goes on
    when: {{Modality: {{exists: true}}}}
    forward: pacs
unmatched: keep
"""


def test_it_arrives_decompressed_under_its_own_uid_and_the_row_says_so(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    source = Path(str(get_testdata_file("MR_small_RLE.dcm", download=False)))
    with Pacs(tmp_path / "pacs", options=("+x=",)) as pacs:
        rules = tmp_path / "rules.yaml"
        rules.write_text(RULES.format(port=pacs.port))
        with Node(tmp_path / "home", rules, tmp_path / "models") as node:
            assert (
                node.run("send", str(source), "--to", f"127.0.0.1:{node.port}:PACSNODE", "--from", "MR1").returncode
                == 0
            )
            wait_until(lambda: len(pacs.objects()) == 1, 90)
            (theirs,) = pacs.objects()

            def rows() -> list[dict[str, str]]:
                listed: list[dict[str, str]] = json.loads(node.run("deliveries", "list", "--json").stdout)
                return listed

            wait_until(lambda: [row["state"] for row in rows()] == ["sent"], 30, 0.5)
            assert rows()[0]["reason"] == "sent in Explicit VR Little Endian"
    ours = pydicom.dcmread(source)
    assert theirs.SOPInstanceUID == ours.SOPInstanceUID
    assert theirs.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert np.array_equal(theirs.pixel_array, ours.pixel_array)
