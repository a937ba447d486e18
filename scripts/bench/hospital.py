"""Made-up studies as the index of a hospital's node has them: modalities, descriptions in English and Korean, counts.

In: how many, an empty home's databases. Out: rows in a real index.db, the same on every machine; no file, no patient.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pacsnode.archive.files import Arrival
from pacsnode.archive.rows import Common, NewRow, insert
from pacsnode.database import connect, transaction
from pacsnode.dicom.attributes import ATTRIBUTES
from pacsnode.handover import Attributes

BEGAN_UTC_US: Final = 1_790_000_000_000_000
BYTES: Final = 520_000
MINUTE_US: Final = 60_000_000
STUDIES_A_TRANSACTION: Final = 200
UID_ROOTS: Final = ("1.2.410.200067.100.1", "1.3.12.2.1107.5.1.4.65266.30000026")
IN_ORDER: Final = tuple(row.keyword for row in sorted(ATTRIBUTES, key=lambda row: (row.sequence or row.tag, row.tag)))
"""Attributes as they follow each other in a data set."""
SYNTAX: Final = "1.2.840.10008.1.2.4.70"


@dataclass(frozen=True)
class Kind:
    """One kind of examination. `series`: descriptions with the fewest and most images of each."""

    share: int
    modality: str
    sop_class_uid: str
    peers: tuple[str, ...]
    parts: tuple[str, ...]
    studies: tuple[str, ...]
    series: tuple[tuple[str, int, int], ...]
    thickness_mm: tuple[str, ...] = ()


CR, DX, MG = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1.2"
CT, MR, US = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.6.1"
ECG, XA, SC = "1.2.840.10008.5.1.4.1.1.9.1.1", "1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.7"

CHEST = ("CHEST PA", "Chest P-A(Erect)", "흉부 정면", "흉부(정면/측면)", "Chest PA & Lat", "CXR", "CHEST AP PORTABLE")
BONES = ("L-SPINE AP/LAT", "KNEE BOTH", "요추 정측면", "슬관절", "SHOULDER", "HAND PA", "골반", "ANKLE LAT", "C-SPINE")
BODIES = ("ABDOMEN CT", "Chest CT (Enhance)", "복부 CT", "흉부 CT 저선량", "Abd+Pelvis Dynamic", "LDCT", "CTPA")
KINDS: Final = (
    Kind(22, "CR", CR, ("cr-1", "cr-2"), ("CHEST", "", "THORAX"), CHEST, (("PA", 1, 1), ("LAT", 0, 1))),
    Kind(16, "DX", DX, ("dr-1", "dr-2", "er-dr"), ("CHEST",), CHEST, (("Chest", 1, 2),)),
    Kind(14, "DX", DX, ("dr-1", "dr-2", "er-dr"), ("LSPINE", "KNEE", "SHOULDER", "HAND"), BONES, (("AP", 1, 3),)),
    Kind(8, "CT", CT, ("ct-1", "ct-2"), ("CHEST", "ABDOMEN"), BODIES,
         (("Scout", 2, 2), ("Axial 5.0 B30f", 50, 120), ("Axial 1.0 B70f", 0, 180)), ("1", "3", "5.0")),
    Kind(6, "CT", CT, ("ct-1", "er-ct"), ("HEAD", "BRAIN"), ("BRAIN CT NON CONTRAST", "뇌 CT", "Facial bone CT"),
         (("Topogram", 1, 1), ("Head 5mm", 28, 40), ("Bone thin", 0, 160)), ("0.625", "5")),
    Kind(5, "MR", MR, ("mr-1",), ("BRAIN",), ("Brain MRI+MRA", "뇌 MRI", "BRAIN STROKE"),
         (("T1 SAG", 20, 25), ("T2 AXIAL", 24, 30), ("FLAIR", 24, 30), ("DWI b1000", 50, 60), ("TOF", 0, 120)), ("3",)),
    Kind(3, "MR", MR, ("mr-1", "mr-2"), ("LSPINE", "KNEE"), ("L-spine MRI", "무릎 MRI"),
         (("T2 SAG", 15, 20), ("T1 SAG", 15, 20), ("T2 AXIAL", 20, 40)), ("4",)),
    Kind(5, "MG", MG, ("mg-1",), ("BREAST",), ("Mammography screening", "유방촬영"), (("MLO", 2, 2), ("CC", 2, 2))),
    Kind(10, "US", US, ("us-1", "us-2", "us-3"), ("", "THYROID", "ABDOMEN"), ("US Abdomen", "복부 초음파", "Thyroid"),
         (("", 12, 40),)),
    Kind(5, "ECG", ECG, ("ecg-cart",), ("",), ("12 Lead ECG", "심전도"), (("", 1, 1),)),
    Kind(2, "XA", XA, ("angio",), ("HEART",), ("CAG", "관상동맥조영"), (("Left coronary", 5, 20),)),
    Kind(4, "OT", SC, ("scanner",), ("",), ("Outside film", "외부 영상", "REPORT"), (("Scanned document", 1, 10),)),
)  # fmt: skip
"""Shares in percent. On average 44 images a study."""


def fill(index_db: Path, studies: int, seed: int = 7) -> int:
    """Put so many studies into the index; how many images they have."""
    images, common = 0, Common()
    with closing(connect(index_db, "NORMAL")) as connection:
        connection.execute("PRAGMA cache_size=-262144")
        for first in range(0, studies, STUDIES_A_TRANSACTION):
            rows = [
                row
                for number in range(first, min(first + STUDIES_A_TRANSACTION, studies))
                for row in study_rows(number, seed)
            ]
            with transaction(connection):
                insert(connection, rows, index_db.parent, common)
            images += len(rows)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return images


def study_rows(number: int, seed: int) -> Iterator[NewRow]:
    """The images of one study as receive would enter them."""
    chance = random.Random(f"{seed} {number}")
    kind = chance.choices(KINDS, [kind.share for kind in KINDS])[0]
    yield from rows_of(kind, number, chance)


def rows_of(kind: Kind, number: int, chance: random.Random) -> Iterator[NewRow]:
    """The images of a study of this kind."""
    peer = chance.choice(kind.peers)
    came_us = BEGAN_UTC_US + number * MINUTE_US * 2
    study_uid = f"{UID_ROOTS[kind.modality in ('CT', 'MR')]}.{kind.peers.index(peer) + 1}.{came_us // 1000}"
    common = _of_study(kind, study_uid, number, chance)
    series = [(text, chance.randint(low, high)) for text, low, high in kind.series]
    for place, (text, count) in enumerate(series, start=1):
        shared = {**common, **_of_series(kind, study_uid, place, text, chance)}
        for image in range(1, count + 1):
            said = shared | _of_image(study_uid, place, image, kind)
            attributes = {keyword: said[keyword] for keyword in IN_ORDER if keyword in said}
            arrival = Arrival(peer, "CLINIC", peer.upper(), "PACSNODE", "192.0.2.7", came_us + image * 40_000)
            uid = attributes["SOPInstanceUID"][0]
            path = f"1/00/{number}-{place}-{image}.dcm"
            sha256 = hashlib.sha256(uid.encode()).hexdigest()
            yield NewRow(
                kind.sop_class_uid,
                uid,
                SYNTAX,
                path,
                sha256,
                520_000,
                "received",
                arrival,
                came_us,
                "boot",
                attributes,
                (),
            )


def _of_study(kind: Kind, study_uid: str, number: int, chance: random.Random) -> dict[str, tuple[str, ...]]:
    day = f"202609{1 + number // 600 % 28:02}"
    description = chance.choice(kind.studies)
    given = {
        "SOPClassUID": kind.sop_class_uid,
        "StudyInstanceUID": study_uid,
        "StudyDate": day,
        "StudyTime": f"{8 + number % 12:02}{number % 60:02}00",
        "AccessionNumber": f"A{number:07}",
        "Modality": kind.modality,
        "Manufacturer": chance.choice(("SIEMENS", "GE MEDICAL SYSTEMS", "DRTECH", "Philips", "VIEWORKS")),
        "InstitutionName": "북구보건소",
        "StationName": chance.choice(("STATION1", "STATION2")),
        "StudyDescription": description if chance.random() < 0.9 else "",
        "ManufacturerModelName": chance.choice(("EVS 4343", "SOMATOM go.Up", "Ingenia", "Revolution")),
        "ReferringPhysicianName": "",
        "PatientName": "Hong^Gildong=洪^吉洞=홍^길동",
        "PatientID": f"{number % 4000:08}",
        "PatientBirthDate": f"{1930 + number % 85}0{1 + number % 9}15",
        "PatientSex": "FM"[number % 2],
        "PatientAge": f"{96 - number % 85:03}Y" if chance.random() < 0.7 else "",
        "BodyPartExamined": chance.choice(kind.parts),
        "ProtocolName": description.upper() if chance.random() < 0.5 else "",
        "StudyID": str(number),
        "BurnedInAnnotation": chance.choice(("NO", "")),
    }
    return {keyword: (value,) for keyword, value in given.items() if value}


def _of_series(kind: Kind, study_uid: str, place: int, text: str, chance: random.Random) -> Attributes:
    given: dict[str, tuple[str, ...]] = {
        "SeriesInstanceUID": (f"{study_uid}.{place}",),
        "SeriesNumber": (str(place),),
        "SeriesDate": ("20260915",),
        "SeriesTime": (f"1{place % 10}0000",),
        "ImageType": ("ORIGINAL", "PRIMARY", "LOCALIZER" if text in ("Scout", "Topogram") else "AXIAL"),
        "Rows": ("512",),
        "Columns": ("512",),
        "BitsAllocated": ("16",),
        "BitsStored": ("12",),
        "PhotometricInterpretation": ("MONOCHROME2",),
        "HasPixelData": ("YES",),
        "PixelSpacing": ("0.7421875", "0.7421875"),
        "FrameOfReferenceUID": (f"{study_uid}.0",),
        "PatientPosition": ("HFS",),
        "SoftwareVersions": ("VA30A",),
    }
    if text:
        given["SeriesDescription"] = (text,)
    if kind.thickness_mm:
        given |= {"SliceThickness": (chance.choice(kind.thickness_mm),), "KVP": ("120",)}
        given["ImageOrientationPatient"] = ("1", "0", "0", "0", "1", "0")
    if kind.modality in ("CT", "MR") and chance.random() < 0.5:
        given["ContrastBolusAgent"] = ("Iopamidol",)
    if kind.modality in ("CR", "DX") and chance.random() < 0.7:
        given["ViewPosition"] = (chance.choice(("PA", "AP", "LL", "LATERAL")),)
    return given


def _of_image(study_uid: str, place: int, image: int, kind: Kind) -> dict[str, tuple[str, ...]]:
    second = f"{image // 60 % 60:02}{image % 60:02}"
    return {
        "SOPInstanceUID": (f"{study_uid}.{place}.{image}",),
        "InstanceNumber": (str(image),),
        "AcquisitionTime": (f"10{second}.{place:03}000",),
        "ContentTime": (f"11{second}.{place:03}000",),
        "ContentDate": ("20260915",),
    }
