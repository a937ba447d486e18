"""The report as a document: Encapsulated PDF (PS3.3 A.45.1), in Korean and English, for whoever reads on paper.

In: the findings, the headers of their sources. Out: an Encapsulated PDF without patient and study yet (see
`header.stamp`); the pages themselves name the patient, as the header of the source does. Never says more than the SR,
and on every page that nobody verified it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import highdicom as hd
from pydicom.dataset import Dataset

from pacsnode.dicom.codes import MEASUREMENT_REPORT, SOURCE_IMAGE, SOURCE_OF_MEASUREMENT
from pacsnode.encode import korean
from pacsnode.encode.fonts import shown
from pacsnode.encode.header import evidence
from pacsnode.encode.korean import label
from pacsnode.encode.paper import ALARM, GREY, INK, Cell, Furniture, Paper
from pacsnode.encode.patient import birth_date, moment, names
from pacsnode.encode.provenance import Origin, coded, described
from pacsnode.encode.secondary_capture import is_drawable, page
from pacsnode.encode.seg import present_segments
from pacsnode.findings import Evaluation, Group, Measurement, Presence, Region

SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.1.104.1"
MIME_TYPE: Final = "application/pdf"
MOST_PICTURES: Final = 8
_MOST_NAMED: Final = 1024
"""Instances in Source Instance Sequence: all of a volume of usual size."""
_UNITS: Final = {"1": "", "mm2": "mm²", "cm2": "cm²", "mm3": "mm³", "cm3": "cm³", "um": "μm", "ml": "mL"}


def report_pdf(origin: Origin) -> Dataset:
    """The document of the case."""
    content = pages(origin)
    dataset = hd.base.SOPClass(
        study_instance_uid=origin.request.case.study_instance_uid,
        sop_class_uid=SOP_CLASS,
        modality="DOC",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **_empty_patient(origin),
        **origin.constructor("pdf", 1),
    )
    dataset.ContributingEquipmentSequence = []
    dataset.ConversionType = "WSD"
    dataset.AcquisitionDateTime = None
    dataset.BurnedInAnnotation = "YES"  # the pages name the patient
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.DocumentTitle = f"AI report, unverified: {origin.algorithm.title}"[:256]
    dataset.ConceptNameCodeSequence = [coded(MEASUREMENT_REPORT)]
    dataset.SourceInstanceSequence = [_source(header) for header in list(origin.sources.values())[:_MOST_NAMED]]
    dataset.MIMETypeOfEncapsulatedDocument = MIME_TYPE
    dataset.EncapsulatedDocumentLength = len(content)
    dataset.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    if "RequestAttributesSequence" in origin.first:
        dataset.RequestAttributesSequence = origin.first.RequestAttributesSequence
    return dataset


def pages(origin: Origin) -> bytes:
    """The PDF itself."""
    header = origin.first
    title = label("AI analysis report")
    furniture = Furniture(
        title=f"{title}: {shown(origin.algorithm.title)}"[:256],
        head=shown(f"{names(header)}  ·  {header.get('PatientID', '')}  ·  {moment(header, 'Study')}"[:400]),
        warning=korean.WARNING,
        cut=korean.CUT,
        page=label("Page"),
    )
    paper = Paper(furniture)
    paper.text(Cell(title, INK, 18))
    paper.text(Cell(origin.algorithm.title, INK, 12))
    for sentence in korean.MADE_BY_MACHINE:
        paper.text(Cell(sentence, ALARM, 9), space_before=1)
    paper.heading(label("Patient"))
    paper.table(list(_pairs(_patient(header))), (3, 5, 3, 4))
    paper.heading(label("Study"))
    paper.table(list(_pairs(_study(origin))), (3, 5, 3, 4))
    groups = origin.findings.groups
    for number, group in enumerate(groups, start=1):
        _tell_group(paper, group, f" {number}/{len(groups)}" if len(groups) > 1 else "")
    for group in [group for group in groups if is_drawable(group)][:MOST_PICTURES]:
        paper.picture(page(group, origin), is_photographic=group.trace is None)
    paper.heading(label("Algorithm"))
    paper.table([(Cell(name, GREY, 8), Cell(text, INK, 8)) for name, text in _algorithm(origin)], (3, 8))
    return paper.pdf(origin.request.started)


def _tell_group(paper: Paper, group: Group, which: str) -> None:
    paper.heading(f"{label('Findings')}{which}")
    if not (group.evaluations or group.measurements or group.regions):
        paper.text(Cell(korean.NOTHING_SAID))
    if group.evaluations:
        head = tuple(Cell(label(word), GREY, 8) for word in ("Finding", "Result", "Probability", "Remark"))
        paper.table([head, *map(_evaluation, group.evaluations)], (4, 3, 2, 5))
    if group.regions:
        paper.text(Cell(label("Marked places"), GREY), space_before=8)
        paper.table([_region(region) for region in group.regions], (4, 3, 2, 5))
    if group.measurements:
        paper.text(Cell(label("Measurements"), GREY), space_before=8)
        head = tuple(Cell(label(word), GREY, 8) for word in ("Measurement", "Place", "Value", "Method"))
        paper.table([head, *map(_measurement, group.measurements)], (4, 3, 2, 5))
    if segments := present_segments(group):
        text = ", ".join(segment.label for segment in segments)
        paper.text(Cell(f"{label('Outlined')}: {text}"), space_before=8)
    if group.notes:
        paper.text(Cell(label("Limits and notes"), GREY), space_before=8)
        for note in group.notes:
            paper.text(Cell(f"- {note}"), indent=6, space_before=1)


def _patient(header: Dataset) -> Iterator[tuple[str, str]]:
    yield label("Name"), names(header)
    yield label("Patient ID"), str(header.get("PatientID", ""))
    yield label("Birth date"), birth_date(header)
    sex = str(header.get("PatientSex", ""))
    yield label("Sex"), korean.SEX.get(sex, sex)


def _study(origin: Origin) -> Iterator[tuple[str, str]]:
    header, algorithm = origin.first, origin.algorithm
    yield label("Study"), str(header.get("StudyDescription", ""))
    yield label("Study date"), moment(header, "Study")
    yield label("Accession number"), str(header.get("AccessionNumber", ""))
    inputs = len({uid for group in origin.findings.groups for uid in group.source})
    yield label("Modality"), f"{header.get('Modality', '')} ({label('Input')}: {inputs})"
    yield label("Service"), f"{algorithm.service} {algorithm.version}, {korean.named(algorithm.procedure)}"
    yield label("Analysed"), f"{origin.request.started:%Y-%m-%d %H:%M:%S}"


def _pairs(told: Iterator[tuple[str, str]]) -> Iterator[tuple[Cell, ...]]:
    """Two names with their values a row."""
    cells = [(Cell(name, GREY, 8), Cell(value or "-")) for name, value in told]
    cells += [(Cell(""), Cell(""))] * (len(cells) % 2)
    for left, right in zip(cells[::2], cells[1::2], strict=True):
        yield (*left, *right)


def _evaluation(evaluation: Evaluation) -> tuple[Cell, ...]:
    where = korean.place(evaluation.laterality, evaluation.site)
    name = f"{korean.named(evaluation.name)}{', ' if where else ''}{where}"
    return (*_said(name, evaluation.presence, evaluation.probability), Cell(evaluation.comment, GREY, 8))


def _region(region: Region) -> tuple[Cell, ...]:
    where = korean.place(region.laterality, region.site)
    name = f"{region.label}{', ' if where else ''}{where}"
    numbers = "; ".join(f"{korean.named(m.name)} {_value(m)}" for m in region.measurements)
    remark = " · ".join(part for part in (numbers, region.comment) if part)
    return (*_said(name, region.presence, region.probability), Cell(remark, GREY, 8))


def _said(name: str, presence: Presence | None, probability: float | None) -> tuple[Cell, ...]:
    color = ALARM if presence is Presence.PRESENT else INK
    sure = "" if probability is None else f"{probability * 100:.0f} %"
    return Cell(name, color), Cell(korean.presence(presence) if presence else "", color), Cell(sure, color)


def _measurement(measurement: Measurement) -> tuple[Cell, ...]:
    where = korean.place(measurement.laterality, measurement.site)
    name = korean.named(measurement.name)
    return Cell(name), Cell(where), Cell(_value(measurement)), Cell(measurement.derivation, GREY, 8)


def _value(measurement: Measurement) -> str:
    """As on the pictures: three digits, more of numbers above a thousand."""
    value, code = measurement.value, measurement.unit.value
    number = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    unit = measurement.unit.meaning if code.startswith("{") and code != "{ratio}" else code.strip("{}[]")
    return f"{number} {_UNITS.get(code, '' if code == '{ratio}' else unit)}".strip()


def _algorithm(origin: Origin) -> Iterator[tuple[str, str]]:
    algorithm, request = origin.algorithm, origin.request
    status = korean.STATUS.get(algorithm.status, "")
    told = {
        "Service": f"{algorithm.service} ({algorithm.title})",
        "Version": algorithm.version,
        "Status": f"{status} / {algorithm.status}" if status else algorithm.status,
        **described(algorithm),
        "Rules SHA-256": request.case.rules_hash,
        "Node": f"{request.node.ae_title}, pacsnode {request.node.version}",
    }
    yield from ((label(name), text) for name, text in told.items() if text)


def _source(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [coded(SOURCE_IMAGE if "Rows" in header else SOURCE_OF_MEASUREMENT)]
    return item


def _empty_patient(origin: Origin) -> dict[str, Any]:
    """What the constructor asks of patient and study, empty: `header.stamp` puts in what the source has."""
    emptied = evidence(origin.first)
    keywords = {
        "patient_id": "PatientID",
        "patient_name": "PatientName",
        "patient_birth_date": "PatientBirthDate",
        "patient_sex": "PatientSex",
        "accession_number": "AccessionNumber",
        "study_id": "StudyID",
        "study_date": "StudyDate",
        "study_time": "StudyTime",
        "referring_physician_name": "ReferringPhysicianName",
    }
    return {argument: emptied.get(keyword) for argument, keyword in keywords.items()}
