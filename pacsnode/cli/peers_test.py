"""Commands about one peer as a destination: peers show (what is known of it), peers test (what it says now).

A test sends nothing but with `--send`, and then one object that holds no patient.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from pacsnode.cli.looking import JSON_OPTION, local_time, ready
from pacsnode.errors import ConfigError, PacsnodeError

if TYPE_CHECKING:
    from pacsnode.deliver.ladder import Fact
    from pacsnode.peers import Peer
    from pacsnode.settings import Settings

PLAIN: Final = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
COMPRESSED: Final = (
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.91",
)
"""JPEG, JPEG-LS and JPEG 2000 lossless, RLE; JPEG and JPEG 2000 with loss."""
_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
RESULTS: Final = tuple(
    _STORAGE + end for end in ("88.34", "88.33", "88.22", "66.4", "66.7", "7", "104.1", "88.59", "11.1")
)
"""SR in three forms, two kinds of SEG, secondary capture, PDF, key objects, presentation state."""
IMAGES: Final = tuple(_STORAGE + end for end in ("1", "1.1", "1.2", "2", "4", "6.1", "9.1.1"))
"""CR, DX, MG, CT, MR, US, 12-lead ECG."""
TEST_CLASS: Final = _STORAGE + "7"


def peers_show(name: str = typer.Argument(help="A peer of the rules file."), as_json: bool = JSON_OPTION) -> None:
    """Show a peer as the rules file has it, and what it takes and refuses, as learned from its answers."""
    from contextlib import closing

    from pacsnode.cli.peers_file import lines_of
    from pacsnode.deliver.learned import Learned
    from pacsnode.settings import load

    settings = ready(load())
    peer = _peer(settings, name)
    with closing(Learned(settings.node_db)) as learned:
        facts = learned.of(peer)
    if as_json:
        typer.echo(json.dumps([vars(fact) for fact in facts], indent=1))
        return
    typer.echo(lines_of(peer, ""), nl=False)
    _tell(facts)
    if facts:
        newest = max(fact.learned_utc_us for fact in facts)
        typer.echo(f"learned from its answers, the newest of {local_time(settings, newest)}")
    else:
        typer.echo(f"nothing is known yet of what it takes; `pacsnode peers test {name}` asks it")


def peers_test(
    name: str = typer.Argument(help="A peer of the rules file."),
    send: bool = typer.Option(
        False, "--send", help="Send a test picture without a patient, and ask whether it is held."
    ),
) -> None:
    """Try a destination: is it there, does it let us in, what does it take; exit code 1 when something fails."""
    from pacsnode.deliver.ways import WAYS
    from pacsnode.dimse.tls import credentials
    from pacsnode.settings import load

    settings = ready(load())
    peer = _peer(settings, name)
    try:
        look = WAYS[peer.type].look
        if look is None:
            _ask(settings, peer)
        else:
            typer.echo(f"{name} {look(peer, credentials(settings))}")
        if send:
            _send(settings, peer)
    except PacsnodeError as error:
        typer.echo(f"{name}: {error}", err=True)
        raise typer.Exit(1) from None


def _peer(settings: Settings, name: str) -> Peer:
    from pacsnode import peers

    directory = peers.load(settings.rules)
    found = directory.by_name(name)
    if found is None:
        raise ConfigError(f"no peer {name} in {settings.rules}; there are {', '.join(directory.peers)}")
    return found


def _ask(settings: Settings, peer: Peer) -> None:
    """C-ECHO, then what it takes of what a node sends; the answers are remembered."""
    from contextlib import closing

    from pacsnode.deliver.learned import Learned
    from pacsnode.dimse.association import ECHO_CONTEXT, Association, contexts_for
    from pacsnode.dimse.tls import credentials
    from pacsnode.errors import Permanent

    if peer.obstacle or peer.port is None:
        raise Permanent(f"nothing can be sent to it: {peer.obstacle}")
    where = peer.host, peer.port, settings.ae_title, peer.ae_title
    tls = credentials(settings).toward(peer)
    with Association.request(*where, [ECHO_CONTEXT], tls=tls) as association:
        status = association.echo()
    typer.echo(f"{peer.name} answers C-ECHO with {status}")
    if not status.is_success:
        raise Permanent("it does not answer C-ECHO with success")
    pairs = [(sop_class, syntax) for sop_class in RESULTS for syntax in PLAIN]
    pairs += [(sop_class, syntax) for sop_class in IMAGES for syntax in (*PLAIN, *COMPRESSED)]
    with Association.request(*where, contexts_for(pairs), tls=tls) as association:
        answers = dict.fromkeys(association.accepted, "") | dict(association.refused)
    with closing(Learned(settings.node_db)) as learned:
        learned.learn(peer, answers)
        _tell(learned.of(peer))


def _tell(facts: Iterable[Fact]) -> None:
    """One line a SOP class: the transfer syntaxes that are taken, or why none is."""
    from pydicom.uid import UID

    by_class: dict[str, list[Fact]] = {}
    for fact in facts:
        by_class.setdefault(fact.sop_class_uid, []).append(fact)
    for sop_class, said in by_class.items():
        taken = [UID(fact.transfer_syntax_uid).name for fact in said if not fact.reason]
        if taken:
            typer.echo(f"  takes    {UID(sop_class).name}: {', '.join(taken)}")
        else:
            typer.echo(f"  refuses  {UID(sop_class).name}: {said[0].reason}")


def _send(settings: Settings, peer: Peer) -> None:
    """A test object by the way that results go, through an outbox that is thrown away."""
    from pacsnode import schema
    from pacsnode.archive.confirmations import Asked
    from pacsnode.database import connect, transaction
    from pacsnode.deliver.debts import Debt, owe
    from pacsnode.deliver.outbox import Outbox
    from pacsnode.deliver.proving import Subject
    from pacsnode.deliver.ready import Route
    from pacsnode.deliver.ways import WAYS
    from pacsnode.dimse.tls import credentials
    from pacsnode.errors import Permanent
    from pacsnode.infer.converting import convert

    with tempfile.TemporaryDirectory(prefix="pacsnode-test-") as folder:
        aside = settings.model_copy(update={"home": Path(folder)})
        schema.migrate(aside)
        path = Path(folder) / "test.dcm"
        study, series, uid = _write_test_object(path)
        connection = connect(aside.node_db, "FULL")
        with transaction(connection):
            owe(connection, "", study, 10, [Debt(peer.name, (uid,))])
        connection.close()
        outbox = Outbox(aside.node_db, 86_400)
        route = Route(settings.ae_title, lambda _: path, lambda *_: "", lambda: False, credentials(settings), convert)
        owed = outbox.claim(peer.name)
        WAYS[peer.type].deliver(outbox, owed, peer, route)
        outbox.conclude(owed)
        (row,) = outbox.listing()
        outbox.close()
        if row.state != "sent":
            raise Permanent(f"the test object {uid} was not taken: {row.reason}")
        typer.echo(f"test object {uid}: taken{f', {row.reason}' if row.reason else ''}")
        subject = Subject(Asked(TEST_CLASS, uid, ""), study, series)
        is_dimse = peer.type == "dimse"
        missing = _missing(settings, peer, study) if is_dimse else WAYS[peer.type].confirm([subject], peer, route)[uid]
        if missing and not is_dimse:
            raise Permanent(f"the test object {uid} is not proven: {missing}")
        typer.echo(f"test object {uid}: {missing or 'held by the destination'}")


def _missing(settings: Settings, peer: Peer, study: str) -> str:
    """Why a C-FIND does not prove that the study of the test object is held; "" where it does."""
    from pacsnode.dimse.find import Question, count_images
    from pacsnode.dimse.tls import credentials

    try:
        count = count_images(Question(study), peer, settings.ae_title, credentials(settings))
    except PacsnodeError as error:
        return f"whether it is held cannot be asked by C-FIND ({error})"
    return "" if count else "a C-FIND does not show it"


def _write_test_object(path: Path) -> tuple[str, str, str]:
    """A grey secondary capture that names no patient; its study, its series and its own UID."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = TEST_CLASS, generate_uid(prefix=None)
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(prefix=None), generate_uid(prefix=None)
    made.PatientName, made.PatientID = "TEST^PACSNODE", "PACSNODE-TEST"
    for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"):
        setattr(made, keyword, "")
    made.ReferringPhysicianName, made.Modality, made.ConversionType = "", "OT", "SYN"
    made.StudyDescription = made.SeriesDescription = "pacsnode peers test"
    made.SeriesNumber, made.InstanceNumber, made.Laterality, made.PatientOrientation = 1, 1, "", ""
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.Rows, made.Columns, made.BitsAllocated, made.BitsStored, made.HighBit = 64, 64, 8, 8, 7
    made.PixelData = bytes((row * 2 + column * 2) % 256 for row in range(64) for column in range(64))
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.save_as(path, enforce_file_format=True)
    return str(made.StudyInstanceUID), str(made.SeriesInstanceUID), str(made.SOPInstanceUID)
