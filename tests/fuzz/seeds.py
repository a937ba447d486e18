"""Writes the seed inputs of `corpus/`: `python -m tests.fuzz.seeds`. The same files each time.

In: our own encoders and pydicom's writer. Out: small files, some of them hostile by hand. Nothing of a real patient.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacsnode.dimse import associate, commands, pdus
from pacsnode.receive.negotiation import TRANSFER_SYNTAXES
from tests.fuzz.targets import SYNTAXES

CORPUS = Path(__file__).parent / "corpus"
CT, MR, COMMITMENT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.20.1"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT, IMPLICIT, BIG, DEFLATED_SYNTAX, JPEG, GE = range(len(SYNTAXES))
KOREAN = "Hong^Gildong=洪^吉洞=홍^길동"

Seeds = Iterator[tuple[str, bytes]]


def main() -> None:
    """Write them all."""
    for target, seeds in SEEDS.items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds():
            (folder / name).write_bytes(data)


# ---------------------------------------------------------------------------------------------------- PDU streams


def _pdv(context_id: int, control: int, data: bytes) -> bytes:
    return struct.pack(">IBB", len(data) + 2, context_id, control) + data


def _p_data(*values: bytes) -> bytes:
    body = b"".join(values)
    return struct.pack(">BxI", pdus.P_DATA_TF, len(body)) + body


def _pdu_seeds() -> Seeds:
    command = commands.store_request(1, CT, "1.2.3.4")
    store = _p_data(_pdv(1, 3, command)) + _p_data(_pdv(1, 0, b"data "), _pdv(1, 2, b"set"))
    release, abort = pdus.RELEASE_RQ_PDU, pdus.abort_pdu(2, 6)
    request = associate.encode_request("CT1", "PACSNODE", ((CT, (SYNTAXES[0],)),))
    tiny = _p_data(*(_pdv(1, 0, b"%d" % (n % 10)) for n in range(600)), _pdv(1, 2, b""))
    large = _p_data(_pdv(1, 3, command)) + _p_data(_pdv(1, 2, bytes(range(256)) * 16))
    yield "store", b"\0\0\0" + store + release
    yield "store-cut-1", b"\0\1\0" + store + release
    yield "store-cut-2", b"\0\2\0" + store * 3 + abort
    yield "association", b"\1\1\0" + request + store + release
    yield "association-alone", b"\1\0\0" + request
    yield "association-cut-off", b"\1\3\0" + request[:-9]
    yield "no-association", b"\1\0\0" + store
    yield "many-values", b"\0\0\0" + _p_data(_pdv(1, 3, command)) + tiny
    yield "many-values-cut", b"\0\7\0" + tiny
    yield "many-values-over-the-buffer-whole", b"\0\0\xff" + tiny
    yield "over-the-buffer", b"\0\5\xff" + large
    yield "over-the-buffer-whole", b"\0\0\xff" + large
    yield "over-the-buffer-in-one-message", b"\0\6\xff" + _p_data(_pdv(1, 0, bytes(5000)))
    yield "empty-values", b"\0\0\x10" + _p_data(_pdv(1, 1, b""), _pdv(1, 3, b""), _pdv(1, 0, b""), _pdv(1, 2, b""))
    yield "two-contexts", b"\0\1\0" + store + _p_data(_pdv(3, 3, command), _pdv(3, 2, b"x"))
    yield "mixed", b"\0\0\0" + _p_data(_pdv(1, 1, command[:20]), _pdv(3, 3, command[20:]))
    yield "longer-than-pdu", b"\0\0\0" + _p_data(struct.pack(">IBB", 0xFFFFFFF0, 1, 3) + bytes(20))
    yield "longer-than-pdu-by-one", b"\0\0\0" + _p_data(struct.pack(">IBB", 7, 1, 3) + bytes(4)) + bytes(9)
    yield "too-long", b"\0\0\0" + struct.pack(">BxI", pdus.P_DATA_TF, 0xFFFFFFF0)
    yield "too-short", b"\0\0\0" + struct.pack(">BxI", pdus.P_DATA_TF, 5) + bytes(5)
    yield "unknown-type", b"\0\0\0" + struct.pack(">BxI", 0x99, 4) + bytes(4)
    yield "http", b"\1\0\0GET / HTTP/1.1\r\n\r\n"


# --------------------------------------------------------------------------------------------------- command sets


def _element(element: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", 0, element, len(value) if length is None else length) + value


def _command_seeds() -> Seeds:
    store = commands.store_request(65535, CT, "1.2.3.4")
    read = commands.parse(store)
    action = commands.action_request(3, COMMITMENT, "1.2.840.10008.1.20.1.1", 1)
    yield "store", store
    yield "echo", commands.echo_request(1, VERIFICATION)
    yield "action", action
    yield "event", commands.event_report_request(4, COMMITMENT, "1.2.840.10008.1.20.1.1", 2)
    yield "store-response", commands.response(read, commands.Status(0))
    yield "store-refused", commands.response(read, commands.Status(0xA900, "the SOP Class UIDs differ"), 0x0008_0016)
    yield "action-response", commands.response(commands.parse(action), commands.Status(0x0112, "no such instance"))
    yield (
        "cancel",
        _element(0x100, b"\xff\x0f") + _element(0x120, b"\x07\x00") + _element(0x800, b"\x01\x01"),
    )
    yield (
        "find",
        _element(2, b"1.2.840.10008.5.1.4.1.2.2.1\0")
        + _element(0x100, b"\x20\x00")
        + _element(0x110, b"\x01\x00")
        + _element(0x700, b"\x00\x00")
        + _element(0x800, b"\x01\x00"),
    )
    yield "path", store.replace(b"1.2.3.4\0", b"../../x\0")
    yield "space-padded", store.replace(b"1.2.3.4\0", b"1.2.3.4 ")
    yield "nul-inside", store.replace(b"1.2.3.4\0", b"1.2\x003.4\0")
    yield "long-uid", store + _element(0x1001, b"1." * 40)
    yield "twice", store + _element(0x110, b"\x02\x00")
    yield "without-end", store + _element(0x902, b"", 0xFFFFFFFF)
    yield "wrong-group", store + b"\x08\x00\x05\x00\x02\x00\x00\x00ab"


# ----------------------------------------------------------------------------------------------------- associations


def _associate_seeds() -> Seeds:
    def ask(*contexts: tuple[str, tuple[str, ...]]) -> bytes:
        return associate.encode_request("CT1", "PACSNODE", contexts)

    one = ask((CT, (SYNTAXES[0],)))
    yield "echo", ask((VERIFICATION, (SYNTAXES[1],)))
    yield "one", one
    yield "commitment", ask((CT, (SYNTAXES[0],)), (COMMITMENT, (SYNTAXES[1],)))
    yield "roles", associate.encode_request("CT1", "PACSNODE", ((COMMITMENT, (SYNTAXES[1],)),), (COMMITMENT,))
    yield "many-syntaxes", ask((CT, TRANSFER_SYNTAXES), (MR, SYNTAXES))
    yield "many-contexts", ask(*((f"1.2.840.10008.5.1.4.1.1.{n}", (SYNTAXES[1],)) for n in range(1, 60)))
    yield "query", ask(("1.2.840.10008.5.1.4.1.2.2.1", (SYNTAXES[1],)))
    yield "private", ask(("1.3.6.1.4.1.99999.7.1", ("1.2.3.4",)))
    yield "padded-uids", one.replace(CT.encode(), CT.encode()[:-1] + b"\0")
    yield "id-twice", ask((CT, (SYNTAXES[0],)), (MR, (SYNTAXES[0],))).replace(b"\x20\0\0\x2f\3", b"\x20\0\0\x2f\1")
    yield "no-maximum", one.replace(b"\x51\0\0\4", b"\x5f\0\0\4")
    yield "small-maximum", one.replace(struct.pack(">I", pdus.ANNOUNCED_PDU_BYTES), struct.pack(">I", 7))
    yield "odd-title", one[:10] + b"A\\B\r\n\x1b[2J".ljust(16) + one[26:]
    yield "cut-off", one[:-5]
    yield "items-only-header", one[:74]
    yield "long-item", one[:74] + b"\x20\0\xff\xff" + one[78:]


# -------------------------------------------------------------------------------------------------------- data sets


def _image(syntax: int, *, pixels: bytes | None = bytes(range(64)), undefined: bool = False) -> Dataset:
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.ImageType = ["ORIGINAL", "PRIMARY", "", "AXIAL"]
    made.SOPClassUID, made.SOPInstanceUID = CT, "1.2.3.4"
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    made.StudyDate, made.StudyTime, made.Modality = "20260101", "120000", "CT"
    made.PatientName, made.PatientID, made.PatientSex = KOREAN, "4711", ""
    made.PixelSpacing, made.Rows, made.Columns, made.InstanceNumber = ["0.5", "0.5"], 4, 8, 1
    made.add_new(0x0018_9087, "FD", 1000.0)
    view, inner = Dataset(), Dataset()
    view.CodeValue, view.CodeMeaning, inner.CodeValue = "399348003", "antero-posterior", "inner"
    view.ViewModifierCodeSequence = [inner]
    made.ViewCodeSequence = [view, Dataset()]
    made.add_new(0x0009_0010, "LO", "PRIVATE")
    if pixels is not None:
        made.add_new(0x7FE0_0010, "OW" if syntax != JPEG else "OB", pixels)
    if undefined:
        for element in made.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = True
                for item in element.value:
                    item.is_undefined_length_sequence_item = True
    return made


def _encoded(made: Dataset, syntax: int) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax != BIG, syntax in (IMPLICIT, GE)
    write_dataset(buffer, made)
    return bytes(buffer.getvalue())


def _long(tag: int, vr: bytes, length: int) -> bytes:
    return struct.pack("<HH2sxxI", tag >> 16, tag & 0xFFFF, vr, length)


def _item(tag: int, length: int, value: bytes = b"") -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, length) + value


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def _header_seeds() -> Seeds:
    for name, syntax in (("explicit", EXPLICIT), ("implicit", IMPLICIT), ("big-endian", BIG), ("ge", GE)):
        yield name, bytes([syntax]) + _encoded(_image(syntax), syntax)
        yield f"{name}-undefined", bytes([syntax]) + _encoded(_image(syntax, undefined=True), syntax)
    plain = _encoded(_image(EXPLICIT, pixels=None), EXPLICIT)
    end = _item(0xFFFE_E0DD, 0)
    fragments = _item(0xFFFE_E000, 0) + _item(0xFFFE_E000, 4, b"\xff\xd8\xff\xd9")
    encapsulated = _long(0x7FE0_0010, b"OB", 0xFFFFFFFF) + fragments
    yield "jpeg", bytes([JPEG]) + plain + encapsulated + end
    yield "jpeg-padded", bytes([JPEG]) + plain + encapsulated + end + bytes(10)
    yield "jpeg-without-end", bytes([JPEG]) + plain + encapsulated
    yield "deflated", bytes([DEFLATED_SYNTAX]) + _deflated(_encoded(_image(EXPLICIT), EXPLICIT))
    bomb = plain + _long(0x7FE0_0010, b"OW", 1 << 24) + b"\xff" * (1 << 22)
    yield "deflate-bomb", bytes([DEFLATED_SYNTAX]) + _deflated(bomb)
    deep = _long(0x0040_0275, b"SQ", 0xFFFFFFFF) + _item(0xFFFE_E000, 0xFFFFFFFF)
    yield "deep", bytes([EXPLICIT]) + plain[:60] + deep * 70
    yield "un-undefined", bytes([EXPLICIT]) + _long(0x0009_1010, b"UN", 0xFFFFFFFF) + _item(0xFFFE_E000, 0) + end
    korean = _image(EXPLICIT)
    korean.SpecificCharacterSet = ["", "ISO 2022 IR 149"]
    yield "korean", bytes([EXPLICIT]) + _encoded(korean, EXPLICIT)
    yield "explicit-said-implicit", bytes([IMPLICIT]) + plain
    yield "implicit-said-explicit", bytes([EXPLICIT]) + _encoded(_image(IMPLICIT), IMPLICIT)
    yield "cut-off", bytes([EXPLICIT]) + plain[:-3]
    yield "other-vr", bytes([EXPLICIT]) + plain.replace(b"\x10\x00\x20\x00LO", b"\x10\x00\x20\x00??")


def _asked(syntax: int, *, undefined: bool = False) -> bytes:
    made = Dataset()
    made.TransactionUID = "1.2.77"
    made.ReferencedSOPSequence = [Dataset(), Dataset()]
    for number, item in enumerate(made.ReferencedSOPSequence):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, f"1.9.{number}"
        item.is_undefined_length_sequence_item = undefined
    made["ReferencedSOPSequence"].is_undefined_length = undefined
    return _encoded(made, syntax)


def _nested_seeds() -> Seeds:
    for name, syntax, first in (("implicit", IMPLICIT, b"\0"), ("explicit", EXPLICIT, b"\xff")):
        whole = _asked(syntax)
        yield name, first + whole
        yield f"{name}-undefined", first + _asked(syntax, undefined=True)
        yield f"{name}-cut-off", first + whole[:-7]
        yield f"{name}-empty", first
    deep = _long(0x0008_1199, b"SQ", 0xFFFFFFFF) + _item(0xFFFE_E000, 0xFFFFFFFF)
    yield "deep", b"\xff" + deep * 40
    yield "no-vr", b"\xff" + _asked(IMPLICIT)
    yield "odd-item", b"\xff" + _long(0x0008_1199, b"SQ", 8) + _item(0x0008_1155, 0)
    yield "un", b"\xff" + _long(0x0008_1199, b"UN", 8) + _item(0xFFFE_E000, 0)


# ---------------------------------------------------------------------------------------------------------- Part 10


def _meta_element(element: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) & 1)
    if vr == b"OB":
        return struct.pack("<HH2sxxI", 2, element, vr, len(value)) + value
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


def _meta(*extra: bytes, preamble: bytes = bytes(128), length: int | None = None) -> bytes:
    elements = b"".join(
        (
            _meta_element(1, b"OB", b"\0\1"),
            _meta_element(2, b"UI", CT.encode()),
            _meta_element(3, b"UI", b"1.2.3.4"),
            _meta_element(0x10, b"UI", SYNTAXES[EXPLICIT].encode()),
            _meta_element(0x12, b"UI", b"1.2.3"),
            *extra,
        )
    )
    size = struct.pack("<I", len(elements) if length is None else length)
    return preamble + b"DICM" + _meta_element(0, b"UL", size) + elements


def _meta_seeds() -> Seeds:
    data = _encoded(_image(EXPLICIT, pixels=None), EXPLICIT)[:200]
    ours = _meta_element(0x100, b"UI", b"1.2.3") + _meta_element(0x102, b"OB", b'{"peer": "ct-1", "issuer": "CLINIC"}')
    yield "plain", _meta() + data
    yield "no-data-set", _meta()
    yield "private-information", _meta(ours) + data
    yield "polyglot", _meta(preamble=b"MZ" + b"\x90" * 126) + data
    yield "wrong-group-length", _meta(length=4) + data
    yield "large-group-length", _meta(length=0xFFFFFFFF) + data
    yield "no-group-length", (_meta()[:132] + _meta()[144:]) + data
    yield "no-prefix", _meta().replace(b"DICM", b"DICN") + data
    yield "no-syntax", _meta().replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI") + data
    yield "path", _meta().replace(b"1.2.3.4\0", b"../../x\0") + data
    yield "long-value", _meta(struct.pack("<HH2sxxI", 2, 0x102, b"OB", 0xFFFFFFFF)) + data
    yield "cut-off", _meta()[:-5]


SEEDS: dict[str, Callable[[], Seeds]] = {
    "pdu": _pdu_seeds,
    "command": _command_seeds,
    "associate": _associate_seeds,
    "header": _header_seeds,
    "nested": _nested_seeds,
    "meta": _meta_seeds,
}


if __name__ == "__main__":
    main()
