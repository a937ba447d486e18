"""The keeper against real child processes that do what models may do: hang, eat, raise, print, fork, die."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacsnode.errors import PacsnodeError, Permanent, Transient
from pacsnode.infer.compute import ComputeKeeper, Died, Message

ROOT = Path(__file__).resolve().parents[2]

OPERATIONS = """
import os, subprocess, sys, threading, time
from pathlib import Path
from pacsnode.errors import ConfigError, Permanent, Transient
from pacsnode.infer import compute

HELD = []

def echo(request):
    return request

def pid(request):
    return {"pid": os.getpid()}

def hang(request):
    Path(request["started"]).write_text(str(os.getpid()))
    time.sleep(600)
    return {}

def hang_with_workers(request):
    worker = os.fork()
    if worker == 0:
        time.sleep(600)
        os._exit(0)
    Path(request["worker"]).write_text(str(worker))
    if request["leader"] == "exits":
        os._exit(7)
    time.sleep(600)
    return {}

def eat(request):
    while True:
        HELD.append(bytearray(os.urandom(1 << 20) * 16))
        time.sleep(0.02)

def no_memory(request):
    raise MemoryError

def no_device(request):
    raise RuntimeError("CUDA error: device-side assert triggered\\nCUDA kernel errors might be asynchronous")

def no_room_for_a_tensor(request):
    import torch
    torch.empty(1 << 50, dtype=torch.uint8)

def permanent(request):
    raise Permanent("the film is upside down")

def transient(request):
    raise Transient("the device is busy")

def config(request):
    raise ConfigError("there is no such key", where="pipeline.yaml:3:1")

def bug(request):
    raise ZeroDivisionError("line one\\nline two")

def wrapped_bug(request):
    try:
        bug(request)
    except ZeroDivisionError as error:
        raise RuntimeError("applying transform <object at 0x7f>") from error

def silent_bug(request):
    raise ValueError()

def leave(request):
    sys.exit(3)

def die(request):
    os._exit(5)

def close_pipe(request):
    for descriptor in range(3, 32):
        try:
            os.close(descriptor)
        except OSError:
            pass
    time.sleep(600)

def nan(request):
    return {"value": float("nan")}

def unserialisable(request):
    return {"value": object()}

def chatter(request):
    print("loading weights ...", flush=True)
    sys.stdout.write("x" * 100_000)
    sys.stdout.flush()
    os.write(1, b"\\xff\\xff\\xff\\x7f raw")
    subprocess.run(["echo", "from a process of its own"], check=True)
    return {"ok": 1}

def ask(request):
    return {"line": sys.stdin.readline(), "raw": os.read(0, 100).decode()}

def count(request):
    path = Path(request["path"])
    path.write_text(path.read_text() + "in ")
    time.sleep(0.2)
    path.write_text(path.read_text() + "out ")
    return {}

compute.serve({name: made for name, made in list(globals().items()) if callable(made) and name.islower()})
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("operations") / "operations.py"
    path.write_text(OPERATIONS)
    return path


@pytest.fixture
def keeper(script: Path) -> Iterator[ComputeKeeper]:
    made = ComputeKeeper([sys.executable, str(script)], environment())
    yield made
    made.close()


def environment() -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": str(ROOT)}


def call(
    keeper: ComputeKeeper, operation: str, *, time_limit_s: float = 30.0, mb: int = 2000, **request: str
) -> Message:
    return keeper.call(operation, dict(request), time_limit_s=time_limit_s, memory_limit_mb=mb)


def assert_gone(pid: int) -> None:
    """The process ends; waits for it without a bound of its own (the test run has one)."""
    while Path(f"/proc/{pid}").exists() and ") Z " not in Path(f"/proc/{pid}/stat").read_text():
        time.sleep(0.02)


def wait_for_number(path: Path) -> int:
    while not path.exists() or not path.read_text():
        time.sleep(0.02)
    return int(path.read_text())


def test_calls_share_one_child(keeper: ComputeKeeper) -> None:
    first = call(keeper, "pid")["pid"]
    assert first == keeper.pid
    assert call(keeper, "pid")["pid"] == first
    assert call(keeper, "echo", name="흉부\u2028")["name"] == "흉부\u2028"


def test_a_hang_is_killed_at_its_limit_and_the_next_call_works(keeper: ComputeKeeper, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=r"stopped: it took longer than its limit of 1.5 s"):
        call(keeper, "hang", time_limit_s=1.5, started=str(tmp_path / "pid"))
    assert_gone(wait_for_number(tmp_path / "pid"))
    assert call(keeper, "echo", a="b") == {"a": "b"}


