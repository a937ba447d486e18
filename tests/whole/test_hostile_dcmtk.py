"""Broken objects and callers by DCMTK against a whole node, while another modality sends real images all the time.

Each test ends as those of `test_hostile_node` do. What storescu says it was answered is the proof.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pydicom
import pytest
from harness import SHARED, wait_until
from hostile import SENT, World, attacked
from sending import data_set_bytes

from pacsnode.archive.index import Index
from tests.archive import homes
from tests.dicom.test_charsets import EXPECTED as CHARSETS
from tests.receive.doubles import CT, p_data, pdv, store_command
from tests.receive.real import ct_file
from tests.receive.test_hostile import DEFLATED, nested


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with attacked(tmp_path_factory.mktemp("hostile")) as made:
        yield made


@pytest.mark.parametrize(
    ("calling", "called", "told"),
    [
        ("MODALITY", "WRONG", "Called AE Title Not Recognized"),
        ("STRANGER", "PACSNODE", "Calling AE Title Not Recognized"),
        ("VIEWER", "PACSNODE", "0x0124: "),
    ],
)
def test_dcmtk_is_told_why_it_may_not_store(world: World, calling: str, called: str, told: str) -> None:
    file = ct_file(world.folder, f"{SENT}.7")
    with world.steady.undisturbed():
        assert told in world.storescu(file, calling=calling, called=called)
    assert world.held(f"{SENT}.7") is None


def test_dcmtk_is_told_that_its_limit_of_associations_is_reached(world: World) -> None:
    file = ct_file(world.folder, f"{SENT}.8")
    with world.steady.undisturbed(), world.client(calling="CROWD") as first:
        assert "Local Limit Exceeded" in world.storescu(file, calling="CROWD")
        first.release()
    wait_until(lambda: "0x0000: Success" in world.storescu(file, calling="CROWD"), 20, 0.2)


def edited(folder: Path, uid: str, *, without: bytes = b"", with_more: bytes = b"") -> Path:
    """A CT file whose data set lacks an element of a short VR, or has more at its end."""
    path = ct_file(folder, uid, pixels=2)
    content = path.read_bytes()
    if without:
        at = content.index(without, content.index(b"\x08\x00\x16\x00UI"))
        content = content[:at] + content[at + 8 + content[at + 6] :]
    end = content.index(b"\xe0\x7f\x10\x00OW")
    path.write_bytes(content[:end] + with_more + content[end:])
    return path


TOO_LONG_ID = b"\x20\x00\x10\x00SH" + struct.pack("<H", 20_000) + b"x" * 20_000


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        ({"without": b"\x20\x00\x0d\x00UI"}, 0xA900, "StudyInstanceUID is absent"),
        ({"with_more": TOO_LONG_ID}, 0xC000, "too long"),
    ],
    ids=["no-study", "too-long"],
)
def test_dcmtk_is_told_that_a_data_set_cannot_be_used(
    world: World, change: dict[str, bytes], code: int, reason: str
) -> None:
    uid = f"{SENT}.9.{code}.{len(change)}.{sum(map(len, change.values()))}"
    file = edited(world.folder, uid, **change)
    with world.steady.undisturbed():
        assert world.status(file) == code
    assert world.held(uid) is None
    ((path, told),) = world.rows("SELECT path, reason FROM aside WHERE sop_instance_uid = ?", uid)
    assert str(told).startswith(f"{code:04X} ") and reason in str(told)
    aside = (world.node.home / "files" / str(path)).read_bytes()
    assert all(part in aside for part in change.values()) or "without" in change


@pytest.mark.parametrize(
    ("uid", "code"),
    [
        ("../../../../x", 0x0117),
        ("1.2.3/4", 0x0117),
        ("1.2.abc", 0x0117),
        ("1." * 32 + "1", 0xA900),
        ("1.2\0.3", 0xA900),
    ],
    ids=["path", "slash", "letters", "65", "nul"],
)
def test_dcmtk_is_told_that_a_uid_is_none(world: World, uid: str, code: int) -> None:
    """Of 65 characters storescu sends 64 in the command, and what stands before a NUL: then the data set differs."""
    file = with_uid(ct_file(world.folder, f"{SENT}.16"), uid.encode())
    with world.steady.undisturbed():
        assert world.status(file) == code
    assert world.held(uid) is None
    assert not list(world.folder.parent.rglob("x"))


def with_uid(path: Path, uid: bytes) -> Path:
    """The same file with another SOP Instance UID in its data set."""
    content = path.read_bytes()
    at = content.index(b"\x08\x00\x18\x00UI") + 6
    uid += b"\0" * (len(uid) & 1)
    path.write_bytes(content[:at] + struct.pack("<H", len(uid)) + uid + content[at + 2 + content[at] :])
    return path


def test_three_thousand_sequences_in_one_another_do_no_harm(world: World) -> None:
    """Of undefined length they are C000; storescu writes them with lengths, and then nothing need look into them."""
    plain, raw_uid, uid = homes.data_set(f"{SENT}.10", pixels=0)[:-12], f"{SENT}.10", f"{SENT}.14"
    file = edited(world.folder, uid, with_more=nested(3000))
    with world.steady.undisturbed():
        with world.client() as client:
            client.send(store_command(raw_uid) + p_data(pdv(1, 2, plain + nested(3000))))
            assert client.read_status().status.code == 0xC000
            client.release()
        assert world.status(file) == 0x0000
    assert world.held(raw_uid) is None
    kept = world.held(uid)
    assert kept is not None and kept.read_bytes().count(b"\x40\x00\x75\x02SQ") == 3000
    listed = world.node.run("studies", "list").stdout
    assert "1.2.826.9" in listed


def test_storescu_that_aborts_behind_its_object_has_stored_it(world: World) -> None:
    file = ct_file(world.folder, f"{SENT}.11")
    with world.steady.undisturbed():
        told = world.storescu(file, "--abort")
    assert "Aborting Association" in told
    kept = world.held(f"{SENT}.11")
    assert kept is not None and data_set_bytes(kept) == data_set_bytes(file)


BOMB_BYTES = 96 << 20


def deflated_file(folder: Path, uid: str) -> Path:
    """A file of under 100 KB whose pixels are 96 MB of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = homes.data_set(uid, pixels=0)[:-12] + struct.pack("<HH2sxxI", 0x7FE0, 0x10, b"OW", BOMB_BYTES)
    packed = packer.compress(head) + packer.compress(bytes(BOMB_BYTES)) + packer.flush()
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = CT, uid, DEFLATED
    path = folder / f"{uid}.dcm"
    with path.open("wb") as file:
        file.write(bytes(128) + b"DICM")
        pydicom.filewriter.write_file_meta_info(file, meta, enforce_standard=True)
        file.write(packed + b"\0" * (len(packed) & 1))
    return path


