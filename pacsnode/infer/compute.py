"""The compute child and its keeper: models run in a process of their own, so that whatever one does, the node lives.

One JSON message each way, with its length before it, over the child's stdin and stdout. The child opens no database and
talks to no peer; it ends when its keeper does. The keeper kills it on the time or memory limit and starts it anew.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pacsnode.errors import Permanent, Transient
from pacsnode.telemetry import Log

log = Log(__name__)

LONGEST_MESSAGE = 64 << 20
MEMORY_LOOK_EVERY_S = 0.25
NICENESS = 10

Message = dict[str, Any]
Operation = Callable[[Message], Message]


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

        Raises Permanent (the operation's own reason, or a limit passed), Transient (the child died: try again).
        """
        with self._lock:
            if self._closing:
                raise Transient("the node is stopping")
            child = self._running_child()
            assert child.stdin is not None
            assert child.stdout is not None
            try:
                _write(child.stdin, {"operation": operation, "request": request})
                reply = self._await(child, time_limit_s, memory_limit_mb)
            except (BrokenPipeError, EOFError, ConnectionError):
                code = child.wait()
                self._forget()
                raise Transient(f"the compute process died ({_ending(code)}) while it ran {operation}") from None
        if reply["ok"]:
            value: Message = reply["value"]
            return value
        raise Permanent(reply["reason"])

    def close(self) -> None:
        """End the child; a running operation is cut."""
        self._closing = True
        child = self._child
        if child is not None:
            child.kill()
        with self._lock:
            self._forget()

    @property
    def pid(self) -> int | None:
        """The child's process number, None when there is none."""
        return self._child.pid if self._child is not None else None

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            log.warning("compute process ended", ending=_ending(self._child.returncode))
            self._forget()
        if self._child is None:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environment,
            )
            log.info("compute process started", pid=self._child.pid)
        return self._child

    def _await(self, child: subprocess.Popen[bytes], time_limit_s: float, memory_limit_mb: int) -> Message:
        assert child.stdout is not None
        deadline = time.monotonic() + time_limit_s
        while not select.select([child.stdout], [], [], MEMORY_LOOK_EVERY_S)[0]:
            if time.monotonic() > deadline:
                self._kill(child, f"it took longer than its limit of {time_limit_s:g} s")
            used_mb = _resident_mb(child.pid)
            if used_mb > memory_limit_mb:
                self._kill(child, f"it used {used_mb} MB, more than its limit of {memory_limit_mb} MB")
        return _read(child.stdout)

    def _kill(self, child: subprocess.Popen[bytes], reason: str) -> None:
        child.kill()
        child.wait()
        self._forget()
        raise Permanent(f"the model was stopped: {reason}")

    def _forget(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        log.debug("compute process left a message unread")
            child.wait()


def serve(operations: Mapping[str, Operation]) -> None:
    """The child's life: answer messages until stdin ends. What libraries print goes to stderr, not into the answers."""
    os.nice(NICENESS)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(messages,), daemon=True).start()
    while True:
        _write(answers, _answer(operations, messages.get()))


def _listen(messages: queue.SimpleQueue[Message]) -> None:
    """Hand on what the keeper asks; when the keeper is gone, end at once, in the middle of a model too."""
    try:
        while True:
            messages.put(_read(sys.stdin.buffer))
    except EOFError:
        os._exit(0)


def _answer(operations: Mapping[str, Operation], message: Message) -> Message:
    try:
        return {"ok": True, "value": operations[message["operation"]](message["request"])}
    except Permanent as error:
        return {"ok": False, "reason": str(error)}
    except MemoryError:
        raise  # the process cannot be trusted any more; its death is the answer
    except Exception as error:  # noqa: BLE001  # a model may raise anything; the case is parked with it
        log.error("operation failed", operation=message["operation"], trace=traceback.format_exc())
        first_line = (str(error).splitlines() or [""])[0][:300]
        return {"ok": False, "reason": f"the model failed: {type(error).__name__}: {first_line}"}


def _write(pipe: BinaryIO | Any, message: Message) -> None:
    body = json.dumps(message, ensure_ascii=False).encode()
    pipe.write(struct.pack("<I", len(body)) + body)
    pipe.flush()


def _read(pipe: BinaryIO | Any) -> Message:
    head = pipe.read(4)
    if len(head) != 4:
        raise EOFError
    length = struct.unpack("<I", head)[0]
    if length > LONGEST_MESSAGE:
        raise EOFError
    body = pipe.read(length)
    if len(body) != length:
        raise EOFError
    message: Message = json.loads(body)
    return message


def _resident_mb(pid: int) -> int:
    """Resident memory of a process; 0 when it has just ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def _ending(code: int | None) -> str:
    if code is None:
        return "no exit code"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
