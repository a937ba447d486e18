"""What flows between the stages: frozen records, no behaviour. Each stage takes one of them and gives the next.

receive → archive: StoreRequest, InstanceWriter, Stored · archive → route: Study, Instance · route → complete: Candidate
complete → infer: Case · encode → archive, deliver: ResultObject
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

Attributes = Mapping[str, tuple[str, ...]]
"""Routing attributes by DICOM keyword: values as text, in order; an absent or empty attribute has no key."""

ResultKind = Literal["sr", "seg", "sc", "pdf", "ko", "pr"]
RESULT_KINDS: tuple[ResultKind, ...] = ("sr", "seg", "sc", "pdf", "ko", "pr")
"""Structured report, segmentation, secondary capture, encapsulated PDF, key object selection, presentation state."""
ReportForm = Literal["comprehensive-3d", "comprehensive", "enhanced"]
SegmentationForm = Literal["binary", "labelmap", "fractional"]
ResultCharset = Literal["utf-8", "korean", "source"]


@dataclass(frozen=True)
class StoreRequest:
    """One C-STORE request, as negotiated and as its command set says (PS3.7 9.1.1).

    `charset`: the Specific Character Set of a data set that declares none, by what is known of the peer. `is_answer`:
    the peer is a vendor's node, and what it stores is no image of a study.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    called_ae_title: str
    address: str
    peer: str
    issuer: str
    charset: str = ""
    is_answer: bool = False


@dataclass(frozen=True)
class Stored:
    """How the archive ended a store: durable in each case."""

    verdict: Literal["stored", "duplicate", "aside"]
    comment: str = ""


class InstanceWriter(Protocol):
    """One object on its way to disk. `commit` or `abort` is called once; `abort` may follow a failed `write`."""

    def write(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Append data set bytes. Raises Rejected (A700) when the disk is full."""

    def commit(self) -> Stored:
        """Return once file and row are durable. Raises Rejected (A700, A900, C000)."""

    def abort(self) -> None:
        """Forget the torn object."""


class ObjectStore(Protocol):
    """What receive needs of the archive."""

    def begin(self, request: StoreRequest) -> InstanceWriter:
        """Open a writer. Raises Rejected (A700) when there is no room."""


@dataclass(frozen=True)
class Instance:
    """One archived instance as the index knows it. `path` is relative to `files/`."""

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    path: str
    dataset_sha256: str
    peer: str
    received_utc_us: int
    received_boot_us: int
    boot_id: str
    attributes: Attributes


@dataclass(frozen=True)
class Study:
    """One study with everything received of it so far; results of ours are not in `instances`."""

    study_instance_uid: str
    issuer: str
    patient_id: str
    conflict: str
    revision: int
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class Clause:
    """One condition of a rule, looked at: `actual` is what the study has, "" with `absent` where it has nothing."""

    attribute: str
    expected: str
    actual: str
    satisfied: bool
    absent: bool = False


@dataclass(frozen=True)
class RuleVerdict:
    """What one rule said to one study, clause by clause (for the image that came nearest to matching).

    `shadow`: the rule sends nothing.
    """

    rule: str
    matched: bool
    reason: str
    clauses: tuple[Clause, ...] = ()
    shadow: bool = False


@dataclass(frozen=True)
class Completion:
    """When a candidate is whole. `missing`: what the rule expects and the study does not have yet, in words.

    `after_release_s`: the quiet time once the sender has ended its associations. `ask_sender`: its count is asked for.
    `at_most_s`: from the last image, after which what is incomplete is run all the same, or kept and an alarm given.
    """

    quiet_s: float
    after_release_s: float | None = None
    ask_sender: bool = False
    at_most_s: float = 86400.0
    then: Literal["run", "keep"] = "keep"
    missing: tuple[str, ...] = ()


LateAction = Literal["rerun", "amend", "ignore"]
OnFailure = Literal["keep", "tell"]
"""Of a case that cannot be analysed: it waits here for a person; its destinations are told too."""


@dataclass(frozen=True)
class Late:
    """What images do that come after a case has started: `within_s` of its start, later ones are ignored."""

    action: LateAction = "rerun"
    within_s: float = 604800.0


@dataclass(frozen=True)
class Candidate:
    """A case that a study may become, not yet known to be whole. `shadow`: nothing of it is ever sent."""

    study_instance_uid: str
    service: str
    rules: tuple[str, ...]
    instances: tuple[str, ...]
    results: tuple[ResultKind, ...]
    send_to: tuple[str, ...]
    priority: int
    completion: Completion
    late: Late = Late()
    shadow: bool = False
    on_failure: OnFailure = "keep"


@dataclass(frozen=True)
class Forward:
    """Images that a rule sends on as they came."""

    rule: str
    instances: tuple[str, ...]
    peers: tuple[str, ...]
    priority: int


@dataclass(frozen=True)
class Decision:
    """All that the rules say to one study at one revision."""

    study_instance_uid: str
    revision: int
    rules_hash: str
    candidates: tuple[Candidate, ...]
    verdicts: tuple[RuleVerdict, ...]
    forwards: tuple[Forward, ...] = ()

    @property
    def is_matched(self) -> bool:
        """Whether some rule takes an image of the study; one in shadow does not count, since nobody hears of it."""
        return any(verdict.matched and not verdict.shadow for verdict in self.verdicts)


@dataclass(frozen=True)
class Case:
    """One study, one service, the instances that the service needs: the unit of work. Its key names its results."""

    key: str
    study_instance_uid: str
    service: str
    rules: tuple[str, ...]
    rules_hash: str
    instances: tuple[str, ...]
    results: tuple[ResultKind, ...]
    started_utc_us: int
    supersedes: str = ""


@dataclass(frozen=True)
class NodeIdentity:
    """Who packages results: General Equipment of every object of ours."""

    ae_title: str
    device_uid: str
    version: str


@dataclass(frozen=True)
class Form:
    """How a destination wants its results; each form has objects, UIDs and series of its own where it matters."""

    sr: ReportForm = "comprehensive-3d"
    seg: SegmentationForm = "binary"
    charset: ResultCharset = "utf-8"

    @property
    def name(self) -> str:
        """For people and file names; "" as shipped."""
        return self.tag("sr")

    def tag(self, kind: ResultKind) -> str:
        """What tells objects of this kind from those of other forms; "" for what is as shipped."""
        concerns = {"sr": ("sr", "seg", "charset"), "seg": ("seg", "charset")}.get(kind, ("charset",))
        return ".".join(getattr(self, one) for one in concerns if getattr(self, one) != getattr(SHIPPED, one))


SHIPPED = Form()


@dataclass(frozen=True)
class EncodeRequest:
    """What encode needs beside the findings. `sources` are Part 10 files of the case's instances, in its order.

    `predecessors`: Part 10 files of the SR that this case supersedes. `unasked`: kinds that are made although no rule
    asks for them; one that cannot be made does not stop the case.
    """

    case: Case
    node: NodeIdentity
    sources: tuple[Path, ...]
    folder: Path
    started: datetime
    predecessors: tuple[Path, ...] = ()
    form: Form = Form()
    unasked: tuple[ResultKind, ...] = ()


@dataclass(frozen=True)
class ResultObject:
    """One encoded result, durable at `path`. `form`: `Form.tag` of its kind."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    path: Path
    form: str = ""
