"""The compute child and its keeper: models run in a process of their own, so that whatever one does, the node lives.

One JSON message each way, with its length before it, over the child's stdin and stdout. The child opens no database and
talks to no peer; it ends when its keeper does. The keeper kills it on the time or memory limit and starts it anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pacsnode.errors import PacsnodeError, Permanent, Transient
from pacsnode.telemetry import Log

log = Log(__name__)

LONGEST_MESSAGE = 64 << 20
MEMORY_LOOK_EVERY_S = 0.25
ENDING_GRACE_S = 2.0
NICENESS = 10

FAILED_DEVICES = ("OutOfMemoryError", "AcceleratorError")
"""Exceptions of torch after which a device, or the memory of the process, is in no known state."""
FAILED_WORDS = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "can't allocate memory")

Message = dict[str, Any]
Operation = Callable[[Message], Message]


class Died(Transient):
    """The child ended, or had to be ended, in the middle of a job: a new one may do better, once."""


class Spent(Exception):  # no error of a model: the process gives way to a new one
    """Raised in the child: it holds too much to begin the job; a new child begins with nothing."""


class ComputeKeeper:
    """Keeps one child for one device. `call` is one job at a time; others wait."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closing = False

    def call(self, operation: str, request: Message, *, time_limit_s: float, memory_limit_mb: int) -> Message:
        """Run one operation in the child.

        Raises Permanent (the operation's own reason, or a limit passed), Died (try again), Transient.
        """
        message = _packed({"operation": operation, "request": request, "memory_limit_mb": memory_limit_mb})
        with self._lock:
            reply = self._exchange(operation, message, time_limit_s, memory_limit_mb)
            if reply.get("spent"):
                log.info("compute process is replaced", reason=reply["reason"])
                self._forget()
                reply = self._exchange(operation, message, time_limit_s, memory_limit_mb)
            if reply.get("ended"):
                log.warning("compute process is replaced", reason=reply["reason"])
                self._forget()
                raise Died(reply["reason"])
        if reply["ok"]:
            value: Message = reply["value"]
            return value
        raise Transient(reply["reason"]) if reply["again"] else Permanent(reply["reason"])

    def _exchange(self, operation: str, message: bytes, time_limit_s: float, memory_limit_mb: int) -> Message:
        """The child's answer to one message. Raises Permanent (a limit passed), Died, Transient."""
        child = self._running_child()
        limits = _Limits(child.pid, time.monotonic() + time_limit_s, time_limit_s, memory_limit_mb)
        try:
            _send(child, message, limits)
            return _receive(child, limits)
        except (OSError, EOFError, ValueError) as error:
            ending = self._end(child)
            if self._closing:
                raise Transient("the node is stopping") from None
            told = "" if isinstance(error, EOFError | BrokenPipeError) else f"; {error}"
            raise Died(f"the compute process died ({ending}) while it ran {operation}{told}") from None
        except Permanent:
            self._forget()
            raise

    def close(self) -> None:
        """End the child; a running operation is cut."""
        self._closing = True
        child = self._child
        if child is not None:
            _kill(child)
        with self._lock:
            self._forget()

    @property
    def pid(self) -> int | None:
        """The child's process number, None when there is none."""
        child = self._child
        return child.pid if child is not None else None

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._child is not None and _has_ended(self._child):
            log.warning("compute process ended", ending=self._end(self._child))
        if self._child is None and not self._closing:
            try:
                self._child = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=self._environment,
                    bufsize=0,
                    start_new_session=True,  # a group of its own: what a model forks ends with it
                )
            except OSError as error:
                raise Transient(f"the compute process cannot be started: {error}") from None
            log.info("compute process started", pid=self._child.pid)
        if self._closing or self._child is None:  # `close` may have come before the child that it did not see
            self._forget()
            raise Transient("the node is stopping")
        return self._child

    def _end(self, child: subprocess.Popen[bytes]) -> str:
        """How a child ended that answers no more; one that only closed its pipe is killed."""
        deadline_s = time.monotonic() + ENDING_GRACE_S
        while not _has_ended(child):
            if time.monotonic() > deadline_s:
                log.error("compute process answers no more; it is killed", pid=child.pid)
                break
            time.sleep(0.01)
        self._forget()
        return _ending(child.returncode)

    def _forget(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            _kill(child)
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
            child.wait()


class _Limits:
    """Of one call: `check` raises Permanent once one of them is passed."""

    def __init__(self, pid: int, deadline_s: float, time_limit_s: float, memory_limit_mb: int) -> None:
        self._pid = pid
        self._deadline_s = deadline_s
        self._time_limit_s = time_limit_s
        self._memory_limit_mb = memory_limit_mb

    def check(self) -> None:
        if time.monotonic() > self._deadline_s:
            raise Permanent(f"the model was stopped: it took longer than its limit of {self._time_limit_s:g} s")
        used_mb = resident_mb(self._pid)
        if used_mb > self._memory_limit_mb:
            raise Permanent(
                f"the model was stopped: it used {used_mb} MB, more than its limit of {self._memory_limit_mb} MB"
            )


def _send(child: subprocess.Popen[bytes], message: bytes, limits: _Limits) -> None:
    """Within the limits too: a message longer than a pipe holds waits for a child that reads."""
    assert child.stdin is not None
    descriptor = child.stdin.fileno()
    rest = memoryview(message)
    while rest:
        if select.select([], [descriptor], [], MEMORY_LOOK_EVERY_S)[1]:
            rest = rest[os.write(descriptor, rest[: select.PIPE_BUF]) :]  # so much never blocks
        else:
            limits.check()


def _receive(child: subprocess.Popen[bytes], limits: _Limits) -> Message:
    """The child's answer. Raises EOFError when it ended, also where a process that it forked holds the pipe open."""
    assert child.stdout is not None
    descriptor = child.stdout.fileno()
    got = bytearray()
    wanted = 4
    while True:
        if select.select([descriptor], [], [], MEMORY_LOOK_EVERY_S)[0]:
            piece = os.read(descriptor, wanted - len(got))
            if not piece:
                raise EOFError
            got += piece
            if len(got) == 4 == wanted:
                wanted += _length(got)
            if len(got) == wanted > 4:
                message: Message = json.loads(got[4:])
                return message
        elif _has_ended(child):
            raise EOFError
        limits.check()


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Looks without reaping: as long as the ended child is not waited for, no other process gets its number."""
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill(child: subprocess.Popen[bytes]) -> None:
    """The child and all that it forked: its group has its number."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):  # `close` and the end of a call may meet here
            os.killpg(child.pid, signal.SIGKILL)


def serve(
    operations: Mapping[str, Operation],
    make_room: Callable[[int], None] = lambda limit_mb: None,
    rest: Callable[[], None] = lambda: None,
    rest_after_s: float = 60.0,
) -> None:
    """The child's life: answer messages until stdin ends. What libraries print goes to stderr, not into the answers.

    `make_room` is called with the memory limit of each message before it is run; it may raise Spent. `rest` is called
    once when nothing was asked for a while.
    """
    os.nice(NICENESS)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # a model that reads stdin must not take the next message
    os.close(nothing)
    os.dup2(2, 1)
    messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, messages), daemon=True).start()
    try:
        wait_s: float | None = None
        while True:
            try:
                message = messages.get(timeout=wait_s)
            except queue.Empty:
                rest()
                wait_s = None
                continue
            answers.write(_packed(_answer(operations, make_room, message)))
            answers.flush()
            wait_s = rest_after_s
    except (MemoryError, BrokenPipeError):
        _end_at_once(1)  # the process cannot be trusted any more, or nobody listens; its death is the answer


