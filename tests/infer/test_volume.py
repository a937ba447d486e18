"""Series to volumes: order, place in the patient, what is left out or refused, the way through a network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.config
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from pacsnode.errors import Permanent
from pacsnode.findings import Findings
from pacsnode.infer.bundle import NetworkBundle
from pacsnode.infer.catalogue import load_service
from pacsnode.infer.run import infer
from pacsnode.infer.volume import read_volume
from tests.infer.bundles import VOLUME, network_bundle, saved
from tests.infer.series import (
    COLUMNS,
    MARKED,
    ORIGIN_MM,
    ROWS,
    SLICES,
    SPACING_MM,
    position_mm,
    slice_dataset,
    turned,
    write_series,
)

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def test_slices_come_in_the_order_of_their_positions(tmp_path: Path) -> None:
    volume = read_volume(write_series(tmp_path))
    assert volume.intensity.shape == (SLICES, ROWS, COLUMNS)
    assert volume.intensity.dtype == np.float32
    assert np.argwhere(volume.intensity > 0).tolist() == [list(MARKED)]
    assert set(np.unique(volume.intensity)) == {-1000.0, 1000.0}
    uids = {str(d.SOPInstanceUID): d.ImagePositionPatient for d in map(pydicom.dcmread, tmp_path.iterdir())}
    heights = [np.array(uids[uid], dtype=float) @ turned()[2] for uid in volume.source]
    assert heights == sorted(heights)
    assert volume.spacing_mm == pytest.approx(SPACING_MM, abs=1e-4)
    assert volume.notes == ()


@pytest.mark.parametrize("voxel", [(0, 0, 0), MARKED, (11, 63, 0), (3, 0, 63)])
def test_the_affine_leads_from_voxel_to_patient(tmp_path: Path, voxel: tuple[int, int, int]) -> None:
    affine = read_volume(write_series(tmp_path)).affine
    slice_, row, column = voxel
    found = affine @ np.array([column, row, slice_, 1.0])
    assert found[:3] == pytest.approx(LPS_TO_RAS @ position_mm(*voxel), abs=1e-4)


def test_the_affine_is_the_one_of_monais_reader(tmp_path: Path) -> None:
    from monai.data import PydicomReader

    folder = SHARED / "data" / "dicom_test" / "dcmqi" / "segmentations" / "ct-3slice"
    if not folder.is_dir():
        pytest.skip(f"the series is not at {folder}")
    reader = PydicomReader()
    array, meta = reader.get_data(reader.read(str(folder)))
    volume = read_volume(sorted(folder.iterdir()))
    assert array.shape == volume.intensity.shape[::-1]
    flipped = np.allclose(array[:, :, ::-1].transpose(2, 1, 0), volume.intensity)
    assert flipped or np.allclose(array.transpose(2, 1, 0), volume.intensity)
    corner = [10.0, 20.0, 0.0, 1.0]
    there = meta["affine"] @ (np.array([10.0, 20.0, 2.0, 1.0]) if flipped else np.array(corner))
    assert volume.affine @ np.array(corner) == pytest.approx(there, abs=1e-3)


def test_a_real_prostate_series_is_read() -> None:
    folder = SHARED / "data" / "prostate" / "prostatex_dicom"
    if not folder.is_dir():
        pytest.skip(f"the series are not at {folder}")
    for series in sorted(folder.iterdir()):
        files = [p for p in series.rglob("*") if p.is_file() and p.read_bytes()[128:132] == b"DICM"]
        volume = read_volume(files)
        assert len(volume.source) == len(files) > 10
        assert np.linalg.det(volume.affine) == pytest.approx(np.prod(volume.spacing_mm), rel=1e-3)


# --- refusals


def written(folder: Path, *datasets: Any) -> list[Path]:
    return [saved(d, folder / f"{n}.dcm") for n, d in enumerate(datasets)]


def test_one_image_is_no_volume() -> None:
    with pytest.raises(Permanent, match=r"series 1 \(1 image\): only one image; a volume needs at least two"):
        read_volume([Path(str(get_testdata_file("CT_small.dcm")))])


def test_no_image_is_no_volume() -> None:
    with pytest.raises(Permanent, match="no images"):
        read_volume([])


def test_a_missing_slice_is_a_gap(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=r"images are missing: a gap of 5.0 mm after image 5 of 11.* 2.5 mm apart"):
        read_volume(write_series(tmp_path, [n for n in range(SLICES) if n != 5]))


def test_uneven_distances_are_refused(tmp_path: Path) -> None:
    datasets = [slice_dataset(n) for n in range(SLICES)]
    datasets[-1].ImagePositionPatient = [f"{v:.6f}" for v in position_mm(SLICES - 0.7, 0, 0)]
    with pytest.raises(Permanent, match=r"distance between the images changes, from 2.50 to 3.25 mm"):
        read_volume(written(tmp_path, *datasets))


def test_rounded_positions_are_taken(tmp_path: Path) -> None:
    datasets = [slice_dataset(n) for n in range(SLICES)]
    for dataset in datasets:
        dataset.ImagePositionPatient = [f"{float(v):.2f}" for v in dataset.ImagePositionPatient]
    assert len(read_volume(written(tmp_path, *datasets)).source) == SLICES


def test_images_at_one_place_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path / "arterial") + write_series(tmp_path / "venous", RescaleIntercept=-900)
    with pytest.raises(Permanent, match=r"several images lie at the same position and differ.*more than one phase"):
        read_volume(files)


@pytest.mark.parametrize("count", [1, 5, SLICES])
def test_what_is_there_twice_with_the_same_pixels_counts_once(tmp_path: Path, count: int) -> None:
    files = write_series(tmp_path / "once") + write_series(tmp_path / "again", range(count))
    volume = read_volume(files)
    assert len(volume.source) == SLICES
    told = "1 image that was" if count == 1 else f"{count} images that were"
    assert volume.notes == (f"Left out: {told} there twice, with the same pixels.",)


def test_the_same_file_twice_counts_once(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    volume = read_volume([*files, files[0]])
    assert len(volume.source) == SLICES
    assert volume.notes == ("Left out: 1 image that was there twice, with the same pixels.",)


def test_two_images_under_one_uid_are_refused(tmp_path: Path) -> None:
    datasets = [slice_dataset(n) for n in range(4)]
    datasets[2].SOPInstanceUID = datasets[2].file_meta.MediaStorageSOPInstanceUID = datasets[1].SOPInstanceUID
    with pytest.raises(Permanent, match="two different images have the same SOP Instance UID"):
        read_volume(written(tmp_path, *datasets))


TILTED = [f"{v:.9f}" for v in (*turned()[0], *turned()[2])]

UNLIKE = [
    ({"ImageOrientationPatient": TILTED}, r"1 image with different orientations \(a localizer"),
    ({"PixelSpacing": [0.75, 0.75]}, "1 image with different pixel spacings"),
    ({"FrameOfReferenceUID": "1.2.3"}, "1 image with different frames of reference"),
    ({"ImageOrientationPatient": None}, "1 image, since an image does not say where it lies"),
    ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "1 image, since .* rows and columns are not at right angles"),
    ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "1 image, since .* rows and columns are not at right angles"),
    ({"ImagePositionPatient": [1, 2]}, "1 image, since an image does not say where it lies"),
    ({"ImagePositionPatient": ["1e300", "0", "0"]}, "1 image, since an image does not say where it lies"),
    ({"PixelSpacing": [0, 0]}, "1 image, since an image does not say where it lies"),
    ({"PixelSpacing": ["nan", "nan"]}, "1 image, since an image does not say where it lies"),
    ({"Rows": 32}, r"1 image with different sizes \(64 x 32, 64 x 64 pixels\)"),
]


@pytest.mark.parametrize(("change", "sentence"), UNLIKE)
def test_one_image_unlike_the_others_is_left_out_with_a_note(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    with pydicom.config.disable_value_validation():
        datasets = [slice_dataset(n) for n in range(4)] + [slice_dataset(4, **change)]
        volume = read_volume(written(tmp_path, *datasets))
    assert volume.source == tuple(str(d.SOPInstanceUID) for d in datasets[:4])
    (note,) = volume.notes
    assert re.match(f"Left out: {sentence}", note)


@pytest.mark.parametrize(("change", "sentence"), UNLIKE)
def test_one_unlike_image_in_the_middle_leaves_a_gap(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    with pydicom.config.disable_value_validation():
        datasets = [slice_dataset(n, **(change if n == 2 else {})) for n in range(6)]
        with pytest.raises(Permanent, match=r"images are missing: a gap of 5.0 mm after image 2 of 5"):
            read_volume(written(tmp_path, *datasets))


def test_several_planes_of_which_none_has_most_images_are_refused(tmp_path: Path) -> None:
    across, down, normal = (-v for v in turned())
    planes = [(across, down), (across, normal), (down, normal)]
    datasets = [
        slice_dataset(n, ImageOrientationPatient=[f"{v:.9f}" for v in (*a, *b)]) for a, b in planes for n in range(5)
    ]
    with pytest.raises(Permanent, match=r"different orientations, and no part has more than half of the 15 images"):
        read_volume(written(tmp_path, *datasets))


@pytest.mark.parametrize("slope", [0, "nan"])
def test_an_unusable_rescale_is_refused(tmp_path: Path, slope: object) -> None:
    with pydicom.config.disable_value_validation():
        datasets = [slice_dataset(n) for n in range(4)] + [slice_dataset(4, RescaleSlope=slope)]
        with pytest.raises(Permanent, match=r"rescale slope"):
            read_volume(written(tmp_path, *datasets))


def test_a_lookup_table_takes_the_place_of_a_rescale(tmp_path: Path) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor = [2001, 0, 16]
    table.LUTData = np.arange(0, 2 * 2001, 2, dtype="<u2").tobytes()
    table["LUTData"].VR = "OW"
    table.ModalityLUTType = "HU"
    datasets = [slice_dataset(n, ModalityLUTSequence=[table]) for n in range(SLICES)]
    assert read_volume(written(tmp_path, *datasets)).intensity.max() == 4000


@pytest.mark.parametrize("data", [None, b"", b"\0" * 4])
def test_a_damaged_lookup_table_is_refused(tmp_path: Path, data: bytes | None) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor = [2001, 0, 16]
    if data is not None:
        table.LUTData = data
        table["LUTData"].VR = "OW"
    datasets = [slice_dataset(n, ModalityLUTSequence=[table]) for n in range(3)]
    with pytest.raises(Permanent, match="lookup table of an image is damaged"):
        read_volume(written(tmp_path, *datasets))


def shifted(step_mm: float, numbers: range = range(6)) -> list[Any]:
    """Slices that are shifted down by so much from one to the next."""
    datasets = [slice_dataset(n) for n in numbers]
    for n, dataset in zip(numbers, datasets, strict=True):
        dataset.ImagePositionPatient = [f"{v:.6f}" for v in position_mm(n, n * step_mm / SPACING_MM[1], 0)]
    return datasets


def test_a_tilted_gantry_gives_a_sheared_volume_and_a_note(tmp_path: Path) -> None:
    volume = read_volume(written(tmp_path, *shifted(2.5 * np.tan(0.3))))
    (note,) = volume.notes
    assert note.startswith("The gantry was tilted by 17 degrees")
    assert volume.voxel_mm3 == pytest.approx(np.prod(SPACING_MM), rel=1e-4)
    assert volume.spacing_mm == pytest.approx(SPACING_MM, abs=1e-4)
    there = position_mm(4, 4 * 2.5 * np.tan(0.3) / SPACING_MM[1] + 10, 20)
    assert (volume.affine @ [20, 10, 4, 1])[:3] == pytest.approx(LPS_TO_RAS @ there, abs=1e-3)


def test_slices_shifted_by_more_than_a_tilt_or_unevenly_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="by 51 degrees, more than any gantry tilts"):
        read_volume(written(tmp_path, *shifted(2.5 * 1.25)))
    datasets = shifted(0)
    datasets[3].ImagePositionPatient = [f"{v:.6f}" for v in position_mm(3, 2, 0)]
    with pytest.raises(Permanent, match="do not lie in one straight row"):
        read_volume(written(tmp_path, *datasets))


def test_a_volume_that_would_fill_the_memory_is_refused_before_decoding(tmp_path: Path) -> None:
    files = written(tmp_path, *(slice_dataset(n, Rows=60000, Columns=60000) for n in range(3)))
    with pytest.raises(Permanent, match="60000 x 60000 x 3 voxels is larger than the node reads"):
        read_volume(files)


# --- choice of the series


def test_the_largest_series_that_forms_a_volume_is_taken_and_named(tmp_path: Path) -> None:
    thin = write_series(tmp_path / "b", range(6), SeriesInstanceUID=generate_uid(), SeriesNumber=4)
    scout = write_series(tmp_path / "c", range(1), SeriesInstanceUID=generate_uid(), SeriesNumber=1)
    gap = [n for n in range(SLICES) if n != 5]
    holed = write_series(tmp_path / "a", gap, SeriesInstanceUID=generate_uid(), SeriesNumber=2)
    volume = read_volume([*holed, *scout, *thin])
    assert len(volume.source) == 6
    (note,) = volume.notes
    assert note.startswith("Analysed: series 4 (6 images), the largest that forms a volume. ")
    assert "Left out: series 2 (11 images); series 1 (1 image)." in note
    assert "Not usable: series 2 (11 images): images are missing" in note


def test_without_any_usable_series_the_reason_of_the_largest_is_told(tmp_path: Path) -> None:
    one = write_series(tmp_path / "a", range(1), SeriesInstanceUID=generate_uid(), SeriesNumber=1)
    holed = write_series(tmp_path / "b", [0, 1, 2, 5], SeriesInstanceUID=generate_uid(), SeriesNumber=7)
    with pytest.raises(Permanent, match=r"none of the 2 series forms a volume; series 7 \(4 images\): .*missing"):
        read_volume([*one, *holed])


# --- through a network to a SEG


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Turns the volume round, doubles its slices by the affine, marks what is above 0 HU, brings the labels back."""
    invert = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
    return network_bundle(
        tmp_path_factory.mktemp("models"),
        dimensions=3,
        threshold=0.0,
        before=[
            {"_target_": "Flipd", "keys": "image", "spatial_axis": [0, 2]},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [0.5, 0.75, 1.25], "mode": "nearest"},
        ],
        after=[invert],
        input="volume",
        accepts={"Modality": "CT"},
        measurements=[{"method": "volume", "of": [1], "name": VOLUME}],
    )


