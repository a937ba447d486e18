"""Who may talk to the node and whom the node may talk to: the `peers:` part of routing_rules.yaml.

In: the file; then the calling AE title and address of an association. Out: the peer, or None. A peer is known by both:
the same AE title in two networks is two peers. Reads no other part of the file; does no I/O but the name look-up of
peers whose `host` is a name.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_core import PydanticCustomError

from pacsnode import yamlfile
from pacsnode.destination_types import DestinationType, checked_path, checked_url, secret_mistakes, type_mistakes
from pacsnode.dicom import charsets
from pacsnode.durations import PAIR, PAIR_LENGTH, Clock
from pacsnode.handover import RESULT_KINDS, Form, ReportForm, ResultCharset, ResultKind, SegmentationForm
from pacsnode.patterns import fold
from pacsnode.yamlfile import IMPLIED, Document, Items, Loc, Problem, Record, nearest, wrong

SENDER = "sender"
"""In `send_to`: the peer that sent the case's first selected instance."""
ANY_AE_TITLE = "*"
QUARANTINE = "quarantine"
"""The peer of what unknown callers sent (PACSNODE_UNKNOWN_CALLERS); no peer of the file has this name."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Service = Literal["store", "answer", "query", "retrieve", "commit"]
Proof = Literal["commitment", "query", "none"]
"""By what a destination shows that it has what it took; left out: the best of these that it offers."""
LOOPBACK = ipaddress.IPv4Address("127.0.0.1")
IPV6_LOOPBACK = ipaddress.IPv6Address("::1")

HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.ASCII | re.IGNORECASE)


class _Absent(str):
    """In place of a key that is not there; an empty text is a mistake of its own."""


class Wants(Record):
    """In what form a peer wants results: not every system reads every one (PS3.3 A.35, A.51; C.12.1.1.2)."""

    sr: ReportForm = "comprehensive-3d"
    seg: SegmentationForm = "binary"
    charset: ResultCharset = "utf-8"

    @property
    def form(self) -> Form:
        """As the stages know it."""
        return Form(self.sr, self.seg, self.charset)


class Sends(Record):
    """How a peer may be sent to: associations at once, bytes a second over all of them, hours."""

    at_once: int = Field(default=1, ge=1, le=64)
    kilobytes_per_s: int | None = Field(default=None, ge=1, le=10_000_000)
    between: Annotated[Items[Clock], PAIR_LENGTH, PAIR] | None = None

    @field_validator("between")
    @classmethod
    def _some_hours(cls, given: tuple[str, str] | None) -> tuple[str, str] | None:
        if given is not None and given[0] == given[1]:
            raise wrong("wrong-value", "from and to are the same; leave `between` out for the whole day")
        return given


class Peer(Record):
    """One peer as the file has it; `name` is its key there. One whose type is not `dimse` never calls us."""

    name: Annotated[str, IMPLIED]
    type: DestinationType = "dimse"
    ae_title: str = Field(default=_Absent(), validate_default=True)
    host: str = Field(default=_Absent(), validate_default=True)
    port: int | None = Field(default=None, ge=1, le=65535)
    may: Items[Service] = ()
    issuer: Annotated[str, StringConstraints(max_length=64)] = ""
    charset: str = ""
    accepts: Items[ResultKind] = RESULT_KINDS
    wants: Wants = Wants()
    investigational: bool = False
    reply_to: str | None = None
    tls: bool = False
    certificate: Annotated[str, StringConstraints(min_length=1, max_length=95)] | None = None
    associations: int | None = Field(default=None, ge=1, le=2000)
    sends: Sends = Sends()
    proof: Proof | None = None
    url: Annotated[str, AfterValidator(checked_url)] | None = None
    folder: Annotated[str, AfterValidator(checked_path)] | None = None
    user: Annotated[str, StringConstraints(min_length=1, max_length=256, pattern="^[^:\x00-\x1f]+$")] | None = None
    secret_file: Annotated[str, AfterValidator(checked_path)] | None = None
    token_url: Annotated[str, AfterValidator(checked_url)] | None = None
    client_id: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    scope: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = None

    @field_validator("ae_title")
    @classmethod
    def _ae_title(cls, given: str) -> str:
        title = given.strip(" ")
        if not 1 <= len(title) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
            raise wrong(  # PS3.5 6.2, VR AE
                "ae-title", f'{given!r} is no AE title: 1 to 16 ASCII characters without \\, or "*" for any'
            )
        return title

    @field_validator("host")
    @classmethod
    def _host(cls, given: str) -> str:
        if network_of(given) is not None:
            return given
        if HOST_NAME.fullmatch(given) and not re.fullmatch("[0-9.]+", given):
            return given
        try:
            meant = ipaddress.ip_network(given, strict=False)
        except ValueError:
            forms = "an address (192.0.2.5), a network (192.0.2.0/24) or a name (pacs.example.org)"
            raise wrong("host", f"expected {forms}, found {given[:60]!r}") from None
        raise wrong("host", f"{given} is one machine in a network; did you mean {meant}?")

    @field_validator("ae_title", "host", mode="wrap")
    @classmethod
    def _of_dimse(cls, given: object, check: ValidatorFunctionWrapHandler, others: ValidationInfo) -> str:
        """Only a peer of another type has none."""
        if not isinstance(given, _Absent):
            return str(check(given))
        if others.data.get("type", "dimse") == "dimse":
            raise PydanticCustomError("missing", "Field required")
        return ""

    @field_validator("charset")
    @classmethod
    def _charset(cls, given: str) -> str:
        if given and not charsets.is_known(given):
            forms = "ISO_IR 192 (UTF-8), ISO 2022 IR 149 (Korean), ISO_IR 100 (Latin-1), GB18030"
            raise wrong("charset", f"{given!r} is no Specific Character Set; expected a term such as {forms}")
        return given

    @field_validator("certificate")
    @classmethod
    def _certificate(cls, given: str | None, others: ValidationInfo) -> str | None:
        if given is not None and not others.data.get("tls"):
            raise wrong("no-tls", "a certificate is shown over TLS alone; add tls: true")
        return given

    @property
    def obstacle(self) -> str:
        """Why results cannot be sent to this peer, "" where they can."""
        if self.type != "dimse":
            return ""
        if self.ae_title == ANY_AE_TITLE:
            return 'its ae_title is "*"'
        network = network_of(self.host)
        if network is not None and network.num_addresses > 1:
            return f"its host {self.host} is a network"
        return "" if self.port else "it has no port"


def _with_names(raw: object) -> object:
    """Give each peer its key as `name`; a `name` in the file itself is a mistake."""
    if not isinstance(raw, dict):
        return raw
    for name, entry in raw.items():
        if isinstance(entry, dict) and "name" in entry:
            raise wrong("unknown-key", f"peer {name} has a `name`; the name is the key before it, leave the line out")
    return {key: {**entry, "name": key} if isinstance(entry, dict) else entry for key, entry in raw.items()}


Peers = Annotated[dict[str, Peer], BeforeValidator(_with_names)]


class PeersFile(Record):
    """The file as those see it who need only its peers."""

    model_config = ConfigDict(extra="ignore")

    version: Literal[1]
    peers: Peers


def address_of(text: str) -> Address | None:
    """An address to compare: no zone, IPv4 out of IPv4-mapped IPv6, ::1 as 127.0.0.1."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return LOOPBACK if address == IPV6_LOOPBACK else address


