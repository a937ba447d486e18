"""The durable engine: a case is a DBOS workflow, so that any process may be killed at any moment.

The only module that knows DBOS. Workflows carry a case key and an attempt, never a name, a path or a pixel.
Cases start directly (2 ms), not through a polled queue; the caller bounds how many run at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID
from dbos import error as dbos_error

from pacsnode.errors import Transient
from pacsnode.telemetry import Log

log = Log(__name__)

APPLICATION_NAME = "pacsnode"
APPLICATION_VERSION = "case-1"
"""Fixed: DBOS runs a workflow only under the version that started it. A new word strands old workflows on purpose;
their cases start again under new ids, which is safe because every step is keyed."""

STEP_TRIES = 3
"""A step that ends Transient (the compute child died, say by the kernel's OOM killer) is tried so often."""

UNFINISHED = ("PENDING", "ENQUEUED", "DELAYED")


@dataclass(frozen=True)
class Step:
    """One durable step of a case: idempotent, called with the case key."""

    name: str
    run: Callable[[str], None]


class Engine:
    """Runs cases of one process. `failed(key, attempt, reason)` is called once a case cannot go on."""

    def __init__(
        self, url: str, executor_id: str, steps: Sequence[Step], failed: Callable[[str, int, str], None]
    ) -> None:
        if url.startswith("sqlite:///"):
            _use_wal(Path(url.removeprefix("sqlite:///")))
        config: DBOSConfig = {
            "name": APPLICATION_NAME,
            "system_database_url": url,
            "application_version": APPLICATION_VERSION,
            "executor_id": executor_id,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "ERROR",
            "scheduler_polling_interval_sec": 3600.0,
        }
        DBOS(config=config)

        # 100 recoveries: only the compute child runs models, so a case cannot kill this process by itself.
        @DBOS.workflow(name="case", max_recovery_attempts=100)
        def case(key: str, attempt: int) -> None:
            try:
                for step in steps:
                    _run_durably(step, key)
            except dbos_error.DBOSMaxStepRetriesExceeded as error:
                _park(key, attempt, str(error.errors[-1]) if error.errors else str(error))
            except dbos_error.DBOSException:
                raise
            except Exception as error:  # noqa: BLE001  # the engine's step edge: it becomes the case's reason
                _park(key, attempt, str(error) or type(error).__name__)

        def _park(key: str, attempt: int, reason: str) -> None:
            _run_durably(Step("park", lambda k: failed(k, attempt, reason)), key)

        self._case = case

    def launch(self) -> None:
        """Start; cases that a killed process left are taken up where they were."""
        DBOS.launch()

    def start(self, key: str, attempt: int) -> None:
        """Run a case; the same key and attempt twice is one run."""
        with SetWorkflowID(_workflow_id(key, attempt)):
            DBOS.start_workflow(self._case, key, attempt)

    def is_unfinished(self, key: str, attempt: int) -> bool:
        """Whether the engine still means to work on this attempt."""
        status = DBOS.get_workflow_status(_workflow_id(key, attempt))
        return status is not None and status.status in UNFINISHED

    def close(self, grace_s: int) -> None:
        """Let running steps end for at most `grace_s`; what is left is taken up at the next start."""
        DBOS.destroy(workflow_completion_timeout_sec=grace_s)


def _run_durably(step: Step, key: str) -> None:
    def run() -> None:
        step.run(key)

    DBOS.run_step(
        {
            "name": step.name,
            "retries_allowed": True,
            "max_attempts": STEP_TRIES,
            "interval_seconds": 0.5,
            "should_retry": lambda error: isinstance(error, Transient),
        },
        run,
    )


def _workflow_id(key: str, attempt: int) -> str:
    return f"{APPLICATION_VERSION}:{key}:{attempt}"


def _use_wal(path: Path) -> None:
    """DBOS never sets it; without WAL a workflow of three steps costs 61 ms instead of 10."""
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()
