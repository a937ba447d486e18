"""A receiving peer for scripts/demo on machines without DCMTK: keeps whatever is sent to it as Part 10 files.

    python scripts/demo_receiver.py FOLDER PORT AE_TITLE

In: DICOM on 127.0.0.1. Out: `<n>.dcm`. Built on the node's own receive stage; admits every caller, routes nothing.
"""

from __future__ import annotations

import itertools
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info

from pacsnode.handover import InstanceWriter, Stored, StoreRequest
from pacsnode.receive.admission import Admitted, Caller, Refused
from pacsnode.receive.server import ListenOptions, Server


class Door:
    """Admits everybody who calls this AE title."""

    def __init__(self, ae_title: str) -> None:
        self._ae_title = ae_title

    def admit(self, caller: Caller) -> Admitted:
        """Who calls. Raises Refused."""
        if caller.called_ae_title != self._ae_title:
            raise Refused.called_ae_title(f"called {caller.called_ae_title}, but this is {self._ae_title}")
        return Admitted(caller.calling_ae_title, "", frozenset({"store"}))

    def refused(self, caller: Caller, reason: str) -> None:
        """The log of the receive stage says it."""


class Folder:
    """An object store that is a plain folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)

    def begin(self, request: StoreRequest) -> InstanceWriter:
        """Open a file under a temporary name."""
        return File(self._folder / f"{next(self._numbers):05}.dcm", request)


class File:
    """One object on its way into the folder; its name is a number, never taken from the wire."""

    def __init__(self, path: Path, request: StoreRequest) -> None:
        self._path = path
        self._part = path.with_suffix(".part")
        self._file = self._part.open("wb")
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = request.sop_class_uid
        meta.MediaStorageSOPInstanceUID = request.sop_instance_uid
        meta.TransferSyntaxUID = request.transfer_syntax_uid
        self._file.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(self._file, meta, enforce_standard=True)

    def write(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Append data set bytes."""
        self._file.writelines(pieces)

    def commit(self) -> Stored:
        """Keep the file under its final name."""
        self._file.close()
        self._part.rename(self._path)
        return Stored("stored")

    def abort(self) -> None:
        """Forget the torn object."""
        self._file.close()
        self._part.unlink()


def main(folder: str, port: str, ae_title: str) -> None:
    """Receive until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with Server(ListenOptions("127.0.0.1", int(port)), Door(ae_title), Folder(Path(folder))):
        stop.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