def network_of(host: str) -> Network | None:
    """The network that a `host` of the file names (one address: a network of one); None for a host name."""
    address = address_of(host)
    try:
        return ipaddress.ip_network(host if address is None else address)
    except ValueError:
        return None


def resolve(host: str) -> frozenset[Address]:
    """Addresses of a host name now; none where it cannot be resolved, and then the peer is not known now."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return frozenset()
    return frozenset(address for entry in found if (address := address_of(str(entry[4][0]))) is not None)


@dataclass(frozen=True)
class Directory:
    """All peers of the site, by name in the file's order."""

    peers: Mapping[str, Peer]
    resolve: Callable[[str], frozenset[Address]] = resolve

    def by_name(self, name: str) -> Peer | None:
        """The peer of that name."""
        return self.peers.get(name)

    def find(self, calling_ae_title: str, address: str) -> Peer | None:
        """The peer that calls: AE title and address both match. An AE title before `*`, then the smaller network."""
        return next(iter(self.matching(calling_ae_title, address)), None)

    def matching(self, calling_ae_title: str, address: str) -> list[Peer]:
        """Every peer that matches as well as the best one: several where their certificates tell them apart.

        Never a wider one beside them: who fails at the certificate of one entry is not to slip in by another.
        """
        title, source = calling_ae_title.strip(" \0"), address_of(address)
        if source is None:
            return []
        matching: list[tuple[bool, int, Peer]] = []
        for peer in self.peers.values():
            if peer.type != "dimse" or peer.ae_title not in (title, ANY_AE_TITLE):
                continue
            network = network_of(peer.host)
            if network is not None and source in network:
                wide = network.max_prefixlen - network.prefixlen
                matching.append((peer.ae_title == ANY_AE_TITLE, wide, peer))
            elif network is None and source in self.resolve(peer.host):
                matching.append((peer.ae_title == ANY_AE_TITLE, 0, peer))
        best = min((found[:2] for found in matching), default=None)
        return [peer for *rank, peer in matching if tuple(rank) == best]

    def destination(self, name: str, sender: str) -> Peer | None:
        """The peer that a word of `send_to` means for a case whose images came from the peer `sender`."""
        peer = self.peers.get(sender if name == SENDER else name)
        if name == SENDER and peer is not None and peer.reply_to:
            return self.peers.get(peer.reply_to)
        return peer


