"""How an association begins on the side that asks: TCP, TLS, the answer to A-ASSOCIATE-RQ, each failure in words.

In: where the peer is, its answer. Out: a connected socket, what it accepts, what it refuses and why. Raises Transient
for what a later try may cure, Permanent for what a person must.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Final

from pacsnode.dimse import associate, pdus
from pacsnode.dimse.pdus import ProtocolViolation
from pacsnode.dimse.tls import Outgoing, why_failed
from pacsnode.dimse.transport import Transport
from pacsnode.errors import Permanent, Transient

_REJECTIONS: Final = {
    (1, 2): "it does not support the DICOM application context",
    (1, 3): "it does not know our AE title {calling}: register it at the peer",
    (1, 7): "it is not called {called}: check the AE title of the peer",
    (2, 2): "it does not support our protocol version",
    (3, 1): "it is congested for the moment",
    (3, 2): "it has as many associations as it allows",
}
"""A-ASSOCIATE-RJ source and reason (PS3.8 table 9-21) as a sentence for the person who must act."""

_RESULTS: Final = {
    1: "refused by its user",
    2: "refused without a reason",
    associate.ABSTRACT_SYNTAX_NOT_SUPPORTED: "the SOP class is not supported",
    associate.TRANSFER_SYNTAXES_NOT_SUPPORTED: "the transfer syntax is not supported",
}
"""Results of a presentation context (PS3.8 9.3.3.2) but acceptance."""


def connect(host: str, port: int, timeout_s: float) -> socket.socket:
    """A TCP connection. Raises Transient."""
    try:
        return socket.create_connection((host, port), timeout=timeout_s)
    except socket.gaierror as error:
        raise Transient(f"the host name {host} cannot be resolved: {error.strerror}") from error
    except TimeoutError:
        raise Transient(f"{host}:{port} does not answer: is the machine on, and does the firewall let us?") from None
    except OSError as error:
        raise Transient(f"no connection to {host}:{port}: {error.strerror}; does a DICOM service run there?") from error


def secure(transport: Transport, tls: Outgoing, timeout_s: float) -> None:
    """The TLS handshake. Raises Transient, Permanent."""
    try:
        transport.secure(tls.context, wait_s=timeout_s, server_hostname=tls.host)
    except TimeoutError:
        raise Transient("the peer does not answer the TLS handshake: is this its port for TLS?") from None
    except ssl.SSLCertVerificationError as error:
        raise Permanent(f"the peer is not believed, {why_failed(error)}") from error
    except OSError as error:
        raise Transient(f"no TLS with the peer: {why_failed(error)}; is this its port for TLS?") from error
    tls.check(transport.certificate)


def accepted_items(kind: int, answer: bytes, calling: str, called: str) -> associate.Items:
    """The items of an A-ASSOCIATE-AC. Raises Transient, Permanent, ProtocolViolation for any other PDU."""
    if kind == pdus.ASSOCIATE_AC and len(answer) >= associate.ITEMS_OFFSET:
        return associate.decode_items(answer[associate.ITEMS_OFFSET :])
    if kind == pdus.ABORT:
        raise Transient("the peer aborted the association request")
    if kind != pdus.ASSOCIATE_RJ or len(answer) != 10:
        raise ProtocolViolation("the peer answered the association request with another PDU", pdus.UNEXPECTED_PDU)
    result, source, reason = answer[7], answer[8], answer[9]
    why = _REJECTIONS.get((source, reason), f"it gives no reason (source {source}, reason {reason})")
    text = "the peer rejected the association: " + why.format(calling=calling, called=called)
    raise Permanent(text) if result == 1 else Transient(text)


def refusals(contexts: Sequence[tuple[str, tuple[str, ...]]], results: Mapping[int, int]) -> dict[tuple[str, str], str]:
    """By (abstract syntax, transfer syntax), why not; contexts that the peer does not speak of are left out."""
    return {
        (abstract_syntax, transfer_syntax): _RESULTS.get(results[context_id], f"result {results[context_id]}")
        for context_id, (abstract_syntax, proposed) in zip(range(1, 256, 2), contexts, strict=False)
        for transfer_syntax in proposed
        if context_id in results
    }
