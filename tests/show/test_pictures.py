"""Segmentations over their images, captures and documents: what is drawn lies where the object says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.data import get_testdata_files
from pydicom.dataset import Dataset

from pacsnode.encode.build import encode
from pacsnode.encode.drawing import BANNER_HEIGHT
from pacsnode.encode.overlay import SINGLE
from pacsnode.errors import Permanent
from pacsnode.findings import Findings
from pacsnode.show.objects import PDF, show
from pacsnode.show.segments import read_segmentation
from tests.encode.cases import CHEST, CR, ECG, chest_findings, chest_group, ecg_findings, request
from tests.encode.test_stacks import volume_group
from tests.infer.bundles import image, saved
from tests.infer.phantoms import IDENTITY, classic, enhanced

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "dicom_test" / "highdicom"


def by_uid(files: list[Path]) -> dict[str, Path]:
    return {str(pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID): f for f in files}


def made(files: list[Path], folder: Path, *planes: int) -> Path:
    """A SEG of a square in some slices."""
    group = volume_group(files, *planes)
    (result,) = encode(Findings(CHEST, (group,)), request(folder, *files, results=("seg",)))
    return result.path


def test_the_planes_of_our_segmentation_are_drawn_on_their_images(tmp_path: Path) -> None:
    files = classic(tmp_path / "in", IDENTITY)
    drawn = read_segmentation(made(files, tmp_path / "out", 2, 3, 5), by_uid(files))
    group = volume_group(files, 2, 3, 5)
    assert group.label_map is not None and drawn.group.label_map is not None
    assert drawn.group.source == tuple(group.source[n] for n in (5, 3, 2))  # the largest first
    assert np.array_equal(drawn.group.label_map, group.label_map[[5, 3, 2]])
    assert drawn.group.segments[0].label == "Lung 폐"
    assert np.abs(np.subtract(drawn.group.segments[0].color_rgb, (90, 220, 120))).max() <= 2
    assert (drawn.left_out, drawn.missing) == (0, 0)
    assert divmod(int(drawn.views[1].picture.argmax()), 40) == (17, 22)  # the voxel of slice 3


def test_frames_of_an_enhanced_object_are_found(tmp_path: Path) -> None:
    path = enhanced(tmp_path / "in" / "one.dcm", IDENTITY, (5, 0, 7, 3, 1, 6, 2, 4))
    drawn = read_segmentation(made([path], tmp_path / "out", 2, 3), by_uid([path]))
    assert [view.caption for view in drawn.views] == ["Frame 4", "Frame 7"]
    assert divmod(int(drawn.views[0].picture.argmax()), 40) == (17, 22)


def test_a_segmentation_without_derivation_is_laid_by_its_positions(tmp_path: Path) -> None:
    files = classic(tmp_path / "in", IDENTITY)
    path = made(files, tmp_path / "out", 3)
    dataset = pydicom.dcmread(path)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence
    saved(dataset, path)
    drawn = read_segmentation(path, by_uid(files))
    assert drawn.group.source == (volume_group(files, 3).source[3],)


def test_many_planes_are_left_out_with_a_word(tmp_path: Path) -> None:
    phantom = IDENTITY.__class__(shape=(20, 32, 40))
    files = classic(tmp_path / "in", phantom)
    path = made(files, tmp_path / "out", *range(16))
    (tmp_path / "page").mkdir()
    shown = show(path, by_uid(files), tmp_path / "page")
    assert len(shown.pictures) == 12
    assert "  Not drawn: 4 more images have marks" in shown.lines
    some = dict(list(by_uid(files).items())[:4])
    assert "images that it refers to are not here" in "\n".join(show(path, some, tmp_path / "page").lines)


def test_without_its_images_a_segmentation_is_told_and_not_drawn(tmp_path: Path) -> None:
    files = classic(tmp_path / "in", IDENTITY)
    shown = show(made(files, tmp_path, 3), {}, tmp_path)
    assert shown.pictures == []
    assert "  Segment 1: Lung 폐 (Lung), automatic" in shown.lines
    assert any(line.startswith("  Not drawn: none of the images") for line in shown.lines)


def test_a_segmentation_of_another_size_is_not_bent_to_fit(tmp_path: Path) -> None:
    files = classic(tmp_path / "in", IDENTITY)
    path = made(files, tmp_path / "out", 3)
    small = image(np.zeros((16, 16), np.uint8))
    small.SOPInstanceUID = small.file_meta.MediaStorageSOPInstanceUID = volume_group(files, 3).source[3]
    other = saved(small, tmp_path / "small.dcm")
    with pytest.raises(Permanent, match="size of its images"):
        read_segmentation(path, {str(small.SOPInstanceUID): other})


def test_a_capture_is_its_pixels(tmp_path: Path) -> None:
    for source, findings in ((CR, chest_findings()), (ECG, ecg_findings())):
        (result,) = encode(findings, request(tmp_path, source, results=("sc",)))
        shown = show(result.path, {}, tmp_path)
        assert shown.pictures == ["picture-1.png"]
        pixels = np.asarray(Image.open(tmp_path / "picture-1.png"))
        assert np.array_equal(pixels, pydicom.dcmread(result.path).pixel_array)
        assert 'src="data:image/png;base64,' in (tmp_path / "page.html").read_text()


def test_every_frame_of_a_capture_is_a_picture(tmp_path: Path) -> None:
    files = classic(tmp_path / "in", IDENTITY)
    group = volume_group(files, 2, 3, 5)
    (result,) = encode(Findings(CHEST, (group,)), request(tmp_path / "out", *files, results=("sc",)))
    shown = show(result.path, {}, tmp_path)
    pixels = [np.asarray(Image.open(tmp_path / name)) for name in shown.pictures]
    assert np.array_equal(np.stack(pixels), pydicom.dcmread(result.path).pixel_array)


def document(path: Path, content: bytes, **attributes: object) -> Path:
    dataset = image(np.zeros((2, 2), np.uint8), sop_class_uid=PDF, Modality="DOC")
    for keyword in ("Rows", "Columns", "PixelData", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored"):
        delattr(dataset, keyword)
    dataset.MIMETypeOfEncapsulatedDocument, dataset.EncapsulatedDocument = "application/pdf", content
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return saved(dataset, path)


def test_the_pdf_comes_out_as_it_went_in(tmp_path: Path) -> None:
    content = b"%PDF-1.7 odd length\n%%EOF"
    path = document(tmp_path / "a.dcm", content + b"\0", EncapsulatedDocumentLength=len(content))
    shown = show(path, {}, tmp_path)
    assert shown.document == "document.pdf" and (tmp_path / "document.pdf").read_bytes() == content


@pytest.mark.parametrize("content", [b"<html><script>", b"MZ\x90\0", b""])
def test_what_is_no_pdf_is_not_written(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="holds no PDF"):
        show(document(tmp_path / "a.dcm", content), {}, tmp_path)
    assert not (tmp_path / "document.pdf").exists()


def test_a_presentation_state_is_told(tmp_path: Path) -> None:
    state = image(np.zeros((2, 2), np.uint8), sop_class_uid="1.2.840.10008.5.1.4.1.1.11.1", Modality="PR")
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(state, keyword)
    words, layer = Dataset(), Dataset()
    words.UnformattedTextValue = "Nodule\r\n93 %"
    layer.GraphicLayer, layer.TextObjectSequence, layer.GraphicObjectSequence = "AI", [words], [Dataset()]
    state.ContentLabel, state.ContentDescription, state.GraphicAnnotationSequence = "AI", "Marks", [layer]
    lines = show(saved(state, tmp_path / "pr.dcm"), {}, tmp_path).lines
    assert "  Layer AI: 1 shapes" in lines and "    Nodule" in lines and "      93 %" in lines


REAL = ["seg_image_ct_binary", "seg_image_ct_binary_overlap", "seg_image_ct_true_fractional", "seg_image_cr_binary"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data of ../shared, which is not here")
@pytest.mark.parametrize("name", REAL)
def test_a_real_segmentation_lies_on_its_images_as_highdicom_reads_it(name: str) -> None:
    import highdicom as hd

    files = [Path(f) for f in get_testdata_files("dicomdirtests/77654033/*/*") if Path(f).is_file()]
    path = SHARED / f"{name}.dcm"
    drawn = read_segmentation(path, by_uid(files))
    segmentation = hd.seg.segread(path)
    assert drawn.group.label_map is not None
    expected: NDArray[np.floating] = segmentation.get_pixels_by_source_instance(list(drawn.group.source))
    least = 0.5 if "true" in name else 1
    assert np.array_equal(drawn.group.label_map > 0, (expected >= least).any(axis=-1))


def test_the_picture_of_a_segmentation_has_legend_and_banner(tmp_path: Path) -> None:
    (result,) = encode(Findings(CHEST, (chest_group(),)), request(tmp_path, CR, results=("seg",)))
    shown = show(result.path, by_uid([CR]), tmp_path)
    page = np.asarray(Image.open(tmp_path / shown.pictures[0]))
    width = page.shape[1] - SINGLE.panel_width
    for color in ((70, 160, 255), (255, 90, 80)):
        marks = np.abs(page[:-BANNER_HEIGHT, :width].astype(int) - color).max(axis=2) <= 2
        assert marks.any()
    assert tuple(page[-2, 2]) == (255, 191, 0)