def load(path: Path) -> Directory:
    """The peers of the file at `path`; its other parts are not looked at. Raises ConfigError with all mistakes."""
    return of_document(yamlfile.load(path))


def of_document(document: Document) -> Directory:
    """As `load`, of a file that was read."""
    peers = yamlfile.validate(document, PeersFile).peers
    if problems := mistakes(peers):
        raise document.error(problems)
    return Directory(peers)


def mistakes(peers: Mapping[str, Peer]) -> list[Problem]:
    """What is wrong between the peers, each by itself being right."""
    problems: list[Problem] = []
    first_of: dict[object, str] = {}
    for name, peer in peers.items():
        here: Loc = ("peers", name)
        if fold(name) in ("", SENDER, QUARANTINE) or len(name) > 64:
            told = f"a peer cannot be called {name[:64]!r}; 1 to 64 letters, not `{SENDER}`, not `{QUARANTINE}`"
            problems.append(Problem(here, told, "name", at="key"))
        twin = first_of.setdefault(fold(name), name)
        if twin != name:  # conditions compare folded text, so `peer: xray-1` would hold for both
            problems.append(
                Problem(
                    here, f"{name} and {twin} differ only in punctuation or case; rename one", "same-name", at="key"
                )
            )
        problems += type_mistakes(peer.type, peer.model_fields_set, here)
        problems += secret_mistakes(peer.model_fields_set, [u for u in (peer.url, peer.token_url) if u], here)
        if peer.type != "dimse" or not peer.ae_title or not peer.host:
            continue
        place = peer.ae_title, network_of(peer.host) or peer.host.casefold()
        twin = first_of.setdefault((*place, peer.certificate), name)
        beside = peers[first_of.setdefault(place, name)]
        if twin == name and beside is not peer and not (beside.certificate and peer.certificate):
            twin = beside.name
        if twin != name:
            problems.append(
                Problem(
                    here, f"has the ae_title and host of {twin}: nobody could tell them apart", "same-peer", at="key"
                )
            )
        problems += _reply_mistakes(peer, peers)
        if {"store", "answer"} <= set(peer.may):
            told = "`store` and `answer` exclude each other: what it sends is either an image or a result"
            problems.append(Problem((*here, "may"), told, "store-and-answer"))
    return problems


def _reply_mistakes(peer: Peer, peers: Mapping[str, Peer]) -> list[Problem]:
    if peer.reply_to is None:
        return []
    here: Loc = ("peers", peer.name, "reply_to")
    target = peers.get(peer.reply_to)
    if target is None:
        return [Problem(here, f"there is no peer {peer.reply_to}{nearest(peer.reply_to, peers)}", "unknown-peer")]
    if target.obstacle:
        return [Problem(here, f"nothing can be sent to {target.name}: {target.obstacle}", "no-destination")]
    return []
