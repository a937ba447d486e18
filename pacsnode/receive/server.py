"""The listening side: accepts connections and gives each a thread of its own.

In: where to listen, who may associate, the archive. Out: running associations, counters. A silent connection holds
nothing but its own thread, and no more of those than a limit; never polls, never decodes.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from pacsnode.dimse.transport import Transport
from pacsnode.errors import ConfigError
from pacsnode.handover import ObjectStore, Stored, StoreRequest
from pacsnode.receive.admission import Admission, Admitted, Refused
from pacsnode.receive.counters import Counters, Counts
from pacsnode.receive.normalised import Notices
from pacsnode.receive.protocol import AcceptedAssociation, Service, TimeLimits

_log: Final = logging.getLogger(__name__)

_BACKLOG: Final = 256
"""A burst of connections beyond the backlog waits a second for its next SYN."""
_ACCEPT_PAUSE_S: Final = 0.2
_ABORT_GRACE_S: Final = 5.0


@dataclass(frozen=True)
class TlsPort:
    """A port where TLS is spoken from the first byte (PS3.15 B.12). `context` gives the one for the next handshake."""

    port: int
    context: Callable[[], ssl.SSLContext]


@dataclass(frozen=True)
class ListenOptions:
    """Where to listen, and how many associations and connections without one there may be."""

    host: str = "0.0.0.0"  # noqa: S104  # modalities come from the network
    port: int = 104
    associations: int = 100
    unassociated: int = 200
    limits: TimeLimits = field(default_factory=TimeLimits)
    tls: TlsPort | None = None


class Server:
    """A storage SCP. `start` binds and returns, `stop` drains; both may be left to `with`."""

    def __init__(
        self,
        options: ListenOptions,
        admission: Admission,
        store: ObjectStore,
        on_stored: Callable[[StoreRequest, Stored], None] = lambda request, stored: None,
        notices: Notices | None = None,
        on_released: Callable[[str], None] = lambda peer: None,
    ) -> None:
        """`on_released` is called when a peer has ended the last of its associations; it must not raise."""
        self._options = options
        self._on_released = on_released
        self._counters = Counters()
        self._service = Service(admission, store, on_stored, self._counters, options.limits, notices)
        self._lock = threading.Lock()
        self._threads: dict[AcceptedAssociation, threading.Thread] = {}
        self._unassociated: dict[AcceptedAssociation, str] = {}  # to its address, oldest first
        self._associated: dict[AcceptedAssociation, str] = {}  # to its peer
        self._stopping = threading.Event()
        self._port = options.port
        self._tls_port = options.tls.port if options.tls else 0
        self._listeners: list[socket.socket] = []
        self._waker: socket.socket | None = None
        self._acceptor: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on: the one that was found where port 0 was asked for."""
        return self._port

    @property
    def tls_port(self) -> int:
        """The port for TLS, as `port`; 0 where there is none."""
        return self._tls_port

    def counts(self) -> Counts:
        """What was done since the start."""
        return self._counters.snapshot()

    def start(self) -> Self:
        """Listen, in a thread of its own. Raises ConfigError where a port cannot be had."""
        try:
            self._port = self._open(self._options.port)
            if self._options.tls is not None:
                self._tls_port = self._open(self._options.tls.port)
        except ConfigError:
            self._close_listeners()
            raise
        wake, self._waker = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept_loop, args=(wake,), name="accept")
        self._acceptor.start()
        return self

    def stop(self, grace_s: float = 10.0) -> None:
        """Accept nothing more, let each association answer the message it is in, then abort what is left."""
        if self._acceptor is None or self._waker is None:
            return
        self._stopping.set()
        self._waker.close()
        self._acceptor.join()
        self._close_listeners()
        for association in self._running():
            association.finish()
        self._join(time.monotonic() + grace_s)
        left = self._running()
        if left:
            _log.warning("%d associations aborted inside a message", len(left))
        for association in left:
            association.cancel()
        self._join(time.monotonic() + _ABORT_GRACE_S)
        self._acceptor = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()

    def _running(self) -> list[AcceptedAssociation]:
        with self._lock:
            return list(self._threads)

    def _join(self, deadline: float) -> None:
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    # connections

    def _open(self, port: int) -> int:
        """Listen on `port` too; the port that it is."""
        listener = _listen(self._options.host, port)
        self._listeners.append(listener)
        return int(listener.getsockname()[1])

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def _accept_loop(self, wake: socket.socket) -> None:
        with wake, selectors.DefaultSelector() as selector:
            for listener in self._listeners:
                selector.register(listener, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while not self._stopping.is_set():
                for key, _ in selector.select():
                    if isinstance(key.fileobj, socket.socket) and key.fileobj is not wake:
                        self._accept(key.fileobj)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, address = listener.accept()
        except BlockingIOError:  # the peer has gone again
            return
        except OSError as error:  # no descriptors left, or a connection that broke in the backlog
            _log.error("cannot accept a connection: %s", error.strerror)
            self._stopping.wait(_ACCEPT_PAUSE_S)
            return
        self._begin(connection, _plain(str(address[0])), secured=listener is not self._listeners[0])

    def _begin(self, connection: socket.socket, address: str, *, secured: bool) -> None:
        limits = self._options.limits
        try:
            transport = Transport(connection, pdu_timeout_s=limits.pdu_s, least_rate=limits.least_rate)
        except OSError:  # reset before it was looked at
            connection.close()
            return
        tls = self._options.tls.context if self._options.tls is not None and secured else None
        association = AcceptedAssociation(transport, address, self._service, self._claim, tls)
        thread = threading.Thread(target=self._run, args=(association,), name=f"association {address}", daemon=True)
        with self._lock:
            if len(self._unassociated) >= self._options.unassociated:
                self._drop_an_idle_one()
            self._threads[association] = thread
            self._unassociated[association] = address
        try:
            thread.start()
        except RuntimeError as error:  # the limit of threads of the process or the machine
            _log.error("no thread for a connection: %s", error)
            self._forget(association)
            transport.close()

    def _drop_an_idle_one(self) -> None:
        """Of the address with the most of them, the oldest: a peer sends its request at once."""
        crowd, _ = Counter(self._unassociated.values()).most_common(1)[0]
        oldest = next(waiting for waiting, address in self._unassociated.items() if address == crowd)
        del self._unassociated[oldest]
        oldest.cancel()

    def _claim(self, association: AcceptedAssociation, admitted: Admitted) -> None:
        """Take a place for one association, until it ends. Raises Refused where there is none."""
        with self._lock:
            self._unassociated.pop(association, None)
            if len(self._associated) >= self._options.associations:
                raise Refused.local_limit("as many associations as the node allows")
            held = sum(peer == admitted.peer for peer in self._associated.values())
            if admitted.associations and held >= admitted.associations:
                raise Refused.local_limit(f"{admitted.peer} has as many associations as one peer may")
            self._associated[association] = admitted.peer

    def _run(self, association: AcceptedAssociation) -> None:
        try:
            association.run()
        finally:
            self._forget(association)

    def _forget(self, association: AcceptedAssociation) -> None:
        with self._lock:
            del self._threads[association]
            self._unassociated.pop(association, None)
            peer = self._associated.pop(association, None)
            is_last = peer is not None and peer not in self._associated.values()
        if peer is not None:
            self._counters.ended()
            if is_last:
                self._on_released(peer)


def _plain(address: str) -> str:
    """An IPv4 address that came in on an IPv6 socket, as the site writes it."""
    return address.removeprefix("::ffff:") if "." in address else address


def _listen(host: str, port: int) -> socket.socket:
    where = f"{host}:{port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError("the DICOM port is taken by another program", where=where) from error
        if error.errno == errno.EACCES:
            raise ConfigError(
                "the DICOM port is below 1024: the program needs the right to use it", where=where
            ) from error
        raise ConfigError(f"cannot listen here: {error.strerror}", where=where) from error
    listener.setblocking(False)
    return listener
