"""A connected TCP socket, plain or TLS, whose reads and writes end in time: what PDUs travel on.

In: a socket. Out: bytes, or ConnectionLost and TimedOut. A plain socket blocks with its limits in the kernel: one
system call a read, where a Python time-out costs three.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
import struct
import time
from typing import Final

from pacsnode.dimse import tls
from pacsnode.dimse.pdus import ConnectionLost, TimedOut

_TCP_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
_TIMEVAL: Final = struct.Struct("ll")
_LINGER_BYTES: Final = 1 << 24
_SMALL_BYTES: Final = 4096
"""Every answer of ours."""


class Line:
    """One thread reads and writes; `cancel` alone may come from another."""

    def __init__(self, connection: socket.socket, *, send_timeout_s: float) -> None:
        self._socket = connection
        self._send_timeout_s = send_timeout_s
        self._receive_limit_s = 0.0  # as the kernel has it for a plain socket
        self._secured: ssl.SSLSocket | None = None
        self._cancelled = False
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(send_timeout_s))
        self._acknowledge_at_once()

    def _acknowledge_at_once(self) -> None:
        """Free the last segment of a sender with Nagle on (DCMTK): the kernel forgets the option, so set it again."""
        if _TCP_QUICKACK is not None:
            try:
                self._socket.setsockopt(socket.IPPROTO_TCP, _TCP_QUICKACK, 1)
            except OSError:  # the peer may be gone; the next read says so
                return

    def secure(self, context: ssl.SSLContext, *, wait_s: float, server_hostname: str | None = None) -> None:
        """The TLS handshake, as a client where `server_hostname` is given, as a whole within `wait_s`.

        Raises OSError, TimeoutError among them: nothing may be sent afterwards but by `close`.
        """
        self._socket.settimeout(wait_s)
        self._socket = secured = context.wrap_socket(
            self._socket,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
            do_handshake_on_connect=False,
        )
        if self._cancelled:  # asked while the socket changed hands
            raise ConnectionAbortedError("ended by the node")
        secured.do_handshake()
        self._secured = secured

    @property
    def certificate(self) -> tls.Certificate | None:
        """What the peer's certificate says; None without one."""
        return None if self._secured is None else tls.presented_by(self._secured)

    @property
    def is_cancelled(self) -> bool:
        """Whether another thread has ended the reads."""
        return self._cancelled

    def wait_for_input(self, wake: int, wait_s: float) -> bool:
        """Whether the peer has sent something; False once `wake`, a descriptor, is readable or the time is over."""
        if self._cancelled or (self._secured is not None and self._secured.pending()):
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(wake, select.POLLIN)
        return any(descriptor != wake for descriptor, _ in poll.poll(math.ceil(wait_s * 1000)))

    def receive_into(self, view: memoryview, patience_s: float) -> int:
        """Read once; the number of bytes, at least 1. A plain socket may wait up to a third longer than asked."""
        if self._cancelled:
            raise ConnectionLost("ended by the node")
        try:
            self._limit_receive(patience_s)
            count = self._socket.recv_into(view)
        except (TimeoutError, BlockingIOError):
            raise TimedOut("the peer is silent") from None
        except OSError as error:
            raise ConnectionLost(f"the connection broke: {error.strerror}") from error
        if not count:
            raise ConnectionLost("the peer closed the connection")
        self._acknowledge_at_once()
        return count

    def _limit_receive(self, patience_s: float) -> None:
        """A plain socket keeps its limit while it is near enough: one call less for each read."""
        if self._secured is not None:
            self._socket.settimeout(patience_s)
        elif not 0.75 * self._receive_limit_s <= patience_s <= self._receive_limit_s:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(patience_s))
            self._receive_limit_s = patience_s

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data` within the time limit; expect an answer at once."""
        try:
            if self._secured is None and len(data) <= _SMALL_BYTES:
                self._socket.sendall(data)
            else:  # Python's limit is for all of the data, the kernel's for each part that a slow peer takes
                self._socket.settimeout(self._send_timeout_s)
                self._socket.sendall(data)
                if self._secured is None:
                    self._socket.settimeout(None)
        except (TimeoutError, BlockingIOError):
            raise TimedOut("the peer does not take what is sent") from None
        except OSError as error:
            raise ConnectionLost(f"the connection broke: {error.strerror}") from error
        self._acknowledge_at_once()

    def cancel(self) -> None:
        """End the reads of another thread: it gets ConnectionLost at its next wait."""
        self._cancelled = True
        with contextlib.suppress(OSError):  # already closed: nothing to wake
            # Of a TLS socket the plain half alone: SSLSocket.shutdown would let the other thread read ciphertext.
            socket.socket.shutdown(self._socket, socket.SHUT_RD)

    def close(self, *, linger_s: float = 0.0) -> None:
        """Close; with `linger_s`, first let the peer read our last PDU and close: a reset would take it away."""
        deadline = time.monotonic() + linger_s
        with contextlib.suppress(OSError, ValueError):  # the peer has gone, or says no good-bye
            if self._secured is not None:
                self._secured.settimeout(linger_s)
                self._secured.unwrap()  # close_notify (RFC 8446 6.1)
        with contextlib.suppress(OSError):  # the line is gone: only the descriptor is left to free
            if linger_s:
                self._socket.shutdown(socket.SHUT_WR)
                self._drain(deadline)
        self._socket.close()

    def _drain(self, deadline: float) -> None:
        drained = 0
        while drained < _LINGER_BYTES and (patience_s := deadline - time.monotonic()) > 0:
            self._socket.settimeout(patience_s)
            data = self._socket.recv(65_536)
            if not data:
                return
            drained += len(data)


def _timeval(seconds: float) -> bytes:
    """For SO_RCVTIMEO and SO_SNDTIMEO, where zero would mean for ever."""
    return _TIMEVAL.pack(int(seconds), max(1, int(seconds % 1 * 1e6)))