def _listen(requests: BinaryIO, messages: queue.SimpleQueue[Message]) -> None:
    """Hand on what the keeper asks; when the keeper is gone, end at once, in the middle of a model too."""
    try:
        while True:
            messages.put(_read(requests))
    except (EOFError, ValueError):
        _end_at_once(0)


def _end_at_once(code: int) -> None:
    """With all that models forked, where this process leads a group of its own (it does under a keeper)."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(code)


def _answer(operations: Mapping[str, Operation], make_room: Callable[[int], None], message: Message) -> Message:
    """`ended`: the keeper shall replace this process, which is in no known state any more."""
    name = message["operation"]
    try:
        make_room(message["memory_limit_mb"])
        value = operations[name](message["request"])
        json.dumps(value)
    except PacsnodeError as error:
        return {"ok": False, "again": isinstance(error, Transient), "reason": str(error)}
    except Spent as error:
        return {"ok": False, "again": True, "spent": True, "reason": str(error)}
    except (Exception, SystemExit) as error:  # a model may raise anything; the case is parked with it
        log.exception("operation failed", operation=name)
        root: BaseException = error
        while root.__cause__ is not None:  # MONAI wraps what happened in "applying transform <object at 0x…>"
            root = root.__cause__
        first_line = (str(root).strip().splitlines() or [""])[0][:300]
        reason = f"the model failed: {type(root).__name__}: {first_line}"
        has_ended = _has_failed_for_good(root)
        return {"ok": False, "again": has_ended, "ended": has_ended, "reason": reason}
    return {"ok": True, "value": value}


def _has_failed_for_good(error: BaseException) -> bool:
    """Whether the device or the memory failed, not only the model."""
    if isinstance(error, MemoryError) or type(error).__name__ in FAILED_DEVICES:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in FAILED_WORDS)


def _packed(message: Message) -> bytes:
    body = json.dumps(message).encode()
    if len(body) > LONGEST_MESSAGE:
        raise Permanent(f"a message of {len(body) >> 20} MB is longer than the compute process takes")
    return struct.pack("<I", len(body)) + body


def _length(head: bytes | bytearray) -> int:
    length: int = struct.unpack("<I", head)[0]
    if length > LONGEST_MESSAGE:
        raise ValueError("its answer was not readable")
    return length


def _read(pipe: BinaryIO) -> Message:
    head = pipe.read(4)
    if len(head) != 4:
        raise EOFError
    length = _length(head)
    body = pipe.read(length)
    if len(body) != length:
        raise EOFError
    message: Message = json.loads(body)
    return message


def resident_mb(pid: int) -> int:
    """Resident memory of a process; 0 when it has just ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    known = {s.value: s.name for s in signal.Signals}
    return f"signal {known.get(-code, -code)}"
