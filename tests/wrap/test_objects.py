"""Every kind of object from real pictures: valid, with the picture's pixels, and the same on every call."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pydicom.config
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames
from pydicom.sr.codedict import Collection

from pacsnode import __version__
from pacsnode.encode.conformance import check_modules
from pacsnode.encode.normalise import read_header
from pacsnode.errors import ConfigError, Permanent
from pacsnode.infer.pixels import read_image
from pacsnode.wrap import anatomy
from pacsnode.wrap.examination import examination_like, examination_of
from pacsnode.wrap.making import files_of, wrap
from pacsnode.wrap.wanted import Wanted
from tests.wrap.sources import (
    COLON,
    DX,
    FUNDUS,
    HONG,
    MG,
    OP,
    PX,
    SHARED,
    STOMACH,
    errors_of_dciodvfy,
    examination,
    needs_shared,
    only,
    wrapped,
)

REAL = {
    "chest_seg/wingspan/img/WS001.jpg": (DX, "1.1", "DX", "jpeg"),
    "chest_labels/kermany224/test/NORMAL/IM-0001-0001.jpeg": (DX, "1.1", "DX", "plain"),
    "chest_xray/00000001_000.png": (DX, "1.1", "DX", "plain"),
    "mammography/monai_density_samples/D/sample_D1.jpg": (MG, "1.2", "MG", "plain"),
    "mammography/mias/images/deformed_alpha_1300_sigmoid_10_11.png": (replace(MG, to_grey=True), "1.2", "MG", "plain"),
    "dental/images/cate6-00039_jpg.rf.94cba00684b88294b4926d2ead2f577e.jpg": (PX, "1.1", "PX", "plain"),
    "fundus/idrid/grading/test/IDRiD_001.jpg": (OP, "77.1.5.1", "OP", "jpeg"),
    "fundus/chasedb1/Image_01L.jpg": (FUNDUS, "77.1.5.1", "OP", "jpeg"),
    "gastroscopy/edd2020/images/10009.png": (STOMACH, "77.1.1", "ES", "plain"),
    "colonoscopy/kvasir_seg/images/cju0qkwl35piu0993l0dewei2.jpg": (COLON, "77.1.1", "ES", "jpeg"),
}  # fmt: skip
STORAGE = "1.2.840.10008.5.1.4.1.1."


def stored_pixels(dataset: pydicom.Dataset) -> NDArray[np.generic]:
    """The pixels as Pillow, and not our code, decodes them, or as they lie there."""
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return np.asarray(dataset.pixel_array)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    return np.asarray(Image.open(BytesIO(frame)))


@needs_shared
@pytest.mark.parametrize("name", REAL)
def test_a_real_picture_becomes_a_valid_object_with_its_pixels(name: str, tmp_path: Path) -> None:
    wanted, sop_class, modality, stored = REAL[name]
    outcome = wrapped(SHARED / name, wanted, tmp_path)
    dataset = only(outcome)
    assert (dataset.SOPClassUID, dataset.Modality) == (STORAGE + sop_class, modality)
    assert dataset.file_meta.TransferSyntaxUID.is_encapsulated == (stored == "jpeg")
    assert errors_of_dciodvfy(outcome.made[0].path) == []
    check_modules(dataset)
    image: Image.Image = Image.open(SHARED / name)
    if wanted.kind in ("dx", "mg", "px") and image.mode != "L":
        image = image.convert("L") if wanted.to_grey else image.getchannel("R")
    np.testing.assert_array_equal(stored_pixels(dataset), np.asarray(image))
    is_lossy = name.endswith(("jpg", "jpeg"))
    assert dataset.LossyImageCompression == ("01" if is_lossy else "00")
    assert dataset.get("LossyImageCompressionMethod") == ("ISO_10918_1" if is_lossy else None)
    assert dataset.get("LossyImageCompressionRatio", 1) > 0
    said = dataset.ContributingEquipmentSequence[0].ContributionDescription
    assert said == f"wrapped by pacsnode {__version__} from {'JPEG' if is_lossy else 'PNG'}, not acquired as DICOM"
    assert dataset.DerivationDescription.startswith(said)


@needs_shared
def test_a_jpeg_stays_byte_for_byte_what_it_was(tmp_path: Path) -> None:
    source = SHARED / "colonoscopy/kvasir_seg/images/cju0qkwl35piu0993l0dewei2.jpg"
    (frame,) = generate_frames(only(wrapped(source, COLON, tmp_path)).PixelData, number_of_frames=1)
    content = source.read_bytes()
    scan = content.index(b"\xff\xda")
    assert frame.rstrip(b"\0") in (frame, frame[:-1])
    assert content[scan:].rstrip(b"\0") == frame[frame.index(b"\xff\xda") :].rstrip(b"\0")


@needs_shared
def test_our_own_models_can_read_what_was_wrapped(tmp_path: Path) -> None:
    outcome = wrapped(SHARED / "chest_seg/wingspan/img/WS001.jpg", DX, tmp_path)
    image = read_image(outcome.made[0].path)
    assert image.intensity.shape == (256, 256)
    assert image.spacing_mm is None  # at the detector is not in the patient


def grey(folder: Path, name: str = "a.png", bits: int = 8) -> Path:
    values = np.arange(24 * 31, dtype=np.uint16).reshape(24, 31) * (1 if bits == 8 else 77)
    Image.fromarray(values.astype(np.uint8 if bits == 8 else np.uint16)).save(folder / name)
    return folder / name


def test_wrapping_twice_gives_equal_bytes(tmp_path: Path) -> None:
    source = grey(tmp_path)
    first, second = (wrapped(source, DX, tmp_path / out) for out in ("one", "two"))
    assert first.made[0].path.name == second.made[0].path.name == f"{first.made[0].sop_instance_uid}.dcm"
    assert first.made[0].path.read_bytes() == second.made[0].path.read_bytes()
    assert first.made[0].sop_instance_uid.startswith("2.25.")


def test_whatever_is_said_otherwise_gives_another_uid_in_the_same_study(tmp_path: Path) -> None:
    source = grey(tmp_path)
    objects = [
        only(wrapped(source, wanted, tmp_path / str(n)))
        for n, wanted in enumerate((DX, replace(DX, view="AP"), replace(DX, burned_in="no"), PX))
    ]
    assert len({one.SOPInstanceUID for one in objects}) == 4
    assert len({one.StudyInstanceUID for one in objects}) == 1
    assert [one.SeriesInstanceUID == objects[0].SeriesInstanceUID for one in objects] == [True, True, True, False]
    another = only(wrapped(source, DX, tmp_path / "other", patient_id="P-8"))
    assert another.StudyInstanceUID != objects[0].StudyInstanceUID


def test_patient_and_study_are_written_in_utf_8_as_they_were_typed(tmp_path: Path) -> None:
    dataset = only(wrapped(grey(tmp_path), DX, tmp_path))
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert str(dataset.PatientName) == HONG.patient_name
    assert dataset.PatientName.phonetic == "홍^길동"
    assert (dataset.PatientID, dataset.IssuerOfPatientID, dataset.PatientSex) == ("P-7", "BUKGU-PHC", "M")
    assert (dataset.StudyDescription, dataset.AccessionNumber, dataset.StudyID) == ("흉부 정면", "A1", "")
    assert dataset.ReferringPhysicianName == ""


def test_patient_and_study_can_be_taken_from_a_dicom_file(tmp_path: Path) -> None:
    source = Path(str(get_testdata_file("RG1_UNCR.dcm", download=False)))
    outcome = wrap([grey(tmp_path)], examination_like(source), DX, tmp_path / "out")
    dataset, header = only(outcome), read_header(source)
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "AccessionNumber", "StudyID"):
        assert dataset.get(keyword, "") == header.get(keyword, "")
    assert dataset.SeriesInstanceUID != header.SeriesInstanceUID
    assert errors_of_dciodvfy(outcome.made[0].path) == []


@needs_shared
def test_a_korean_header_in_another_encoding_is_taken_over_in_unicode(tmp_path: Path) -> None:
    like = examination_like(SHARED / "charsets" / "cs_ir149_std.dcm")
    dataset = only(wrap([grey(tmp_path)], like, DX, tmp_path / "out"))
    assert (str(dataset.PatientName), dataset.SpecificCharacterSet) == ("Hong^Gildong=洪^吉洞=홍^길동", "ISO_IR 192")


def test_instance_numbers_follow_the_files_and_a_bad_one_keeps_its_place(tmp_path: Path) -> None:
    paths = [grey(tmp_path, name) for name in ("c.png", "a.png", "b.png")]
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("not asked for")
    assert files_of([tmp_path], "dx") == sorted(paths)
    outcome = wrap(files_of([tmp_path], "dx"), examination(), DX, tmp_path / "out", first_number=5)
    numbers = {made.source.name: pydicom.dcmread(made.path).InstanceNumber for made in outcome.made}
    assert numbers == {"a.png": 5, "c.png": 7}
    assert outcome.failed == ((tmp_path / "b.png", "it is no PNG, JPEG or TIFF picture"),)


def test_burned_in_annotation_is_what_was_said_and_yes_where_nobody_did(tmp_path: Path) -> None:
    source = grey(tmp_path)
    assert only(wrapped(source, DX, tmp_path / "1")).BurnedInAnnotation == "YES"
    assert only(wrapped(source, replace(DX, burned_in="no"), tmp_path / "2")).BurnedInAnnotation == "NO"
    assert only(wrapped(source, OP, tmp_path / "3")).BurnedInAnnotation == "YES"
    assert "BurnedInAnnotation" not in only(wrapped(source, COLON, tmp_path / "4"))  # type 3: nobody knows


def test_what_is_not_known_is_empty_and_not_invented(tmp_path: Path) -> None:
    outcome = wrapped(grey(tmp_path), OP, tmp_path, sex="", birth_date="", accession="", patient_name="")
    dataset = only(outcome)
    assert errors_of_dciodvfy(outcome.made[0].path) == []
    for keyword in ("PatientSex", "PatientBirthDate", "AccessionNumber", "PatientName", "Manufacturer", "PupilDilated"):
        assert keyword in dataset and not dataset.get(keyword)
    device = dataset.AcquisitionDeviceTypeCodeSequence[0]
    assert (device.CodingSchemeDesignator, device.CodeMeaning) == (
        "99PACSNODE",
        "Ophthalmic device, which one is not stated",
    )
    assert dataset.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99PACSNODE"


@pytest.mark.parametrize(
    ("wanted", "option"),
    [
        (replace(DX, pixel_spacing_mm=None), "--pixel-spacing-mm"),
        (replace(DX, pixel_spacing_mm=(0.0, 0.1)), "--pixel-spacing-mm"),
        (replace(DX, pixel_spacing_mm=(float("nan"), 0.1)), "--pixel-spacing-mm"),
        (replace(DX, orientation=()), "--orientation"),
        (replace(DX, orientation=("L", "R")), "--orientation"),
        (replace(DX, orientation=("LR", "F")), "--orientation"),
        (replace(DX, body_part="hand"), "--laterality"),
        (replace(DX, body_part="심장"), "--body-part"),
        (replace(DX, burned_in="maybe"), "--burned-in"),
        (replace(DX, seconds=3), "--seconds"),
        (replace(DX, device="fundus-camera"), "--device"),
        (replace(MG, laterality=""), "--laterality"),
        (replace(MG, laterality="u"), "--laterality"),
        (replace(MG, view="PA"), "--view"),
        (replace(OP, laterality=""), "--laterality"),
        (replace(OP, device="telephone"), "--device"),
        (replace(FUNDUS, pixel_spacing_mm=None), "--pixel-spacing-mm"),
        (replace(COLON, view="PA"), "--view"),
        (Wanted("ct"), "--as"),
        (Wanted("ecg", seconds=-1), "--seconds"),
        (Wanted("ecg", from_s=float("inf")), "--from"),
    ],
)
def test_what_only_a_person_knows_is_asked_for_by_its_option(wanted: Wanted, option: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        wrapped(grey(tmp_path), wanted, tmp_path / "out")
    assert error.value.where == option
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "option"),
    [
        ({"patient_id": ""}, "--patient-id"),
        ({"study_date": "", "accession": ""}, "--study-date"),
        ({"study_date": "20261301"}, "--study-date"),
        ({"study_date": "1 Nov"}, "--study-date"),
        ({"study_time": "256000"}, "--study-time"),
        ({"patient_name": "a=b=c=d"}, "--patient-name"),
        ({"patient_name": "a\\b"}, "--patient-name"),
        ({"patient_id": "1\n2"}, "--patient-id"),
        ({"sex": "X"}, "--sex"),
        ({"accession": "A" * 17}, "--accession"),
        ({"study_uid": "1.2.x"}, "--study-uid"),
    ],
)
def test_a_wrong_value_of_patient_or_study_is_named_by_its_option(changed: dict[str, str], option: str) -> None:
    with pytest.raises(ConfigError) as error:
        examination_of(replace(HONG, **changed))
    assert error.value.where == option
    assert not any(value and value in str(error.value) for value in changed.values())


def test_an_eye_needs_a_time_of_its_study(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--study-date, --study-time"):
        wrapped(grey(tmp_path), OP, tmp_path, study_time="")


def test_a_dicom_file_whose_dates_are_none_lends_them_as_they_came(tmp_path: Path) -> None:
    path = tmp_path / "like.dcm"
    with pydicom.config.disable_value_validation():
        source = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
        source.PatientBirthDate, source.StudyTime = "1940.03.05", "10:15:30"
        source.save_as(path)
    with pydicom.config.disable_value_validation():
        dataset = only(wrap([grey(tmp_path)], examination_like(path), DX, tmp_path / "out"))
        assert (dataset.PatientBirthDate, dataset.StudyTime) == ("1940.03.05", "10:15:30")
    with pytest.raises(ConfigError, match="--study-date, --study-time"):
        wrap([grey(tmp_path)], examination_like(path), OP, tmp_path / "out")


def test_a_file_that_is_no_dicom_gives_no_patient(tmp_path: Path) -> None:
    with pytest.raises(Permanent):
        examination_like(grey(tmp_path))


def test_our_codes_are_those_of_the_standard() -> None:
    known = {
        (code.value, code.scheme_designator): code.meaning
        for cid in ("CID4031", "CID4010", "CID4014", "CID4202", "CID4209")
        for code in (getattr(Collection(cid), name) for name in Collection(cid).dir())
    }
    tables = (anatomy.RADIOGRAPHIC_VIEWS, anatomy.MAMMOGRAPHIC_VIEWS, anatomy.OPHTHALMIC_DEVICES)
    concepts = [part.region for part in anatomy.BODY_PARTS.values()]
    concepts += [concept for table in tables for concept in table.values() if concept.scheme == "SCT"]
    for concept in concepts:
        assert known[concept.value, concept.scheme].lower() == concept.meaning.lower()
