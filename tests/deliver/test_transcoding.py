"""C-STORE to peers that take only some transfer syntaxes: as stored where they can, decompressed where they must."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacsnode.deliver import dimse
from pacsnode.deliver.ready import Ready, cannot_convert
from pacsnode.dimse.part10 import FileMeta
from pacsnode.errors import Transient
from tests.deliver.owing import Site, image, site
from tests.deliver.test_senders import free_port, received, storescp


@pytest.fixture
def owing(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, ae_title="PACS", host="127.0.0.1", port=free_port()) as made:
        yield made


def port(owing: Site) -> int:
    assert owing.peer.port is not None
    return owing.peer.port


def packed(name: str = "MR_small_RLE.dcm") -> Path:
    found = get_testdata_file(name, download=False)
    if not found:
        pytest.skip(f"pydicom's {name} is not here")
    return Path(str(found))


@pytest.mark.parametrize(
    ("option", "expected"),
    [("+x=", ExplicitVRLittleEndian), ("+xi", ImplicitVRLittleEndian)],
    ids=["plain", "implicit"],
)
def test_a_compressed_image_is_decompressed_for_a_peer_that_takes_no_compression(
    owing: Site, tmp_path: Path, option: str, expected: UID
) -> None:
    plain, small = image(tmp_path / "plain.dcm"), packed()
    owing.owe(small, plain)
    with storescp(tmp_path / "pacs", port(owing), option) as folder:
        rows = owing.deliver()
        held = {str(d.SOPInstanceUID): d for d in received(folder)}
    assert [row.state for row in rows] == ["sent", "sent"]
    assert rows[0].reason == f"sent in {expected.name}"
    theirs = held[rows[0].sop_instance_uid]
    assert theirs.file_meta.TransferSyntaxUID == expected
    assert np.array_equal(theirs.pixel_array, pydicom.dcmread(small).pixel_array)
    assert rows[1].reason == ("" if option == "+x=" else "sent in Implicit VR Little Endian")


def test_a_peer_that_takes_it_compressed_has_the_stored_bytes(owing: Site, tmp_path: Path) -> None:
    small = packed("MR_small_jp2klossless.dcm")
    owing.owe(small)
    with storescp(tmp_path / "pacs", port(owing), "+xa") as folder:
        (row,) = owing.deliver()
        (theirs,) = received(folder)
    assert (row.state, row.reason) == ("sent", "")
    assert theirs.file_meta.TransferSyntaxUID == pydicom.uid.JPEG2000Lossless
    assert theirs.PixelData == pydicom.dcmread(small).PixelData


def test_what_the_peer_takes_and_refuses_is_remembered(owing: Site, tmp_path: Path) -> None:
    owing.owe(packed("MR_small_jp2klossless.dcm"))
    with storescp(tmp_path / "pacs", port(owing), "+x="):
        owing.deliver()
    facts = {fact.transfer_syntax_uid: fact.reason for fact in owing.learned.of(owing.peer)}
    assert facts == {
        str(pydicom.uid.JPEG2000Lossless): "the transfer syntax is not supported",
        str(ExplicitVRLittleEndian): "",
        str(ImplicitVRLittleEndian): "",
    }


def test_one_object_that_cannot_be_converted_stops_no_other(owing: Site, tmp_path: Path) -> None:
    damaged = pydicom.dcmread(packed())
    damaged.Rows = 4000
    damaged.SOPInstanceUID = damaged.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    damaged.save_as(tmp_path / "damaged.dcm")
    owing.owe(tmp_path / "damaged.dcm", packed(), image(tmp_path / "plain.dcm"))
    with storescp(tmp_path / "pacs", port(owing), "+x="):
        rows = owing.deliver()
    assert [row.state for row in rows] == ["parked", "sent", "sent"]
    assert "cannot be sent in Explicit VR Little Endian" in rows[0].reason


def test_without_a_compute_process_the_row_says_so_and_while_it_is_busy_it_waits(owing: Site, tmp_path: Path) -> None:
    def busy(_source: Path, _syntax: str, _target: Path) -> None:
        raise Transient("the node is stopping")

    owing.owe(packed())
    with storescp(tmp_path / "pacs", port(owing), "+x="):
        dimse.deliver(owing.outbox, owing.outbox.claim("there"), owing.peer, replace(owing.route, convert=busy))
        assert (owing.rows()[0].state, owing.rows()[0].reason) == ("owed", "the node is stopping")
        dimse.deliver(owing.outbox, owing.rows(), owing.peer, replace(owing.route, convert=cannot_convert))
    assert owing.rows()[0].state == "parked"
    assert "no compute process" in owing.rows()[0].reason


def test_contexts_that_do_not_fit_one_association_go_in_several(owing: Site, tmp_path: Path) -> None:
    owing.owe(image(tmp_path / "plain.dcm"))
    (row,) = owing.rows()

    def ready(number: int, sop_class: str, syntax: str) -> Ready:
        return Ready(replace(row, id=number), Path(), FileMeta(sop_class, f"1.{number}", syntax), 0)

    many = [ready(n, f"1.2.{n}", "1.2.840.10008.1.2.5") for n in range(100)]
    made = list(dimse.groups(many, lambda one: [one.meta.transfer_syntax_uid, "a", "b"]))
    assert [len(group) for group in made] == [42, 42, 16]  # three contexts each, 128 in all
    assert [one for group in made for one in group] == many
    alike = [ready(n, "1.2", "1.2.840.10008.1.2.5") for n in range(500)]
    assert list(dimse.groups(alike, lambda one: ["a", "b"])) == [alike]
