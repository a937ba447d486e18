"""Asking an archive what it holds: a real peer that answers at once, early, later, partly, or not at all."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacsnode.archive.confirmations import Asked, Confirmations
from pacsnode.deliver import proof
from pacsnode.dimse import commitment
from pacsnode.dimse.association import Association
from pacsnode.dimse.tls import NO_CREDENTIALS
from pacsnode.errors import Permanent, Transient
from pacsnode.peers import Peer
from pacsnode.receive.commitment import EXPLICIT_VR, Result, encode
from pacsnode.settings import Settings
from tests.archive import homes
from tests.deliver.archives import ArchivePeer, How
from tests.receive.commitments import Site

PACS = "archive"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return homes.home(tmp_path)


@pytest.fixture
def kept(settings: Settings) -> Iterator[Confirmations]:
    with closing(Confirmations(settings.index_db)) as made:
        yield made


def images(count: int) -> list[Asked]:
    return [Asked(homes.CT, f"1.2.{number}", f"hash {number}") for number in range(count)]


def ask(kept: Confirmations, archive: ArchivePeer, asked: list[Asked], **values: object) -> proof.Outcome:
    peer = Peer.model_validate(
        {"name": PACS, "ae_title": archive.ae_title, "host": "127.0.0.1", "port": archive.port or None} | values
    )
    return proof.ask(peer, proof.Asker("PACSNODE", NO_CREDENTIALS, kept, lambda: False), iter(asked))


def said(settings: Settings) -> dict[str, int]:
    """Failure by SOP Instance UID."""
    found = homes.rows(settings, "SELECT sop_instance_uid, failure FROM confirmations WHERE archive = ?", PACS)
    return {str(uid): int(str(failure)) for uid, failure in found}


@pytest.mark.parametrize("how", ["same", "early"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_an_answer_on_the_same_association_is_kept(
    settings: Settings, kept: Confirmations, how: How, syntax: str
) -> None:
    with ArchivePeer(has={"1.2.0", "1.2.2"}, how=how, syntaxes=[syntax]).running() as archive:
        outcome = ask(kept, archive, images(3))
    assert outcome == proof.Outcome(asked=3, unanswered=0)
    assert said(settings) == {"1.2.0": 0, "1.2.1": 0x0112, "1.2.2": 0}
    assert archive.told == [0]
    assert kept.waiting(PACS) == set()
    hashes = homes.rows(settings, "SELECT dataset_sha256 FROM confirmations ORDER BY sop_instance_uid")
    assert hashes == [("hash 0",), ("hash 1",), ("hash 2",)]


def test_many_images_are_several_questions_on_one_association(settings: Settings, kept: Confirmations) -> None:
    with ArchivePeer().running() as archive:
        assert ask(kept, archive, images(1100)) == proof.Outcome(asked=1100, unanswered=0)
    assert [len(asked) for asked in archive.asked] == [500, 500, 100]
    assert len(said(settings)) == 1100
    assert archive.told == [0, 0, 0]


def test_an_image_that_the_archive_does_not_speak_of_is_not_confirmed(settings: Settings, kept: Confirmations) -> None:
    with ArchivePeer(forget={"1.2.1"}).running() as archive:
        ask(kept, archive, images(2))
    assert said(settings) == {"1.2.0": 0}


@pytest.mark.parametrize("how", ["abort", "release"])
def test_an_archive_that_leaves_without_an_answer_may_still_give_it(
    settings: Settings, kept: Confirmations, how: How
) -> None:
    with ArchivePeer(how=how).running() as archive:
        assert ask(kept, archive, images(2)) == proof.Outcome(asked=2, unanswered=1)
    assert said(settings) == {}
    assert kept.waiting(PACS) == {"1.2.0", "1.2.1"}


def test_an_archive_that_is_silent_is_not_waited_for_long(settings: Settings, kept: Confirmations) -> None:
    with ArchivePeer(how="silent").running() as archive:
        assert ask(kept, archive, images(1)) == proof.Outcome(asked=1, unanswered=1)
    assert said(settings) == {}


def test_an_answer_on_an_association_of_the_archive_is_kept(settings: Settings, kept: Confirmations) -> None:
    with Site(settings).running(may=frozenset()) as site, ArchivePeer(has={"1.2.0"}, how="later").running() as archive:
        archive.calls = "127.0.0.1", site.port, "PACSNODE"
        assert ask(kept, archive, images(2)) == proof.Outcome(asked=2, unanswered=1)
        archive.wait()
        assert said(settings) == {"1.2.0": 0, "1.2.1": 0x0112}
        assert archive.told == [0]


@pytest.mark.parametrize(
    ("caller", "event_type", "instance", "status"),
    [
        ("ARCHIVE", 1, commitment.COMMITMENT_INSTANCE, 0x0000),
        ("OTHER", 1, commitment.COMMITMENT_INSTANCE, 0x0115),
        ("ARCHIVE", 3, commitment.COMMITMENT_INSTANCE, 0x0113),
        ("ARCHIVE", 1, "1.2.3", 0x0112),
    ],
)
def test_a_result_is_taken_from_who_was_asked_also_where_he_proposes_no_role(
    settings: Settings, kept: Confirmations, caller: str, event_type: int, instance: str, status: int
) -> None:
    transaction_uid = kept.ask(PACS, images(1))
    _, data_set = encode(transaction_uid, [Result(images(1)[0].reference, 0)], EXPLICIT_VR)
    contexts = ((commitment.COMMITMENT, (EXPLICIT_VR,)),)
    with (
        Site(settings).running(may=frozenset()) as site,
        Association.request("127.0.0.1", site.port, caller, "PACSNODE", contexts) as association,
    ):
        told = association.event_report(commitment.COMMITMENT, instance, event_type, data_set)
        assert told.code == status
        assert association.event_report(commitment.COMMITMENT, instance, event_type, b"\x08\0\x99\x11SQ").code != 0
    assert said(settings) == ({"1.2.0": 0} if status == 0 else {})


def test_a_question_that_is_refused_is_asked_again(settings: Settings, kept: Confirmations) -> None:
    with (
        ArchivePeer(how="refuse").running() as archive,
        pytest.raises(Permanent, match="does not take a storage commitment request: 0x0110"),
    ):
        ask(kept, archive, images(1))
    assert kept.waiting(PACS) == set()


def test_a_peer_that_is_no_archive_says_so(settings: Settings, kept: Confirmations) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = ArchivePeer(port=unused.getsockname()[1])
        with pytest.raises(Transient):
            ask(kept, closed, images(1))
    with pytest.raises(Permanent, match="it has no port"):
        ask(kept, closed, images(1), port=None)
    assert ask(kept, closed, []) == proof.Outcome()
    assert kept.waiting(PACS) == set()
