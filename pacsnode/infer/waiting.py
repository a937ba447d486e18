"""The line before the compute child: what is urgent first, images of one service together, poison parked.

In: jobs of many threads at once. Out: each job's answer in its own thread. One job, or one batch, is in the child at a
time; nothing that runs is interrupted. A batch that fails as a whole is run again one by one, so that no case pays for
another. A case with which the child died twice is not tried again.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from pacsnode.errors import PacsnodeError, Permanent
from pacsnode.infer.compute import ComputeKeeper, Died, Message
from pacsnode.infer.pipeline import Limits
from pacsnode.telemetry import Log

log = Log(__name__)

MOST_DEATHS = 2
"""Of the child with one job."""


class Kind(IntEnum):
    """Of two jobs of one priority the lower one is first: a report that can be made is not kept waiting."""

    REPORT = 0
    INFER = 1
    PICTURE = 2


@dataclass(frozen=True)
class Turn:
    """When a job's turn comes. `priority`: as cases have it, the lowest first."""

    priority: int
    kind: Kind


@dataclass(eq=False)
class _Job:
    operation: str
    request: Message
    limits: Limits
    turn: Turn
    order: int
    batch_key: tuple[Any, ...] | None
    deaths: int = 0
    reply: Message | None = None
    error: PacsnodeError | None = None

    @property
    def has_ended(self) -> bool:
        return self.reply is not None or self.error is not None


@dataclass
class _Line:
    """All that the lock guards. `sizes`: of batches, by what goes together, once a larger one failed."""

    waiting: list[_Job] = field(default_factory=list)
    sizes: dict[tuple[Any, ...], int] = field(default_factory=dict)
    is_busy: bool = False
    count: int = 0


class ComputeQueue:
    """Lets threads wait for one child. The thread whose turn it is runs what is most urgent, be it another's."""

    def __init__(self, keeper: ComputeKeeper) -> None:
        self._keeper = keeper
        self._changed = threading.Condition()
        self._line = _Line()

    @property
    def length(self) -> int:
        """How many jobs wait."""
        return len(self._line.waiting)

    def infer(self, request: Message, limits: Limits, priority: int, *, is_batchable: bool) -> Message:
        """Run a model on a case (`child.infer`). Raises Permanent, Transient."""
        key = (request["service"], request["bundle_hash"], request["device"], priority) if is_batchable else None
        return self._ended("infer", request, limits, Turn(priority, Kind.INFER), key)

    def call(self, operation: str, request: Message, limits: Limits, turn: Turn) -> Message:
        """Run another operation of the child. Raises Permanent, Transient."""
        return self._ended(operation, request, limits, turn, None)

    def _ended(
        self, operation: str, request: Message, limits: Limits, turn: Turn, batch_key: tuple[Any, ...] | None
    ) -> Message:
        with self._changed:
            self._line.count += 1
            job = _Job(operation, request, limits, turn, self._line.count, batch_key)
            self._line.waiting.append(job)
        while taken := self._take_for(job):
            try:
                self._serve(taken)
            finally:
                with self._changed:
                    self._line.is_busy = False
                    self._line.waiting += [one for one in taken if not one.has_ended]
                    self._changed.notify_all()
        if job.error is not None:
            raise job.error
        assert job.reply is not None
        return job.reply

    def _take_for(self, job: _Job) -> list[_Job]:
        """What to run now, once the child is free; nothing once `job` has ended."""
        with self._changed:
            self._changed.wait_for(lambda: job.has_ended or not self._line.is_busy)
            if job.has_ended:
                return []
            self._line.is_busy = True
            waiting = self._line.waiting
            waiting.sort(key=lambda one: (one.turn.priority, one.turn.kind, one.order))
            first = waiting[0]
            taken = [first]
            if first.batch_key is not None:
                size = self._line.sizes.get(first.batch_key, first.limits.batch)
                taken = [one for one in waiting if one.batch_key == first.batch_key][:size]
            self._line.waiting = [one for one in waiting if one not in taken]
            return taken

    def _serve(self, taken: list[_Job]) -> None:
        """Run a job or a batch. What has not ended afterwards waits for another turn."""
        first = taken[0]
        try:
            if len(taken) == 1:
                first.reply = self._keeper.call(
                    first.operation,
                    first.request,
                    time_limit_s=first.limits.time_s,
                    memory_limit_mb=first.limits.memory_mb,
                )
            else:
                self._together(taken)
        except PacsnodeError as error:
            if len(taken) > 1:
                self._separate(taken, error)
            elif isinstance(error, Died):
                _count_death(first, error)
            else:
                first.error = error

    def _together(self, taken: list[_Job]) -> None:
        first = taken[0]
        items = [{"files": one.request["files"], "folder": one.request["folder"]} for one in taken]
        reply = self._keeper.call(
            "infer_many",
            {**first.request, "items": items},
            time_limit_s=first.limits.time_s * len(taken),
            memory_limit_mb=first.limits.memory_mb,
        )
        for one, answer in zip(taken, reply["answers"], strict=True):
            if answer["reason"] is None:
                one.reply = {"network_s": answer["network_s"]}
            else:
                one.error = Permanent(answer["reason"])

    def _separate(self, taken: list[_Job], error: PacsnodeError) -> None:
        """Whatever happened, one of them may be the cause: each gets a run of its own."""
        log.warning("a batch failed; its cases run one by one", cases=len(taken), problem=str(error))
        key = taken[0].batch_key
        assert key is not None
        for one in taken:
            one.batch_key = None
        if isinstance(error, Permanent):  # a limit: so many at once are too many for this service
            with self._changed:
                self._line.sizes[key] = max(1, len(taken) // 2)


@dataclass(frozen=True)
class Lines:
    """`here`: before the child that runs models on this machine. `served`: before the one that asks inference servers,
    whose child is a process of its own, so that a slow server delays no model that runs here.
    """

    here: ComputeQueue
    served: ComputeQueue


def _count_death(job: _Job, error: Died) -> None:
    job.deaths += 1
    if job.deaths >= MOST_DEATHS:
        job.error = Permanent(f"{error}; it was tried {job.deaths} times and is not tried again")
