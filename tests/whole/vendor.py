"""A vendor's AI node, played by a script: a real SCP that takes studies, and answers each as its study says.

StudyDescription of the images says how: `right`, `wrong patient`, `silent` and so on (`Vendor.answers`).
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness import LOOPBACK, free_port
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts, build_context

from pacsnode.dimse.association import Association, contexts_for

SR = "1.2.840.10008.5.1.4.1.1.88.33"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
PDF = "1.2.840.10008.5.1.4.1.1.104.1"
EXPLICIT = str(ExplicitVRLittleEndian)
OF_SOURCE = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)


def answer(source: Dataset, sop_class: str, modality: str, **changes: Any) -> Dataset:
    """An object of the examination of `source`, in Unicode as vendors have it; a change replaces what is copied."""
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    for keyword in OF_SOURCE:
        value = source.get(keyword)
        setattr(made, keyword, "" if value is None else str(value))
    made.SOPClassUID, made.SOPInstanceUID, made.SeriesInstanceUID = sop_class, generate_uid(), generate_uid()
    made.Modality, made.SeriesNumber, made.InstanceNumber = modality, 900, 1
    made.Manufacturer, made.SeriesDescription = "Vendor", "Vendor's result"
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def refers(sop_class: str, sop_instance: str) -> Dataset:
    """An item that names an instance."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    return item


def report(source: Dataset, *, to: str = "", segmentation: str = "", **changes: Any) -> Dataset:
    """An SR on the image, or on `to` in its place."""
    made = answer(source, SR, "SR", **changes)
    series, study, content = Dataset(), Dataset(), Dataset()
    image = refers(str(source.SOPClassUID), to or str(source.SOPInstanceUID))
    series.SeriesInstanceUID = source.SeriesInstanceUID
    series.ReferencedSOPSequence = [image] + ([refers(SEG, segmentation)] if segmentation else [])
    study.StudyInstanceUID, study.ReferencedSeriesSequence = source.StudyInstanceUID, [series]
    made.CurrentRequestedProcedureEvidenceSequence = [study]
    step = refers("1.2.840.10008.3.1.2.3.3", generate_uid())
    made.ReferencedPerformedProcedureStepSequence = [step]
    content.RelationshipType, content.ValueType, content.ReferencedSOPSequence = "CONTAINS", "IMAGE", [image]
    made.ValueType, made.ContentSequence = "CONTAINER", [content]
    return made


def segmentation(source: Dataset, **changes: Any) -> Dataset:
    """A SEG of the image, as far as a node that reads no pixels looks at it."""
    made = answer(source, SEG, "SEG", **changes)
    series = Dataset()
    series.SeriesInstanceUID = source.SeriesInstanceUID
    series.ReferencedInstanceSequence = [refers(str(source.SOPClassUID), str(source.SOPInstanceUID))]
    made.ReferencedSeriesSequence = [series]
    made.Rows, made.Columns, made.NumberOfFrames, made.BitsAllocated = 8, 8, 1, 1
    made.PixelData = bytes(8)
    return made


Answering = Callable[["Vendor", Dataset], None]


@dataclass
class Vendor:
    """Takes images on its port; answers by associations of its own. `answers` may be changed at any time."""

    node_port: int
    port: int = field(default_factory=free_port)
    answers: dict[str, Answering] = field(default_factory=dict)
    got: list[Dataset] = field(default_factory=list)
    called_as: list[str] = field(default_factory=list)
    sent: list[Dataset] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)

    def __enter__(self) -> Vendor:
        ae = AE(ae_title="VENDOR")
        ae.supported_contexts = AllStoragePresentationContexts
        self._server = ae.start_server((LOOPBACK, self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._took)])
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    def _took(self, event: Any) -> int:
        dataset = event.dataset
        if str(dataset.StudyDescription) in self.refuses:
            return 0xC123
        dataset.file_meta = event.file_meta
        self.got.append(dataset)
        self.called_as.append(event.assoc.requestor.primitive.called_ae_title)
        answering = self.answers.get(str(dataset.StudyDescription), silent)
        threading.Thread(target=self._answer, args=(answering, dataset), daemon=True).start()
        return 0x0000

    def _answer(self, answering: Answering, dataset: Dataset) -> None:
        try:
            answering(self, dataset)
        except Exception as error:  # a thread of its own: the test looks at `faults`
            self.faults.append(repr(error))
            raise

    def images_of(self, study: str) -> list[Dataset]:
        """What it got of a study."""
        return [one for one in self.got if str(one.StudyInstanceUID) == study]

    def send(self, objects: Sequence[Dataset], calling: str = "VENDOR") -> None:
        """One association to the node."""
        ae = AE(ae_title=calling)
        ae.requested_contexts = [build_context(uid, EXPLICIT) for uid in {str(one.SOPClassUID) for one in objects}]
        association = ae.associate(LOOPBACK, self.node_port, ae_title="PACSNODE")
        assert association.is_established
        try:
            for one in objects:
                self.sent.append(one)
                self.statuses.append(int(association.send_c_store(one).Status))
        finally:
            association.release()

    def send_bytes(self, source: Dataset, content: bytes) -> int:
        """What is no data set, under the SOP class of an SR; the node's status."""
        with Association.request(
            LOOPBACK, self.node_port, "VENDOR", "PACSNODE", contexts_for([(SR, EXPLICIT)])
        ) as association:
            return association.store(SR, str(generate_uid()), EXPLICIT, io.BytesIO(content)).code


def silent(vendor: Vendor, source: Dataset) -> None:
    """It never answers."""


def right(vendor: Vendor, source: Dataset) -> None:
    """SR and SEG, the SR with a reference to the SEG."""
    outline = segmentation(source)
    vendor.send([outline, report(source, segmentation=str(outline.SOPInstanceUID))])


def later(seconds: float) -> Answering:
    """As `right`, after a while."""

    def answering(vendor: Vendor, source: Dataset) -> None:
        time.sleep(seconds)
        right(vendor, source)

    return answering


def wrong_patient(vendor: Vendor, source: Dataset) -> None:
    """The report is of somebody else."""
    vendor.send([segmentation(source), report(source, PatientID="9999", PatientName="Other^Person")])


def wrong_number(vendor: Vendor, source: Dataset) -> None:
    """The report names another examination of the same patient."""
    vendor.send([segmentation(source), report(source, AccessionNumber="A-OTHER")])


def rubbish(vendor: Vendor, source: Dataset) -> None:
    """Bytes that are no data set."""
    vendor.statuses.append(vendor.send_bytes(source, b"\x00\x01rubbish" * 40))


def unannounced(vendor: Vendor, source: Dataset) -> None:
    """A document that nobody announced, beside what was."""
    vendor.send([segmentation(source), report(source), answer(source, PDF, "DOC", EncapsulatedDocument=b"%PDF")])


def foreign(vendor: Vendor, source: Dataset) -> None:
    """The report refers to an image that the study does not have."""
    vendor.send([segmentation(source), report(source, to=str(generate_uid()))])


def in_pieces(vendor: Vendor, source: Dataset) -> None:
    """Report and two outlines, each by itself."""
    for make in (report, segmentation, segmentation):
        vendor.send([make(source)])
        time.sleep(0.6)
