"""TLS by BCP 195 (PS3.15 B.12): TLS 1.2 and later, forward secrecy and AEAD suites alone, certificates that bind.

In: PEM files and what a peer's certificate must be. Out: contexts for both sides, who a peer proved to be, until when
a certificate is valid. Opens no connection; a private key never leaves OpenSSL.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from pacsnode.errors import ConfigError, Permanent
from pacsnode.peers import Peer
from pacsnode.settings import Settings
from pacsnode.telemetry import Log

log = Log(__name__)

ClientCertificate = Literal["required", "optional", "none"]

_SUITES_TLS_1_2: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!kRSA"
"""RFC 9325 4.2. Those of TLS 1.3 are all good ones, and OpenSSL chooses them by itself."""
_VERIFY: Final[dict[ClientCertificate, ssl.VerifyMode]] = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}
FINGERPRINT: Final = re.compile(r"([0-9a-f]{2}:?){31}[0-9a-f]{2}", re.ASCII | re.IGNORECASE)
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class Certificate:
    """Whom a verified certificate names: the subject's common name, SHA-256 of the whole in lower case hex."""

    common_name: str
    fingerprint: str

    def is_named(self, wanted: str) -> bool:
        """Whether this is the certificate that a peer's `certificate:` means: a fingerprint or a common name."""
        if FINGERPRINT.fullmatch(wanted):
            return wanted.replace(":", "").lower() == self.fingerprint
        return bool(wanted) and wanted == self.common_name

    def __str__(self) -> str:
        return f"{self.common_name[:64]!r} (SHA-256 {self.fingerprint})"


@dataclass(frozen=True)
class Credentials:
    """PEM files: our certificate (with its chain), its key, the authorities whose certificates we believe."""

    certificate: Path | None = None
    key: Path | None = None
    authorities: Path | None = None

    def server_context(self, client_certificate: ClientCertificate) -> ssl.SSLContext:
        """A context to accept with. Raises ConfigError for a file that is not what it should be."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        context.verify_mode = _VERIFY[client_certificate]
        self._load(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A context to ask with; peers' certificates must come from our authorities. Raises ConfigError."""
        if self.authorities is None:
            raise ConfigError("needed to know a peer's certificate", where="PACSNODE_TLS_CA")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._load(context)
        return context

    def web_context(self) -> ssl.SSLContext:
        """A context for HTTPS: beside our authorities those of the system are believed. Raises ConfigError."""
        context = ssl.create_default_context()
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_ciphers(_SUITES_TLS_1_2)
        if self.certificate is not None:
            try:
                # A key with a password would ask for it on a terminal that a service does not have.
                context.load_cert_chain(self.certificate, self.key, password=lambda: b"")
            except OSError as error:
                raise ConfigError(
                    f"cannot be used with its key {self.key}: {_why(error)}", where=str(self.certificate)
                ) from None
        if self.authorities is not None:
            try:
                context.load_verify_locations(self.authorities)
            except OSError as error:
                raise ConfigError(
                    f"no certificates of authorities: {_why(error)}", where=str(self.authorities)
                ) from None

    def files(self) -> tuple[Path, ...]:
        """The files that are set."""
        return tuple(path for path in (self.certificate, self.key, self.authorities) if path is not None)

    def toward(self, peer: Peer) -> Outgoing | None:
        """How to reach a peer over TLS; None for one without `tls: true`. Raises ConfigError."""
        if not peer.tls:
            return None
        context = self.client_context()
        context.check_hostname = peer.certificate is None
        return Outgoing(context, peer.host, peer.certificate or "")


NO_CREDENTIALS: Final = Credentials()


def credentials(settings: Settings) -> Credentials:
    """Those of this node."""
    return Credentials(settings.tls_certificate, settings.tls_key, settings.tls_ca)


@dataclass(frozen=True)
class Outgoing:
    """TLS to one peer. `certificate` is its common name or fingerprint; "": its certificate must name `host`."""

    context: ssl.SSLContext
    host: str
    certificate: str = ""

    def check(self, presented: Certificate | None) -> None:
        """Raises Permanent where another than the expected one answered."""
        if self.certificate and (presented is None or not presented.is_named(self.certificate)):
            raise Permanent(f"the peer shows the certificate {presented}, not {self.certificate}: who answers there?")


class Incoming:
    """The context to accept with, made anew when a file changes: the next handshake has the new certificate."""

    def __init__(self, credentials: Credentials, client_certificate: ClientCertificate) -> None:
        self._credentials = credentials
        self._client_certificate: ClientCertificate = client_certificate
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._context = credentials.server_context(client_certificate)

    def context(self) -> ssl.SSLContext:
        """The context for one handshake; the last good one where the files are not right now."""
        with self._lock:
            signature = self._signature()
            if signature != self._seen:
                self._seen = signature
                self._renew()
            return self._context

    def reload(self) -> None:
        """Read the files again, changed or not."""
        with self._lock:
            self._seen = self._signature()
            self._renew()

    def _renew(self) -> None:
        try:
            self._context = self._credentials.server_context(self._client_certificate)
            log.info("TLS certificate taken over")
        except ConfigError as error:
            log.error("TLS certificate not taken over; the last good one stays", problem=str(error))

    def _signature(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stat(path) for path in self._credentials.files())


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def presented_by(connection: ssl.SSLSocket) -> Certificate | None:
    """The certificate that the other side was verified by; None where it showed none."""
    encoded = connection.getpeercert(binary_form=True)
    if not encoded:
        return None
    subject = (connection.getpeercert() or {}).get("subject", ())
    names = [str(pair[1]) for part in subject for pair in part if pair[0] == "commonName"]
    return Certificate(names[-1] if names else "", hashlib.sha256(encoded).hexdigest())


def why_failed(error: OSError) -> str:
    """Why a handshake failed, for the log and the operator."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    return _why(error)


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return error.strerror or type(error).__name__


def valid_until(path: Path) -> datetime:
    """When the first certificate of a PEM file ends. Raises ConfigError for a file that has none."""
    try:
        found = _PEM.search(path.read_text(encoding="ascii", errors="replace"))
        if found is None:
            raise ConfigError("no PEM certificate in this file", where=str(path))
        return _not_after(ssl.PEM_cert_to_DER_cert(found.group()))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (ValueError, IndexError):
        raise ConfigError("a certificate that cannot be read", where=str(path)) from None


def _not_after(certificate: bytes) -> datetime:
    """RFC 5280 4.1: version, serialNumber, signature, issuer, validity. The ssl module reads only a peer's own."""
    to_be_signed = _children(_children(certificate)[0][1])[0][1]
    fields = _children(to_be_signed)
    validity = fields[4 if fields[0][0] == 0xA0 else 3][1]  # a version 1 certificate does not say its version
    kind, text = _children(validity)[1]
    form = "%y%m%d%H%M%SZ" if kind == 0x17 else "%Y%m%d%H%M%SZ"  # UTCTime until 2049, then GeneralizedTime
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC)


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of the DER values that follow one another in `data`."""
    found, at = [], 0
    while at < len(data):
        tag, length, start = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            start, length = start + size, int.from_bytes(data[start : start + size], "big")
        if start + length > len(data):
            raise ValueError("a DER value that is cut off")
        found.append((tag, data[start : start + length]))
        at = start + length
    return found