def test_eating_memory_is_killed_and_the_next_call_works(keeper: ComputeKeeper) -> None:
    with pytest.raises(Permanent, match=r"stopped: it used \d+ MB, more than its limit of 300 MB"):
        call(keeper, "eat", mb=300)
    assert call(keeper, "echo", a="b") == {"a": "b"}


@pytest.mark.parametrize("leader", ["exits", "hangs"])
def test_what_a_model_forked_ends_with_it(keeper: ComputeKeeper, tmp_path: Path, leader: str) -> None:
    worker = tmp_path / "worker"
    with pytest.raises(PacsnodeError, match=r"exit code 7" if leader == "exits" else "longer than its limit"):
        call(keeper, "hang_with_workers", time_limit_s=2.0, worker=str(worker), leader=leader)
    assert_gone(wait_for_number(worker))
    assert call(keeper, "echo", a="b") == {"a": "b"}


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        ("permanent", r"^the film is upside down$"),
        ("config", r"^pipeline.yaml:3:1: there is no such key$"),
        ("bug", r"^the model failed: ZeroDivisionError: line one$"),
        ("wrapped_bug", r"^the model failed: ZeroDivisionError: line one$"),
        ("silent_bug", r"^the model failed: ValueError: $"),
        ("leave", r"^the model failed: SystemExit: 3$"),
        ("unserialisable", r"^the model failed: TypeError: .*not JSON serializable"),
        ("nothing_of_that_name", r"^the model failed: KeyError"),
    ],
)
def test_raising_gives_the_reason_and_keeps_the_child(keeper: ComputeKeeper, operation: str, reason: str) -> None:
    before = call(keeper, "pid")
    with pytest.raises(Permanent, match=reason):
        call(keeper, operation)
    assert call(keeper, "pid") == before


def test_an_operation_that_may_succeed_later_is_transient(keeper: ComputeKeeper) -> None:
    with pytest.raises(Transient, match="the device is busy"):
        call(keeper, "transient")


@pytest.mark.parametrize(("operation", "ending"), [("die", "exit code 5"), ("close_pipe", "signal SIGKILL")])
def test_a_child_that_dies_is_transient_and_the_next_call_works(
    keeper: ComputeKeeper, operation: str, ending: str
) -> None:
    with pytest.raises(Transient, match=rf"died \({ending}\) while it ran {operation}"):
        call(keeper, operation)
    assert call(keeper, "echo", a="b") == {"a": "b"}


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        ("no_memory", "^the model failed: MemoryError: $"),
        ("no_device", "^the model failed: RuntimeError: CUDA error: device-side assert triggered$"),
        ("no_room_for_a_tensor", "^the model failed: RuntimeError: .*DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_after_a_memory_or_device_error_the_child_is_replaced(
    keeper: ComputeKeeper, operation: str, reason: str
) -> None:
    first = call(keeper, "pid")["pid"]
    with pytest.raises(Died, match=reason):
        call(keeper, operation)
    assert call(keeper, "pid")["pid"] != first
    assert_gone(first)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGRTMIN + 3])
def test_a_child_killed_from_outside_is_transient_and_the_next_call_works(
    keeper: ComputeKeeper, tmp_path: Path, number: int
) -> None:
    started = tmp_path / "pid"
    killer = threading.Thread(target=lambda: os.kill(wait_for_number(started), number))
    killer.start()
    with pytest.raises(Transient, match=r"died \(signal (SIGKILL|SIGSEGV|37)\)"):
        call(keeper, "hang", started=str(started))
    killer.join()
    assert call(keeper, "echo", a="b") == {"a": "b"}


def test_a_child_killed_between_calls_is_started_anew(keeper: ComputeKeeper) -> None:
    first = call(keeper, "pid")["pid"]
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)  # all of its threads, not only the first, have ended
    assert call(keeper, "pid")["pid"] != first


def test_a_child_that_reads_nothing_is_stopped_at_the_limit() -> None:
    keeper = ComputeKeeper([sys.executable, "-c", "import time; time.sleep(600)"], environment())
    try:
        with pytest.raises(Permanent, match="longer than its limit of 1 s"):
            call(keeper, "echo", time_limit_s=1.0, long="x" * 1_000_000)
    finally:
        keeper.close()


