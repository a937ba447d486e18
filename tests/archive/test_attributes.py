"""Attributes read back from archived files: of the data set, and of how it came to us."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.filereader import read_file_meta_info

from pacsnode.archive.attributes import read_attributes
from pacsnode.dicom.names import parse_name
from pacsnode.errors import Permanent, Rejected
from tests.archive.homes import archive, data_set, home, on_disk, request, store

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
FILES = [
    Path(str(get_testdata_file(name)))
    for name in (
        "CT_small.dcm",
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "image_dfl.dcm",
        "JPEG2000.dcm",
        "no_meta_group_length.dcm",
        "test-SR.dcm",
    )
]
CT_SMALL = FILES[0].read_bytes()


def read(path: Path, *texts: str) -> dict[str, tuple[str, ...]]:
    return read_attributes(path, [parse_name(text) for text in texts])


DATA_SET = data_set("1.2.3.4", PatientComments="주의", SpatialResolution="0.5\\0.6")


def kept(tmp_path: Path) -> Path:
    """The file of one object that the archive has taken."""
    made = home(tmp_path)
    node = archive(made)
    try:
        said = replace(request("1.2.3.4"), calling_ae_title="CT ROOM 3", called_ae_title="STROKE")
        assert store(node, DATA_SET, said).verdict == "stored"
    finally:
        node.close()
    (path,) = on_disk(made)
    return path


def test_what_the_index_does_not_hold_is_read_from_the_file(tmp_path: Path) -> None:
    path = kept(tmp_path)
    assert read(path, "PatientComments", "0018,1050", "SpatialResolution[2]", "Modality", "OperatorsName") == {
        "PatientComments": ("주의",),
        "0018,1050": ("0.5", "0.6"),
        "SpatialResolution": ("0.5", "0.6"),
        "Modality": ("CT",),
    }
    assert read(path) == {}


def test_the_titles_that_an_object_came_under_are_read_from_the_meta_information(tmp_path: Path) -> None:
    path = kept(tmp_path)
    assert read(path, "calling_ae_title", "called_ae_title", "0002,0017", "ReceivingApplicationEntityTitle") == {
        "calling_ae_title": ("CT ROOM 3",),
        "called_ae_title": ("STROKE",),
        "0002,0017": ("CT ROOM 3",),
        "ReceivingApplicationEntityTitle": ("STROKE",),
    }
    assert read(path, "calling_ae_title", "SOPInstanceUID", "0002,0016", "HasPixelData") == {
        "calling_ae_title": ("CT ROOM 3",),
        "SOPInstanceUID": ("1.2.3.4",),
        "HasPixelData": ("YES",),
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_meta_and_data_set_of_a_file_are_what_pydicom_reads(path: Path) -> None:
    with_meta = pydicom.dcmread(path, stop_before_pixels=True)
    meta = read_file_meta_info(path)
    words = {
        "TransferSyntaxUID": meta,
        "ImplementationClassUID": meta,
        "ImplementationVersionName": meta,
        "SourceApplicationEntityTitle": meta,
        "StudyInstanceUID": with_meta,
        "StudyDate": with_meta,
    }
    theirs = {word: (str(found[word].value),) for word, found in words.items() if found.get(word)}
    assert read(path, *words) == theirs
    assert len(theirs) >= 4


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not on this machine")
def test_every_shared_file_says_its_transfer_syntax_and_modality() -> None:
    files = [
        path for path in (SHARED / "dicom_test").rglob("*") if path.is_file() and path.read_bytes()[128:132] == b"DICM"
    ]
    assert len(files) > 80
    for path in files:
        theirs = pydicom.dcmread(path, stop_before_pixels=True)
        assert read(path, "0002,0010", "0008,0060") == {
            "0002,0010": (str(theirs.file_meta.TransferSyntaxUID),),
            "0008,0060": (theirs.Modality,),
        }, path


def test_a_file_that_is_gone_or_no_part_10_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "gone.dcm", "0018,1050")
    text = tmp_path / "text.dcm"
    text.write_bytes(b"")
    with pytest.raises(Permanent, match="not a DICOM Part 10 file"):
        read(text, "0018,1050")


def test_a_file_without_a_data_set_has_only_its_meta_information(tmp_path: Path) -> None:
    whole = kept(tmp_path)
    size = whole.stat().st_size - len(DATA_SET)
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(whole.read_bytes()[:size])
    assert read(cut, "called_ae_title", "0018,1050") == {"called_ae_title": ("STROKE",)}
    cut.write_bytes(whole.read_bytes()[: size + 9])
    with pytest.raises(Rejected, match="truncated"):
        read(cut, "called_ae_title", "0018,1050")
    assert read(cut, "called_ae_title") == {"called_ae_title": ("STROKE",)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 700), st.binary(max_size=40))
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, at: int, damage: bytes) -> None:
    whole = CT_SMALL[:at] + damage + CT_SMALL[at + len(damage) : 5000]
    path = tmp_path / "damaged.dcm"
    path.write_bytes(whole)
    try:
        values = read(path, "called_ae_title", "0002,0010", "0018,1050", "OtherPatientIDsSequence.PatientID")
    except (Permanent, Rejected):
        return
    assert all(any(texts) for texts in values.values())
