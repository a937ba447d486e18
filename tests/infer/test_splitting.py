"""A series is split by what tells images at one place apart, by the same rule in whatever order they come."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from pacsnode.errors import Permanent
from pacsnode.infer.grid import grid
from pacsnode.infer.marks import MARKS, Mark
from pacsnode.infer.planes import Plane, planes_of
from pacsnode.infer.splitting import choice_note, largest_part, split, usable
from pacsnode.infer.volume import Volume, read_volume
from tests.infer.bundles import saved
from tests.infer.phantoms import IDENTITY, PHANTOMS, enhanced, enhanced_dataset, slice_of

HALF = range(8)


def written(folder: Path, *groups: dict[str, Any], numbers: range = HALF) -> list[Path]:
    """Files of one series: the phantom's slices once for each group of attributes, in a shuffled order.

    The stored values are the number of the group (from 1), so that the volume tells which one was read.
    """
    files = []
    for value, attributes in enumerate(groups, start=1):
        for n in attributes.pop("numbers", numbers):
            own = {k: v(n) if callable(v) else v for k, v in attributes.items()}
            dataset = slice_of(IDENTITY, n, RescaleIntercept=0, **own)
            pixels = np.full(IDENTITY.shape[1:], value, dtype="<i2")
            dataset.PixelData = pixels.tobytes()
            files.append(saved(dataset, folder / f"{generate_uid()}.dcm"))
    random.Random(1).shuffle(files)
    return files


def read_of(volume: Volume) -> int:
    """The number of the group that was read."""
    (value,) = np.unique(volume.intensity).tolist()
    return int(value)


SPLITS: list[tuple[str, list[dict[str, Any]], int, str]] = [
    (
        "b-values",
        [{"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}, {"DiffusionBValue": 500.0}],
        2,
        "b-value 1000",
    ),
    ("echoes", [{"EchoTime": 80}, {"EchoTime": 20}], 2, "echo time 20 (the first echo time)"),
    (
        "magnitude and phase",
        [{"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]}],
        2,
        r"kind of image ORIGINAL\PRIMARY\M\ND",
    ),
    (
        "derived and original",
        [{"ImageType": ["DERIVED", "PRIMARY", "M"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "P"]}],
        2,
        r"kind of image ORIGINAL\PRIMARY\P",
    ),
    ("phases", [{"TemporalPositionIdentifier": n} for n in (3, 1, 2)], 2, "temporal position 1"),
    ("heart", [{"TriggerTime": n} for n in (400, 0, 200)], 2, "cardiac phase 0"),
    ("acquisitions", [{"AcquisitionNumber": 4}, {"AcquisitionNumber": 3}], 2, "acquisition 3"),
    ("contrast", [{"ContrastBolusAgent": "X"}, {}], 2, "contrast agent none"),
    ("kernels", [{"ConvolutionKernel": "B70f"}, {"ConvolutionKernel": "B30f"}], 2, "kernel B30f"),
    ("energies", [{"KVP": 140}, {"KVP": 80}], 2, "tube voltage 80"),
    ("inversions", [{"InversionTime": 900}, {"InversionTime": 300}], 2, "inversion time 300"),
    (
        "times that stay the same",
        [{"AcquisitionTime": "101500.25"}, {"AcquisitionTime": "101400"}],
        2,
        "time 101400 (the first time)",
    ),
    (
        "times that run on",
        [{"AcquisitionTime": lambda n: f"1016{n:02}"}, {"AcquisitionTime": lambda n: f"1015{n:02}"}],
        2,
        "turn by time 1",
    ),
    (
        "b-values and echoes",
        [{"DiffusionBValue": b, "EchoTime": e} for b in (0.0, 800.0) for e in (90, 60)],
        4,
        "b-value 800, echo time 60",
    ),
    (
        "b-values and directions",
        [
            {"DiffusionBValue": 0.0},
            {"DiffusionBValue": 800.0, "DiffusionGradientOrientation": [0.0, 1.0, 0.0]},
            {"DiffusionBValue": 800.0, "DiffusionGradientOrientation": [0.0, 0.0, 1.0]},
        ],
        3,
        r"b-value 800, diffusion direction 0.0\0.0\1.0",
    ),
    (
        "a few repeated by another scan",
        [{"AcquisitionNumber": 2}, {"AcquisitionNumber": 1, "numbers": range(3)}],
        1,
        "2",
    ),
]


@pytest.mark.parametrize(("groups", "chosen", "word"), [s[1:] for s in SPLITS], ids=[s[0] for s in SPLITS])
def test_a_series_is_split_and_the_choice_is_told(
    tmp_path: Path, groups: list[dict[str, Any]], chosen: int, word: str
) -> None:
    volume = read_volume(written(tmp_path, *[dict(g) for g in groups]))
    assert len(volume.source) == 8
    assert read_of(volume) == chosen
    (note,) = volume.notes
    assert note.startswith(f"The series holds {len(groups)} volumes at the same place, told apart by ")
    assert word in note.partition("Analysed: ")[2]


def test_the_documented_rule_is_the_one_that_is_applied() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "reading.md").read_text()
    rows = [line.strip().strip("|").split(" | ") for line in page.splitlines() if line.startswith("   | ")][1:]
    names = {"FrameType": "Frame Type"}
    for kind, (name, attributes, taken) in zip(MARKS, rows, strict=True):
        assert name.strip() == kind.name
        assert all(names.get(keyword, keyword) in attributes for keyword in kind.keywords)
        assert taken.startswith(kind.taken) or kind.name == "kind of image"


def test_a_private_b_value_of_siemens_and_of_ge_tells_apart(tmp_path: Path) -> None:
    for creator, group, element, values in (
        ("SIEMENS MR HEADER", 0x0019, 0x0C, ("0", "1000")),
        ("GEMS_PARM_01", 0x0043, 0x39, (["1000000000", "0"], ["1000001000", "0"])),
    ):
        files = []
        for value, b_value in enumerate(values, start=1):
            for n in HALF:
                dataset = slice_of(IDENTITY, n, RescaleIntercept=0)
                dataset.private_block(group, creator, create=True).add_new(element, "IS", b_value)
                dataset.PixelData = np.full(IDENTITY.shape[1:], value, dtype="<i2").tobytes()
                files.append(saved(dataset, tmp_path / f"{generate_uid()}.dcm"))
        volume = read_volume(files)
        assert read_of(volume) == 2
        assert "b-value (0, 1000)" in volume.notes[0]


def test_a_time_that_changes_from_slice_to_slice_is_no_phase(tmp_path: Path) -> None:
    files = written(tmp_path, {"AcquisitionTime": lambda n: f"10{n:02}00", "AcquisitionNumber": lambda n: n})
    volume = read_volume(files)
    assert len(volume.source) == 8
    assert volume.notes == ()


def test_phases_whose_times_overlap_are_refused(tmp_path: Path) -> None:
    """Slice by slice twice (0, 0, 1, 1 …): which of the two is the earlier phase nobody says."""
    files = written(tmp_path, {"ContentTime": lambda n: f"10{n:02}00"}, {"ContentTime": lambda n: f"10{n:02}30"})
    with pytest.raises(Permanent, match="differ, and nothing in their headers tells why"):
        read_volume(files)


def test_a_phase_with_a_gap_gives_way_to_the_next(tmp_path: Path) -> None:
    holed = [n for n in HALF if n != 3]
    files = written(tmp_path, {"EchoTime": 20, "numbers": holed}, {"EchoTime": 80})
    volume = read_volume(files)
    assert read_of(volume) == 2
    assert "Analysed: echo time 80" in volume.notes[0]


def test_a_localizer_in_the_series_is_left_out(tmp_path: Path) -> None:
    files = written(tmp_path, {})
    for n in range(2):
        files.append(saved(slice_of(PHANTOMS["coronal"], n), tmp_path / f"scout{n}.dcm"))
    volume = read_volume(files)
    assert len(volume.source) == 8
    assert volume.notes == ("Left out: 2 images with different orientations (a localizer in the series?).",)


# --- the pure core, by properties


def plane(n: int, phase: int = 0, **marks: Mark) -> Plane:
    phantom = PHANTOMS["oblique"]
    named = {"temporal position": Mark(True, float(phase))} | marks
    return Plane(
        path=Path("none"),
        header=Dataset(),
        sop_instance_uid=f"1.2.{phase}.{n}",
        frame=0,
        position_mm=phantom.position_mm(n, 0, 0),
        across=np.array(phantom.across),
        down=np.array(phantom.down),
        spacing_mm=(0.75, 0.5),
        size=(32, 40),
        frame_of_reference="1.2.3",
        marks=named,
    )


@settings(deadline=None)
@given(count=st.integers(2, 30), phases=st.integers(1, 5), seed=st.randoms(use_true_random=False))
def test_the_order_in_which_images_come_changes_nothing(count: int, phases: int, seed: random.Random) -> None:
    planes = [plane(n, phase) for phase in range(phases) for n in range(count)]
    seed.shuffle(planes)
    part, notes = largest_part(planes, ())
    assert notes == () and len(part) == len(planes)
    stacks = split(part)
    assert len(stacks) == len(usable(stacks)) == phases
    assert sorted(p.sop_instance_uid for s in stacks for p in s.planes) == sorted(p.sop_instance_uid for p in planes)
    first = grid(stacks[0].planes)
    assert [p.sop_instance_uid for p in first.planes] == [f"1.2.0.{n}" for n in range(count)]
    assert np.allclose(first.affine[:3, 2] @ first.affine[:3, 0], 0, atol=1e-6)
    if phases > 1:
        assert "Analysed: temporal position 0" in choice_note(stacks[0], stacks)


@settings(deadline=None)
@given(
    count=st.integers(3, 12),
    missing=st.integers(1, 10),
    seed=st.randoms(use_true_random=False),
)
def test_a_missing_slice_is_never_bridged(count: int, missing: int, seed: random.Random) -> None:
    planes = [plane(n) for n in range(count + 1) if n != min(missing, count - 1)]
    seed.shuffle(planes)
    if count < 4:  # of two distances none is the usual one
        return
    with pytest.raises(Permanent, match="images are missing"):
        grid(planes)


@settings(deadline=None, max_examples=200)
@given(
    texts=st.lists(
        st.one_of(
            st.none(), st.text(max_size=80), st.floats(), st.integers(), st.lists(st.one_of(st.text(), st.floats()))
        ),
        min_size=2,
        max_size=8,
    )
)
def test_any_value_is_a_mark_that_can_be_ranked(texts: list[Any]) -> None:
    for kind in MARKS:
        marks = [kind.read(lambda _, given=given: given) for given in texts]  # type: ignore[misc]
        assert len(sorted(marks, key=kind.rank)) == len(texts)
        assert all(len(str(mark)) <= 8 * 33 for mark in marks)


# --- enhanced objects


def test_an_enhanced_object_with_two_stacks_is_read_by_its_larger_one(tmp_path: Path) -> None:
    dataset = enhanced_dataset(IDENTITY, all_per_frame=True)
    for group in list(dataset.PerFrameFunctionalGroupsSequence)[:2]:
        group.PlaneOrientationSequence[0] = pydicom.Dataset()
        group.PlaneOrientationSequence[0].ImageOrientationPatient = PHANTOMS["coronal"].cosines
    first = dataset.PerFrameFunctionalGroupsSequence[0].PlaneOrientationSequence
    assert first is not dataset.PerFrameFunctionalGroupsSequence[5].PlaneOrientationSequence
    volume = read_volume([saved(dataset, tmp_path / "e.dcm")])
    assert volume.frames == (3, 4, 5, 6, 7, 8)
    assert volume.notes == ("Left out: 2 images with different orientations (a localizer in the series?).",)


def test_each_frame_has_its_own_rescale(tmp_path: Path) -> None:
    volume = read_volume([enhanced(tmp_path / "e.dcm", IDENTITY, (5, 0, 7, 3, 1, 6, 2, 4))])
    assert set(np.unique(volume.intensity)) == {-1000.0, 1000.0}
    assert np.argwhere(volume.intensity > 0).tolist() == [list(IDENTITY.marked)]


def test_a_real_enhanced_ct_is_read() -> None:
    volume = read_volume([Path(str(get_testdata_file("eCT_Supplemental.dcm")))])
    assert volume.intensity.shape == (2, 512, 512)
    assert volume.frames == (2, 1)
    assert volume.spacing_mm == pytest.approx((10.0, 0.388672, 0.388672))
    assert (volume.intensity.min(), volume.intensity.max()) == (-1024, 172)


HOSTILE: list[tuple[str, Any, str]] = [
    ("frames", lambda d: setattr(d, "NumberOfFrames", 2_000_000_000), "says 2000000000 frames and describes 8"),
    ("fewer", lambda d: d.PerFrameFunctionalGroupsSequence.pop(), "says 8 frames and describes 7"),
    ("none", lambda d: setattr(d, "PerFrameFunctionalGroupsSequence", []), "does not say where its frames lie"),
    ("rows", lambda d: setattr(d, "Rows", 65_535), "is larger than the node reads"),
    ("nan", lambda d: nan_spacing(d), "does not say where it lies in the patient"),
    ("cut", lambda d: setattr(d, "PixelData", d.PixelData[:1000]), "the pixels cannot be decoded"),
    ("no pixels", lambda d: d.__delattr__("PixelData"), "the object holds no pixel data"),
    ("colour", lambda d: setattr(d, "PhotometricInterpretation", "RGB"), "the node reads grey"),
]


def nan_spacing(dataset: pydicom.Dataset) -> None:
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = ["nan", "nan"]


@pytest.mark.parametrize(("change", "sentence"), [h[1:] for h in HOSTILE], ids=[h[0] for h in HOSTILE])
def test_a_hostile_enhanced_header_is_refused_with_a_sentence(tmp_path: Path, change: Any, sentence: str) -> None:
    with pydicom.config.disable_value_validation():
        dataset = enhanced_dataset(IDENTITY)
        dataset.Columns = 65_535 if sentence.startswith("is larger") else dataset.Columns
        change(dataset)
        path = saved(dataset, tmp_path / "e.dcm")
        with pytest.raises(Permanent, match=sentence):
            read_volume([path])


def test_sequences_nested_without_end_are_refused(tmp_path: Path) -> None:
    inner = pydicom.Dataset()
    inner.PatientComments = "x"
    for _ in range(400):
        outer = pydicom.Dataset()
        outer.PerFrameFunctionalGroupsSequence = [inner]
        inner = outer
    dataset = enhanced_dataset(IDENTITY)
    path = saved(dataset, tmp_path / "e.dcm")
    raw = path.read_bytes()
    tag = b"\x00\x52\x30\x92SQ"
    assert raw.count(tag) == 1
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    sequence = tag + b"\0\0\xff\xff\xff\xff"
    start = raw.index(tag)
    path.write_bytes(raw[:start] + (sequence + item) * 3000)
    with pytest.raises(Permanent):
        read_volume([path])


def test_a_multi_frame_without_places_is_refused() -> None:
    path = Path(str(get_testdata_file("rtdose.dcm")))
    with pytest.raises(Permanent, match="does not say where its frames lie"):
        planes_of(path, pydicom.dcmread(path))