def test_a_child_that_stops_in_the_middle_of_its_answer_is_stopped_at_the_limit() -> None:
    torn = r"import os, time; os.write(1, b'\x40\0\0\0{'); time.sleep(600)"
    keeper = ComputeKeeper([sys.executable, "-c", torn], environment())
    try:
        with pytest.raises(Permanent, match="longer than its limit of 1 s"):
            call(keeper, "echo", time_limit_s=1.0)
    finally:
        keeper.close()


@pytest.mark.parametrize("noise", [r"b'\xff\xff\xff\x7f'", r"b'\x04\0\0\0{{{{'"])
def test_a_child_that_answers_nonsense_is_replaced(noise: str) -> None:
    keeper = ComputeKeeper(
        [sys.executable, "-c", f"import os; os.write(1, {noise}); os.read(0, 100000)"], environment()
    )
    try:
        with pytest.raises(Transient, match="while it ran echo"):
            call(keeper, "echo")
        assert keeper.pid is None
    finally:
        keeper.close()


def test_a_program_that_cannot_be_started_is_transient(tmp_path: Path) -> None:
    keeper = ComputeKeeper([str(tmp_path / "no-such-program")], {})
    with pytest.raises(Transient, match="cannot be started"):
        call(keeper, "echo")


def test_not_a_number_comes_through(keeper: ComputeKeeper) -> None:
    assert math.isnan(call(keeper, "nan")["value"])


def test_printing_does_not_break_the_protocol(keeper: ComputeKeeper, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(keeper, "chatter") == {"ok": 1}
    assert call(keeper, "echo", a="b") == {"a": "b"}
    keeper.close()
    assert "loading weights" in capfd.readouterr().err


def test_a_model_that_reads_stdin_gets_nothing_and_takes_no_message(keeper: ComputeKeeper) -> None:
    assert call(keeper, "ask") == {"line": "", "raw": ""}
    assert call(keeper, "echo", a="b") == {"a": "b"}


def test_a_long_message_comes_through_both_ways(keeper: ComputeKeeper) -> None:
    assert call(keeper, "echo", long="가" * 700_000)["long"] == "가" * 700_000


KEEPER = """
import sys
from pathlib import Path
from pacsnode.infer.compute import ComputeKeeper
import os
keeper = ComputeKeeper([sys.executable, sys.argv[1]], dict(os.environ))
keeper.call("echo", {}, time_limit_s=60, memory_limit_mb=2000)
Path(sys.argv[2]).write_text(str(keeper.pid))
if sys.argv[3] == "busy":
    keeper.call("hang_with_workers", {"worker": sys.argv[4], "leader": "hangs"}, time_limit_s=600, memory_limit_mb=2000)
import time
time.sleep(600)
"""


@pytest.mark.parametrize("state", ["busy", "idle"])
def test_the_child_ends_when_its_keeper_is_killed(script: Path, tmp_path: Path, state: str) -> None:
    child, worker = tmp_path / "child", tmp_path / "worker"
    arguments = [sys.executable, "-c", KEEPER, str(script), str(child), state, str(worker)]
    with subprocess.Popen(arguments, env=environment()) as process:
        pids = [wait_for_number(child)]
        if state == "busy":
            pids.append(wait_for_number(worker))
        process.kill()
        process.wait()
    for pid in pids:
        assert_gone(pid)


def test_two_threads_take_turns(keeper: ComputeKeeper, tmp_path: Path) -> None:
    path = tmp_path / "turns"
    path.write_text("")
    threads = [threading.Thread(target=lambda: call(keeper, "count", path=str(path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text().split() == ["in", "out"] * 3


def test_close_cuts_a_running_call_and_refuses_the_waiting_one(keeper: ComputeKeeper, tmp_path: Path) -> None:
    started, ended = tmp_path / "pid", []

    def run(operation: str) -> None:
        try:
            call(keeper, operation, time_limit_s=600, started=str(started))
        except PacsnodeError as error:
            ended.append((type(error), str(error)))

    running = threading.Thread(target=run, args=("hang",))
    running.start()
    pid = wait_for_number(started)
    waiting = threading.Thread(target=run, args=("echo",))
    waiting.start()
    keeper.close()
    running.join()
    waiting.join()
    assert_gone(pid)
    assert ended == [(Transient, "the node is stopping")] * 2
    with pytest.raises(Transient, match="the node is stopping"):
        call(keeper, "echo")
