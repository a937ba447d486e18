"""`Not analysed: reason`, for those who wait for a result: a short report and a page, in place of a silent gap.

In: the Part 10 files of the case's images, the reason, the service. Out: a Comprehensive 3D SR by TID 1500 whose one
group (TID 1501) says that the analysis failed and lists no finding, and a secondary capture with the sentence. Never
says anything of the patient: that nothing was found is not said either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from pacsnode.dicom.codes import ANALYSIS_FAILED, COMMENT, SUMMARY_OF_ANALYSES
from pacsnode.encode.drawing import AMBER, Line, panel
from pacsnode.encode.finishing import built, origin_of, written
from pacsnode.encode.header import evidence, requests
from pacsnode.encode.provenance import Origin, algorithm_template, coded, observer
from pacsnode.findings import Algorithm, Findings
from pacsnode.handover import EncodeRequest, ResultKind, ResultObject

NO_FINDING = "This is no finding: it says nothing of what the images show."
LONGEST_REASON = 400

_PAGE_WIDTH, _PAGE_HEIGHT = 800, 600
_DARK = (24, 24, 24)


def failure(reason: str, algorithm: Algorithm, request: EncodeRequest) -> tuple[ResultObject, ...]:
    """Write what the rules want of report and page. Raises Permanent where the images cannot be referred to."""
    origin = origin_of(Findings(algorithm), request)
    sentence = f"Not analysed: {plain(reason)}"

    def finish(dataset: Dataset) -> None:
        """What `stamp` says of an analysis was not done."""
        dataset.ContributingEquipmentSequence[-1].ContributionDescription = sentence[:1024]
        dataset.SeriesDescription = f"AI {_ascii(algorithm.service)[:40]} - NOT ANALYSED"

    builders: Mapping[ResultKind, Callable[[str, Origin], Dataset]] = {"sr": _report, "sc": _page}

    def made(kind: ResultKind) -> ResultObject:
        return written(builders[kind](sentence, origin), origin, kind, finish=finish)

    wanted = [kind for kind in builders if kind in request.case.results]
    return tuple(built("report that nothing was analysed", partial(made, kind)) for kind in wanted)


def plain(reason: str) -> str:
    """A reason as it may stand in a report: one line, of a bounded length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in reason).split())
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 3]}..."


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode().replace("\\", "/")


def _told(algorithm: Algorithm) -> str:
    return f"{algorithm.title}; service {algorithm.service}, version {algorithm.version}"


def _report(sentence: str, origin: Origin) -> Dataset:
    algorithm, case = origin.algorithm, origin.request.case
    headers = list(origin.sources.values())
    uid = origin.uids.derive(case.key, "tracking")
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=uid, identifier=f"{algorithm.service} not analysed"[:64]),
        algorithm_id=algorithm_template(algorithm, case.rules_hash),
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(coded(SUMMARY_OF_ANALYSES), coded(ANALYSIS_FAILED))],
        source_images=[
            hd.sr.SourceImageForMeasurementGroup(h.SOPClassUID, h.SOPInstanceUID) for h in headers if "Rows" in h
        ],
    )
    contains = hd.sr.RelationshipTypeValues.CONTAINS
    content = hd.sr.MeasurementReport(
        observation_context=observer(algorithm, origin.request.node.ae_title),
        procedure_reported=coded(algorithm.procedure),
        imaging_measurements=[group],
    )
    content[0].ContentSequence.extend(
        hd.sr.TextContentItem(coded(COMMENT), text, contains) for text in (sentence, NO_FINDING, _told(algorithm))
    )
    return hd.sr.Comprehensive3DSR(
        evidence=[*map(evidence, headers)],
        content=content,
        is_complete=True,
        is_final=False,
        is_verified=False,
        requested_procedures=requests(origin.first) or None,
        previous_versions=list(origin.predecessors) or None,
        **origin.constructor("sr", 1),
    )


def _page(sentence: str, origin: Origin) -> Dataset:
    dataset = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=evidence(origin.first),
        pixel_array=_drawn(sentence, origin.algorithm),
        photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
        bits_allocated=8,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        patient_orientation=("L", "F"),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **origin.constructor("sc", 1),
    )
    dataset.PatientOrientation = None  # a page has none, and no side; highdicom takes no empty ones
    dataset.Laterality = None
    dataset.ConversionType = "WSD"
    dataset.DateOfSecondaryCapture = origin.request.started.strftime("%Y%m%d")
    dataset.TimeOfSecondaryCapture = origin.request.started.strftime("%H%M%S")
    dataset.DerivationDescription = sentence
    dataset.BurnedInAnnotation = "NO"
    if "RequestAttributesSequence" in origin.first:
        dataset.RequestAttributesSequence = origin.first.RequestAttributesSequence
    return dataset


def _drawn(sentence: str, algorithm: Algorithm) -> NDArray[np.uint8]:
    """(rows, columns, 3) uint8: the sentence, as large as it fits."""
    lines = [
        Line("NOT ANALYSED", 40, AMBER),
        Line(sentence, 24, (255, 255, 255), space_before=20),
        Line(NO_FINDING, 20, space_before=20),
        Line(_told(algorithm), 16, (170, 170, 170), space_before=20),
    ]
    page = Image.new("RGB", (_PAGE_WIDTH, _PAGE_HEIGHT), _DARK)
    page.paste(panel(lines, _PAGE_WIDTH, _DARK, most_height=_PAGE_HEIGHT), (0, 0))
    return np.asarray(page, dtype=np.uint8)