def memory_kb(pid: int, which: str) -> int:
    """`VmRSS`, or `VmHWM`, its peak since `clear_refs`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which))


def test_a_deflate_bomb_of_storescu_is_kept_packed_and_never_unpacked(world: World) -> None:
    file = deflated_file(world.folder, f"{SENT}.12")
    scp = world.node.pids()["scp"]
    Path(f"/proc/{scp}/clear_refs").write_text("5")  # proc(5): reset the peak
    before = memory_kb(scp, "VmRSS")
    with world.steady.undisturbed():
        assert world.status(file, "-xd") == 0x0000
    kept = world.held(f"{SENT}.12")
    assert kept is not None and kept.stat().st_size < 1 << 20
    assert memory_kb(scp, "VmHWM") - before < BOMB_BYTES >> 11  # half of it


def test_the_preamble_of_a_polyglot_is_zeroed(world: World) -> None:
    file = ct_file(world.folder, f"{SENT}.13", preamble=b"MZ" + b"\x90" * 126)
    with world.steady.undisturbed():
        assert world.status(file) == 0x0000
    kept = world.held(f"{SENT}.13")
    assert kept is not None and kept.read_bytes()[:132] == bytes(128) + b"DICM"
    files = [world.node.home / "files" / str(path) for (path,) in world.rows("SELECT path FROM instances")]
    assert {path.read_bytes()[:132] for path in files} == {bytes(128) + b"DICM"}


# ----------------------------------------------------------------------------------------------------- character sets


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about the spellings under test
def test_nineteen_ways_to_write_a_korean_name_are_read_and_their_bytes_kept(world: World) -> None:
    vectors = SHARED / "data" / "charsets"
    if not vectors.is_dir():
        pytest.skip("the character set vectors are not beside the repository")
    files = {name: vectors / f"cs_{name}.dcm" for name in CHARSETS}
    with world.steady.undisturbed():
        world.node.send(list(files.values()), calling="MODALITY")
    for name, path in files.items():
        sent = pydicom.dcmread(path)
        with closing(Index(world.node.home / "index.db")) as index:
            found = index.instance(str(sent.SOPInstanceUID))
        assert found is not None, name
        assert found.attributes["PatientName"] == (CHARSETS[name][0],), name
        kept = pydicom.dcmread(world.node.home / "files" / found.path)
        for keyword in ("SpecificCharacterSet", "PatientName"):
            assert raw(kept, keyword) == raw(sent, keyword), name


def raw(data_set: pydicom.Dataset, keyword: str) -> bytes | None:
    """The bytes of an element, before pydicom decodes them."""
    element = data_set.get_item(keyword)
    if element is None:
        return None
    return element.value if isinstance(element.value, bytes) else str(element.value).encode()
