"""The listening side: accepts connections and gives each a thread of its own.

In: where to listen, who may associate, the archive. Out: running associations, counters. A silent connection holds
nothing but its own thread, and no more of those than a limit; never polls, never decodes.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from pacsnode.dimse.transport import Transport
from pacsnode.errors import ConfigError
from pacsnode.handover import ObjectStore, Stored, StoreRequest
from pacsnode.receive.admission import Admission
from pacsnode.receive.counters import Counters, Counts
from pacsnode.receive.protocol import AcceptedAssociation, Service, TimeLimits

_log: Final = logging.getLogger(__name__)

_BACKLOG: Final = 256
"""A burst of connections beyond the backlog waits a second for its next SYN."""
_ACCEPT_PAUSE_S: Final = 0.2
_ABORT_GRACE_S: Final = 5.0


@dataclass(frozen=True)
class ListenOptions:
    """Where to listen, and how many associations and connections without one there may be."""

    host: str = "0.0.0.0"  # noqa: S104  # modalities come from the network
    port: int = 104
    associations: int = 100
    unassociated: int = 200
    limits: TimeLimits = field(default_factory=TimeLimits)


class Server:
    """A storage SCP. `start` binds and returns, `stop` drains; both may be left to `with`."""

    def __init__(
        self,
        options: ListenOptions,
        admission: Admission,
        store: ObjectStore,
        on_stored: Callable[[StoreRequest, Stored], None] = lambda request, stored: None,
    ) -> None:
        self._options = options
        self._counters = Counters()
        self._service = Service(admission, store, on_stored, self._counters, options.limits)
        self._lock = threading.Lock()
        self._threads: dict[AcceptedAssociation, threading.Thread] = {}
        self._unassociated: dict[AcceptedAssociation, None] = {}  # oldest first
        self._associated: set[AcceptedAssociation] = set()
        self._stopping = threading.Event()
        self._port = options.port
        self._listener: socket.socket | None = None
        self._waker: socket.socket | None = None
        self._acceptor: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on: the one that was found where port 0 was asked for."""
        return self._port

    def counts(self) -> Counts:
        """What was done since the start."""
        return self._counters.snapshot()

    def start(self) -> Self:
        """Listen, in a thread of its own. Raises ConfigError where the port cannot be had."""
        self._listener = _listen(self._options.host, self._options.port)
        self._port = int(self._listener.getsockname()[1])
        wake, self._waker = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept_loop, args=(self._listener, wake), name="accept")
        self._acceptor.start()
        return self

    def stop(self, grace_s: float = 10.0) -> None:
        """Accept nothing more, let each association answer the message it is in, then abort what is left."""
        if self._acceptor is None or self._waker is None or self._listener is None:
            return
        self._stopping.set()
        self._waker.close()
        self._acceptor.join()
        self._listener.close()
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

    def _accept_loop(self, listener: socket.socket, wake: socket.socket) -> None:
        with wake, selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while not self._stopping.is_set():
                selector.select()
                try:
                    connection, address = listener.accept()
                except BlockingIOError:  # woken to stop, or the peer has gone again
                    continue
                except OSError as error:  # no descriptors left, or a connection that broke in the backlog
                    _log.error("cannot accept a connection: %s", error.strerror)
                    self._stopping.wait(_ACCEPT_PAUSE_S)
                    continue
                self._begin(connection, _plain(str(address[0])))

    def _begin(self, connection: socket.socket, address: str) -> None:
        try:
            transport = Transport(connection, pdu_timeout_s=self._options.limits.pdu_s)
        except OSError:  # reset before it was looked at
            connection.close()
            return
        association = AcceptedAssociation(transport, address, self._service, lambda: self._claim(association))
        thread = threading.Thread(target=self._run, args=(association,), name=f"association {address}", daemon=True)
        with self._lock:
            if len(self._unassociated) >= self._options.unassociated:
                oldest = next(iter(self._unassociated))
                del self._unassociated[oldest]  # a peer sends its request at once: the oldest is the idlest
                oldest.cancel()
            self._threads[association] = thread
            self._unassociated[association] = None
        try:
            thread.start()
        except RuntimeError as error:  # the limit of threads of the process or the machine
            _log.error("no thread for a connection: %s", error)
            self._forget(association)
            transport.close()

    def _claim(self, association: AcceptedAssociation) -> bool:
        """Whether there is a place for one association more; the caller has it then until it ends."""
        with self._lock:
            self._unassociated.pop(association, None)
            if len(self._associated) >= self._options.associations:
                return False
            self._associated.add(association)
            return True

    def _run(self, association: AcceptedAssociation) -> None:
        try:
            association.run()
        finally:
            self._forget(association)

    def _forget(self, association: AcceptedAssociation) -> None:
        with self._lock:
            del self._threads[association]
            self._unassociated.pop(association, None)
            was_associated = association in self._associated
            self._associated.discard(association)
        if was_associated:
            self._counters.ended()


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
