"""A marked voxel of the source is marked in the SEG where it lies in the patient: for each orientation, by two readers.

One reader is highdicom, the other one is made here from nothing but pydicom's attributes and the bits of Pixel Data.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacsnode import findings_files as stored
from pacsnode.encode.build import encode
from pacsnode.findings import Findings
from pacsnode.handover import Case, EncodeRequest, NodeIdentity
from pacsnode.infer.bundle import NetworkBundle
from pacsnode.infer.catalogue import load_service
from pacsnode.infer.run import infer
from tests.encode.cases import errors_of_dciodvfy
from tests.infer.bundles import VOLUME, network_bundle, saved
from tests.infer.phantoms import IDENTITY, PHANTOMS, Phantom, classic, enhanced, slice_of

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "dicom_test"
SHUFFLED = (5, 0, 7, 3, 1, 6, 2, 4)


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Turns the volume round, resamples it by its affine, marks what is above 0 HU, and brings the labels back."""
    return network_bundle(
        tmp_path_factory.mktemp("models"),
        dimensions=3,
        threshold=0.0,
        before=[
            {"_target_": "Flipd", "keys": "image", "spatial_axis": [0, 2]},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [0.5, 0.75, 1.25], "mode": "nearest"},
        ],
        after=[{"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}],
        input="volume",
        accepts={"Modality": "CT"},
        measurements=[{"method": "volume", "of": [1], "name": VOLUME}],
    )


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Marks what is above 0 HU, and nothing else."""
    return network_bundle(
        tmp_path_factory.mktemp("models"),
        dimensions=3,
        threshold=0.0,
        input="volume",
        accepts={"Modality": "CT"},
        measurements=[{"method": "volume", "of": [1], "name": VOLUME}],
    )


def analysed(folder: Path, files: list[Path], out: Path) -> tuple[Findings, Path]:
    """Through the real way of a case: infer, the record on disk, encode. The findings and the SEG."""
    service = load_service(folder)
    found = infer(service, NetworkBundle(service, "cpu"), "cpu", files)
    stored.save(found, out / "findings")
    headers = [pydicom.dcmread(f, stop_before_pixels=True) for f in files]
    uids = tuple(str(h.SOPInstanceUID) for h in headers)
    case = Case("key-1", str(headers[0].StudyInstanceUID), "threshold", ("rule",), "12" * 32, uids, ("seg", "sr"), 0)
    node = NodeIdentity("PACSNODE", "2.25.1234", "0.1.0")
    request = EncodeRequest(case, node, tuple(files), out, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    made = encode(stored.load(out / "findings"), request)
    assert [m.kind for m in made] == ["seg", "sr"]
    return found, made[0].path


def marked_by_highdicom(path: Path) -> list[NDArray[np.float64]]:
    """Patient positions (LPS) of all marked voxels, by highdicom."""
    segmentation = hd.seg.segread(path)
    found: list[NDArray[np.float64]] = []
    for number in range(1, segmentation.NumberOfFrames + 1):
        transform = hd.spatial.PixelToReferenceTransformer.for_image(segmentation, frame_number=number)
        pixels = segmentation.get_stored_frame(number)
        indices = np.argwhere(pixels)[:, ::-1]  # highdicom wants (column, row)
        found.extend(transform(indices) if len(indices) else [])
    return found


def marked_by_attributes(path: Path) -> list[NDArray[np.float64]]:
    """The same from the attributes of PS3.3 C.7.6.2.1.1 and C.7.6.16, and the bits of the pixels."""
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    size = int(dataset.NumberOfFrames), int(dataset.Rows), int(dataset.Columns)
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, dtype=np.uint8), bitorder="little")[: np.prod(size)]
    found = []
    for frame, row, column in np.argwhere(bits.reshape(size)):
        own = dataset.PerFrameFunctionalGroupsSequence[frame]

        def attribute(sequence: str, keyword: str, own: Dataset = own) -> NDArray[np.float64]:
            holder = own if sequence in own else shared
            return np.array([float(v) for v in holder[sequence].value[0][keyword].value])

        position = attribute("PlanePositionSequence", "ImagePositionPatient")
        cosines = attribute("PlaneOrientationSequence", "ImageOrientationPatient")
        between_rows, between_columns = attribute("PixelMeasuresSequence", "PixelSpacing")
        found.append(position + cosines[:3] * between_columns * column + cosines[3:] * between_rows * row)
    return found


READERS = (marked_by_highdicom, marked_by_attributes)


def source_of(path: Path) -> tuple[str, int | None]:
    """The SOP Instance UID, and the frame, to which the only frame of the SEG refers."""
    (frame,) = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    (source,) = frame.DerivationImageSequence[0].SourceImageSequence
    number = source.get("ReferencedFrameNumber")
    return str(source.ReferencedSOPInstanceUID), None if number is None else int(number)


def assert_marked(path: Path, phantom: Phantom) -> None:
    """Exactly the one voxel, where it was, by both readers."""
    for reader in READERS:
        (position,) = reader(path)
        assert position == pytest.approx(phantom.marked_mm, abs=1e-3)


@pytest.mark.parametrize("name", PHANTOMS)
def test_the_mark_of_a_series_is_where_it_was(tmp_path: Path, bundle_folder: Path, name: str) -> None:
    phantom = PHANTOMS[name]
    files = classic(tmp_path / "in", phantom)
    found, path = analysed(bundle_folder, files, tmp_path / "out")
    assert_marked(path, phantom)
    marked = {str(d.SOPInstanceUID) for d in map(pydicom.dcmread, files) if d.pixel_array.any()}
    assert {source_of(path)[0]} == marked
    (volume,) = found.groups[0].measurements
    assert volume.value == pytest.approx(2.5 * 0.75 * 0.5 / 1000, rel=1e-4)
    assert errors_of_dciodvfy(path) == []


def test_a_tilt_is_told_and_its_voxels_are_not_larger(tmp_path: Path, plain_folder: Path) -> None:
    found, _ = analysed(plain_folder, classic(tmp_path / "in", PHANTOMS["tilted"]), tmp_path / "out")
    (note,) = found.groups[0].notes
    assert note.startswith("The gantry was tilted by 17 degrees: ")
    assert found.groups[0].measurements[0].value == pytest.approx(2.5 * 0.75 * 0.5 / 1000, rel=1e-4)


@pytest.mark.parametrize("all_per_frame", [False, True], ids=["shared", "per frame"])
@pytest.mark.parametrize("name", PHANTOMS)
def test_the_mark_of_an_enhanced_object_is_where_it_was(
    tmp_path: Path, plain_folder: Path, name: str, all_per_frame: bool
) -> None:
    phantom = PHANTOMS[name]
    path = enhanced(tmp_path / "in" / "e.dcm", phantom, SHUFFLED, all_per_frame=all_per_frame)
    found, seg = analysed(plain_folder, [path], tmp_path / "out")
    assert_marked(seg, phantom)
    uid = str(pydicom.dcmread(path).SOPInstanceUID)
    assert source_of(seg) == (uid, SHUFFLED.index(phantom.marked[0]) + 1)
    assert found.groups[0].source == (uid,)
    assert found.groups[0].frames == tuple(SHUFFLED.index(n) + 1 for n in range(8))
    assert errors_of_dciodvfy(seg) == []


def test_of_an_enhanced_object_with_two_phases_the_first_is_marked(tmp_path: Path, plain_folder: Path) -> None:
    path = enhanced(tmp_path / "in" / "e.dcm", IDENTITY, SHUFFLED, phases=2)
    found, seg = analysed(plain_folder, [path], tmp_path / "out")
    assert_marked(seg, IDENTITY)
    assert source_of(seg)[1] == SHUFFLED.index(IDENTITY.marked[0]) + 1
    (note,) = found.groups[0].notes
    assert note == (
        "The series holds 2 volumes at the same place, told apart by temporal position (1, 2). "
        "Analysed: temporal position 1 (the first temporal position)."
    )


def test_an_orientation_rounded_from_slice_to_slice_is_no_obstacle(tmp_path: Path, plain_folder: Path) -> None:
    phantom = PHANTOMS["oblique"]
    files = []
    for n in range(phantom.shape[0]):
        dataset = slice_of(phantom, n)
        digits = 6 if n % 2 else 5
        dataset.ImageOrientationPatient = [f"{float(v):.{digits}f}" for v in dataset.ImageOrientationPatient]
        files.append(saved(dataset, tmp_path / f"{n}.dcm"))
    _, seg = analysed(plain_folder, files, tmp_path / "out")
    for found in (marked_by_highdicom(seg), marked_by_attributes(seg)):
        assert found[0] == pytest.approx(phantom.marked_mm, abs=2e-3)


def test_a_mark_in_each_corner_stays_there(tmp_path: Path, bundle_folder: Path) -> None:
    for corner in ((0, 0, 0), (0, 31, 39), (7, 0, 39), (7, 31, 0)):
        phantom = replace(PHANTOMS["oblique"], marked=corner)
        folder = tmp_path / "-".join(map(str, corner))
        _, seg = analysed(bundle_folder, classic(folder / "in", phantom), folder / "out")
        assert_marked(seg, phantom)


@pytest.mark.parametrize("name", ["23x38x3", "24x38x3"])
def test_a_real_enhanced_object_has_the_volume_of_its_single_images(name: str) -> None:
    from pacsnode.infer.volume import read_volume

    folder = SHARED / "dcmqi" / "segmentations" / name
    if not folder.is_dir():
        pytest.skip(f"the objects are not at {folder}")
    single = read_volume(sorted((folder / "image").iterdir()))
    multi = read_volume([folder / "multiframe" / "mf.dcm"])
    assert np.array_equal(single.intensity, multi.intensity)
    assert single.affine == pytest.approx(multi.affine, abs=1e-4)
    assert len(multi.source) == 1
    assert sorted(multi.frames) == [1, 2, 3]


@pytest.mark.parametrize("name", ["23x38x3", "24x38x3"])
def test_a_real_enhanced_object_is_marked_where_its_single_images_are(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = SHARED / "dcmqi" / "segmentations" / name
    if not folder.is_dir():
        pytest.skip(f"the objects are not at {folder}")
    single = sorted((folder / "image").iterdir())
    bundle = network_bundle(
        tmp_path_factory.mktemp("models"),
        dimensions=3,
        threshold=0.5,
        input="volume",
        accepts={"Modality": "CT"},
        measurements=[{"method": "volume", "of": [1], "name": VOLUME}],
    )
    marks = []
    for kind, files in (("single", single), ("multi", [folder / "multiframe" / "mf.dcm"])):
        _, seg = analysed(bundle, files, tmp_path / kind)
        ours, theirs = (np.array(sorted(map(tuple, np.round(f(seg), 3)))) for f in READERS)
        assert np.allclose(ours, theirs, atol=2e-3)
        marks.append(theirs)
    assert len(marks[0]) > 2
    assert np.allclose(marks[0], marks[1], atol=2e-3)