def found_in(bundle_folder: Path, files: list[Path]) -> Findings:
    service = load_service(bundle_folder)
    return infer(service, NetworkBundle(service, "cpu"), "cpu", files)


def test_a_threshold_marks_the_voxel_in_its_slice(tmp_path: Path, bundle_folder: Path) -> None:
    files = write_series(tmp_path)
    (group,) = found_in(bundle_folder, files).groups
    assert group.label_map is not None
    assert group.label_map.dtype == np.uint8
    assert np.argwhere(group.label_map).tolist() == [list(MARKED)]
    assert group.source == read_volume(files).source
    (volume,) = group.measurements
    assert volume.value == pytest.approx(2.5 * 0.75 * 0.5 / 1000, rel=1e-4)
    assert (volume.unit.value, volume.unit.scheme) == ("ml", "UCUM")


def test_an_empty_volume_gives_a_reason(tmp_path: Path, bundle_folder: Path) -> None:
    with pytest.raises(Permanent, match="the model found no usable lung"):
        found_in(bundle_folder, write_series(tmp_path, range(5)))


def test_the_origin_of_the_made_series_is_a_slices_corner() -> None:
    assert position_mm(0, 0, 0) == pytest.approx(ORIGIN_MM)


def test_making_a_bundle_that_reads_files_warns_of_nothing(tmp_path: Path, bundle_folder: Path) -> None:
    """MONAI's LoadImaged looks for libraries that no one needs here and warns, at each start of the node."""
    program = (
        "import logging, sys; logging.basicConfig(level=logging.WARNING)\n"
        "from pathlib import Path\n"
        "from pacsnode.infer.bundle import NetworkBundle\n"
        "from pacsnode.infer.catalogue import load_service\n"
        "NetworkBundle(load_service(Path(sys.argv[1])), 'cpu')\n"
    )
    command = [sys.executable, "-W", "always:::monai", "-c", program, str(bundle_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert "nvImageCodec" not in done.stderr
    assert "WARNING" not in done.stderr
