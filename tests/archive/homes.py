"""For tests of the archive: a migrated home, data sets as bytes, what lies on disk and in the index afterwards.

Run as a program (`home`, `owner`) it stores objects until it is killed, and prints each one once it was acknowledged.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_dataset

from pacsnode import schema
from pacsnode.archive.recovery import Recovered, recover
from pacsnode.archive.store import Archive
from pacsnode.handover import Stored, StoreRequest
from pacsnode.settings import Settings, load

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"


def data_set(uid: str, *, study: str = "1.2.3", pixels: int = 64, **values: str) -> bytes:
    """A small CT data set in Explicit VR Little Endian; `values` by keyword."""
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID, made.SOPInstanceUID = CT, uid
    made.StudyInstanceUID, made.SeriesInstanceUID = study, study + ".1"
    made.Modality, made.PatientID, made.PatientName = "CT", "4711", "Hong^Gildong"
    for keyword, value in values.items():
        setattr(made, keyword, value)
    made.add_new("PixelData", "OW", bytes(i & 0xFF for i in range(pixels)))
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, made)
    return bytes(buffer.getvalue())


def request(uid: str, *, peer: str = "ct-1", issuer: str = "CLINIC", syntax: str = EXPLICIT) -> StoreRequest:
    return StoreRequest(CT, uid, syntax, "CT1", "PACSNODE", "192.0.2.7", peer, issuer)


def home(folder: Path) -> Settings:
    """A migrated home."""
    settings = load(home=folder / "home")
    schema.migrate(settings)
    return settings


def archive(
    settings: Settings, *, minimum_free_mb: int = 1, owner: str = "scp", on_rows: Callable[[], None] = lambda: None
) -> Archive:
    return Archive(settings.files, settings.index_db, owner, minimum_free_mb=minimum_free_mb, on_rows=on_rows)


def store(into: Archive, data: bytes, said: StoreRequest) -> Stored:
    """As receive does it: in pieces, then commit; abort where a write failed."""
    writer = into.begin(said)
    half = len(data) // 2
    try:
        writer.write([memoryview(data)[:half], bytearray(data[half:])])
    except BaseException:
        writer.abort()
        raise
    return writer.commit()


def restart(settings: Settings, owner: str = "scp") -> Recovered:
    """One start and clean stop of a process."""
    started = archive(settings, owner=owner)
    try:
        return recover(started, settings.index_db)
    finally:
        started.close()


def on_disk(settings: Settings) -> list[Path]:
    """Every file below files/, whole or torn."""
    return sorted(path for path in settings.files.rglob("*") if path.is_file())


def rows(settings: Settings, sql: str, *parameters: object) -> list[tuple[object, ...]]:
    """What the index says to `sql`; a change is committed."""
    connection = sqlite3.connect(settings.index_db, isolation_level=None)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


def held_bytes(settings: Settings, uid: str) -> bytes:
    """The data set bytes of the file that the index has for `uid`."""
    ((path,),) = rows(settings, "SELECT path FROM instances WHERE sop_instance_uid = ?", uid)
    file = settings.files / str(path)
    meta = read_file_meta_info(file)
    return file.read_bytes()[144 + int(meta.FileMetaInformationGroupLength) :]


def main() -> None:
    settings = load(home=Path(sys.argv[1]))
    started = archive(settings, owner=sys.argv[2])
    recover(started, settings.index_db)
    for number in itertools.count():
        uid = f"1.9.{os.getpid()}.{number}"
        data = data_set(uid, study=f"1.2.{number % 7}", pixels=2 * (number * 997 % 40_000))
        store(started, data, request(uid))
        print(uid, hashlib.sha256(data).hexdigest(), flush=True)


if __name__ == "__main__":
    main()
