"""A process in the role of `work` that keeps small results as fast as the archive takes them, until stdin says so.

Takes the node's settings from the environment. Each result is a file and a row, by the code that keeps a report. Prints
`ready` when the first is kept, and at the end one line: how many, and in how many seconds.
"""

from __future__ import annotations

import io
import sys
import threading
import time
from typing import Final

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from pacsnode.archive.store import Archive
from pacsnode.handover import StoreRequest
from pacsnode.settings import load

BASIC_TEXT_SR: Final = "1.2.840.10008.5.1.4.1.1.88.11"
EXPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
STUDY_UID: Final = "2.25.20772"
FIRST_INSTANCE_UID: Final = "2.25.20772.1.1000000000"
REPORT_BYTES: Final = 8192


def main() -> None:
    """Keep results."""
    settings = load()
    archive = Archive(settings.files, settings.index_db, "work", minimum_free_mb=0, on_rows=lambda: None)
    enough = threading.Event()
    threading.Thread(target=_set_at_a_line, args=(enough,), daemon=True).start()
    template = _report()
    number, started_s = 0, time.monotonic()
    try:
        while not enough.is_set():
            _keep(archive, template, number)
            number += 1
            if number == 1:
                print("ready", flush=True)
        print(number, time.monotonic() - started_s, flush=True)
    finally:
        archive.close()


def _set_at_a_line(enough: threading.Event) -> None:
    sys.stdin.readline()
    enough.set()


def _keep(archive: Archive, template: bytes, number: int) -> None:
    uid = FIRST_INSTANCE_UID[:-9] + f"{number:09d}"
    request = StoreRequest(BASIC_TEXT_SR, uid, EXPLICIT_LITTLE_ENDIAN, "PACSNODE", "PACSNODE", "", "", "")
    writer = archive.open(request, "result")
    writer.write([template.replace(FIRST_INSTANCE_UID.encode(), uid.encode())])
    writer.commit()


def _report() -> bytes:
    """A data set of the size of a report, whose SOP Instance UID is there to be replaced by one as long."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = BASIC_TEXT_SR, FIRST_INSTANCE_UID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY_UID, f"{STUDY_UID}.1"
    dataset.Modality, dataset.PatientID, dataset.PatientName = "SR", "P1", "Doe^Jane"
    dataset.TextValue = "x" * REPORT_BYTES
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
