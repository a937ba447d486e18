"""Each Korean spelling met in practice, by C-STORE through a node to an Orthanc: the same name in every result.

The name is read by pydicom, by DCMTK and by Orthanc; what the node keeps of the source is what was sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from harness import SHARED, Node, wait_until
from orthanc import ORTHANC, Orthanc
from sending import data_set_bytes

from tests.dicom.test_charsets import EXPECTED
from tests.encode.cases import run_tool
from tests.infer import bundles

VECTORS = sorted((SHARED / "data" / "charsets").glob("*.dcm"))

pytestmark = [
    pytest.mark.skipif(not Path(ORTHANC).exists(), reason="needs Debian's orthanc"),
    pytest.mark.skipif(not VECTORS, reason="the 19 character set vectors do not lie beside this repository"),
]

RULES = """\
version: 1
unmatched: keep
peers:
  xray-1: {{ae_title: XR1, host: 127.0.0.1, may: [store], issuer: CLINIC}}
  main-pacs: {{ae_title: PACS, host: 127.0.0.1, port: {port}, investigational: true}}
rules:
  - name: capture
    when: {{Modality: OT}}
    complete: {{quiet: 1s}}
    run: says
    results: [sr, seg, sc, pdf]
    send_to: [main-pacs]
"""
CLASSES = {
    "Comprehensive 3D SR Storage",
    "Segmentation Storage",
    "Secondary Capture Image Storage",
    "Encapsulated PDF Storage",
}
SAID = """{
    "label_map": __import__("numpy").ones((16, 16), "uint8"),
    "values": {"heart_rate": 61.0},
    "findings": {"af": {"presence": "present", "probability": 0.9}},
}"""


@dataclass(frozen=True)
class World:
    """What was sent to a node, and the PACS that holds its answers to all of it."""

    sent: Path
    pacs: Orthanc
    kept: frozenset[str]
    """SHA-256 of the data set of each archived file."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("charsets")
    sent, models, rules = folder / "sent", folder / "models", folder / "rules.yaml"
    accepts, marked = {"Modality": "OT"}, [bundles.segment()]
    bundles.with_card(bundles.workflow_bundle(models, SAID, input="image", accepts=accepts, segments=marked))
    sent.mkdir()
    for path in VECTORS:
        (sent / path.name).write_bytes(grown(path.read_bytes()))
    node = Node(folder / "home", rules, models)
    with Orthanc(folder / "orthanc", node.port) as pacs:
        rules.write_text(RULES.format(port=pacs.port))
        with node:
            node.send(sorted(sent.iterdir()))
            try:
                wait_until(lambda: pacs.count() >= len(CLASSES) * len(VECTORS), 150, 0.5)
            except TimeoutError:
                pytest.fail(f"the PACS has {pacs.count()} objects; the node says:\n{node.log()[-3000:]}")
            kept = frozenset(map(digest, (node.home / "files").glob("*/*/*.dcm")))
            yield World(sent, pacs, kept)


def grown(content: bytes) -> bytes:
    """A vector of 2 x 2 pixels, which no model reads, with 16 x 16; every other byte stays what it is."""
    size, pixels = b"US\2\0\2\0", b"\xe0\x7f\x10\0OB\0\0\4\0\0\0" + bytes(4)
    for old, new in (
        (b"\x28\0\x10\0" + size, b"\x28\0\x10\0US\2\0\x10\0"),
        (b"\x28\0\x11\0" + size, b"\x28\0\x11\0US\2\0\x10\0"),
        (pixels, pixels[:8] + (256).to_bytes(4, "little") + bytes(range(256))),
    ):
        assert content.count(old) == 1
        content = content.replace(old, new)
    return content


def digest(path: Path) -> str:
    return hashlib.sha256(data_set_bytes(path)).hexdigest()


@pytest.mark.filterwarnings("ignore:(Unknown|Incorrect value for Specific Character Set) ")  # of the vectors
@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_a_korean_name_is_the_same_for_every_reader_of_every_result(path: Path, world: World, tmp_path: Path) -> None:
    name, _ = EXPECTED[path.stem.removeprefix("cs_")]
    study = str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID)
    made = world.pacs.objects(study)
    assert sorted(str(one.SOPClassUID.name) for one in made) == sorted(CLASSES)
    assert [str(one.PatientName) for one in made] == [name] * len(CLASSES)
    assert [tags["PatientName"] for tags in world.pacs.tags(study)] == [name] * len(CLASSES)
    for one in made:
        assert one.SpecificCharacterSet == "ISO_IR 192"
        one.save_as(tmp_path / "one.dcm")
        (line,) = run_tool("/usr/bin/dcmdump", "-q", "+U8", "+P", "0010,0010", str(tmp_path / "one.dcm"))[:-1]
        assert f"[{name}]" in line


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_what_is_kept_of_the_source_is_bit_by_bit_what_was_sent(path: Path, world: World) -> None:
    assert digest(world.sent / path.name) in world.kept


def test_all_of_the_vectors_went_through(world: World) -> None:
    assert (len(VECTORS), world.pacs.count()) == (19, 19 * len(CLASSES))
