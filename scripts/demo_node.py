"""The Python part of scripts/demo: a node, two receiving peers, real images in, results out, and a look at all of it.

In: DICOM files. Out: a folder of results, the timeline on the terminal, exit code 1 when something did not arrive.
Never touches another node: the home, the rules and the ports are the demo's own, and every process ends with it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from demo_results import present
from pydicom.data import get_testdata_file
from pydicom.errors import InvalidDicomError

from pacsnode.archive.index import Index
from pacsnode.life import study_life
from pacsnode.settings import Settings, load

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
STORESCP = Path("/usr/bin/storescp")
LOOPBACK = "127.0.0.1"
IMAGES = {"chest radiograph": "RG1_UNCR.dcm", "12-lead ECG": "waveform_ecg.dcm"}
EXPECTED = {"chest-xray": {"sr", "seg", "sc"}, "ecg-arrhythmia": {"sr", "sc"}}
"""What the two images that come with the demo must become."""

MARK = "made-by-pacsnode-demo.txt"
OURS = (MARK, "node", "node.log", "send.log", "received", "results", "routing_rules.yaml", "timeline.txt")
START_LIMIT_S = 60.0
STALL_LIMIT_S = 180.0
"""Longer than the time limit of any shipped service."""
LOOK_EVERY_S = 0.5
STOP_GRACE_S = 45.0


class Failed(Exception):
    """The demo cannot go on; the text says why."""


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--input", type=Path, help="send all DICOM files below this folder")
    parser.add_argument("--output", type=Path, default=ROOT / "demo-out", help="where everything is left")
    given = parser.parse_args()
    source = given.input.resolve() if given.input else None
    output = given.output.resolve()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda signal_number, _: sys.exit(128 + signal_number))
    try:
        with ExitStack() as stack:
            return Demo(source, output, stack).run()
    except Failed as failure:
        print(f"\nFAILED: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


@dataclass(frozen=True)
class Receiver:
    """A receiving peer: the name that the rules give it, its AE title, its port, the folder of what it got."""

    name: str
    ae_title: str
    port: int
    folder: Path

    def objects(self) -> dict[str, Path]:
        """SOP Instance UID to file, of what is whole."""
        found = {}
        for path in sorted(self.folder.iterdir()):
            try:
                found[str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)] = path
            except (InvalidDicomError, EOFError, AttributeError):  # still being written
                continue
        return found


class Demo:
    """One run. Whatever is started is stopped by `stack`."""

    def __init__(self, source: Path | None, output: Path, stack: ExitStack) -> None:
        self._source = source
        self._output = output
        self._stack = stack
        self._started = time.monotonic()
        self._problems: list[str] = []

    def run(self) -> int:
        """All of it, top to bottom."""
        files = self._files()
        make_room(self._output)
        print(f"pacsnode demo: everything is left in {self._output}\n")
        receivers = [self._receive("xray-1", "XR1"), self._receive("main-pacs", "PACS")]
        what = "DCMTK storescp" if STORESCP.exists() else "pacsnode's own receive stage"
        self._say("peers", f"{' and '.join(f'{r.ae_title} on port {r.port}' for r in receivers)} ({what})")
        settings = self._serve(receivers)
        for label, path in files.items():
            self._send(settings, label, path)
        lives = self._wait(settings)
        received = {receiver.name: receiver.objects() for receiver in receivers}
        self._judge(lives, received)
        everything = received["xray-1"] | received["main-pacs"]
        written = present(lives, everything, self._output / "results")
        self._tell(settings, lives, receivers, written)
        return 1 if self._problems else 0

    def _say(self, subject: str, text: str) -> None:
        print(f"{time.monotonic() - self._started:6.1f} s  {subject:9} {text}", flush=True)

    def _files(self) -> dict[str, Path]:
        if self._source is not None:
            if not self._source.exists():
                raise Failed(f"there is no {self._source}")
            return {f"all DICOM files below {self._source}": self._source}
        found = {label: get_testdata_file(name, download=False) for label, name in IMAGES.items()}
        missing = [IMAGES[label] for label, path in found.items() if path is None]
        if missing:
            raise Failed(f"{', '.join(missing)} not found; they come with pydicom and pydicom-data: delete .venv")
        return {f"{label} {IMAGES[label]}": Path(str(path)) for label, path in found.items()}

    # processes

    def _start(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=self._output,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops its processes in order
            )
        self._stack.callback(stop, process)
        return process

    def _receive(self, name: str, ae_title: str) -> Receiver:
        folder = self._output / "received" / name
        folder.mkdir(parents=True)
        receiver = Receiver(name, ae_title, free_port(), folder)
        port = str(receiver.port)
        if STORESCP.exists():
            command = [str(STORESCP), "--fork", "+B", "--aetitle", ae_title, "-od", str(folder), port]
        else:
            command = [sys.executable, str(HERE / "demo_receiver.py"), str(folder), port, ae_title]
        log = self._output / "received" / f"{name}.log"
        wait_for_port(receiver.port, self._start(command, log), log)
        return receiver

    def _serve(self, receivers: list[Receiver]) -> Settings:
        """`pacsnode serve`, as at a site, with settings by environment."""
        rules = (HERE / "demo_rules.yaml").read_text()
        for placeholder, receiver in zip(("SENDER_PORT", "PACS_PORT"), receivers, strict=True):
            rules = rules.replace(placeholder, str(receiver.port))
        (self._output / "routing_rules.yaml").write_text(rules)
        for variable in [v for v in os.environ if v.startswith("PACSNODE_")]:
            del os.environ[variable]  # settings of a real node on this machine
        os.environ |= {
            "PACSNODE_HOME": str(self._output / "node"),
            "PACSNODE_RULES": str(self._output / "routing_rules.yaml"),
            "PACSNODE_MODELS": str(ROOT / "models"),
            "PACSNODE_DICOM_HOST": LOOPBACK,
            "PACSNODE_DICOM_PORT": str(free_port()),
            "PACSNODE_WEB_PORT": "0",
            "PACSNODE_MINIMUM_FREE_MB": "64",
        }
        os.chdir(self._output)  # where no pacsnode.toml lies
        settings = load()
        self._log = self._output / "node.log"
        self._node = self._start([sys.executable, "-m", "pacsnode", "serve"], self._log)
        wait_for_port(settings.dicom_port, self._node, self._log)
        self._say(
            "node", f"pacsnode serve, AE title {settings.ae_title} on port {settings.dicom_port}; log in node.log"
        )
        return settings

    # the work

    def _send(self, settings: Settings, label: str, path: Path) -> None:
        node = f"{LOOPBACK}:{settings.dicom_port}:{settings.ae_title}"
        sent = pacsnode("send", str(path), "--to", node, "--from", "XR1")
        with (self._output / "send.log").open("a") as log:
            log.write(sent.stdout + sent.stderr)
        if sent.returncode:
            self._problems.append(f"not everything was sent: {sent.stderr.strip() or sent.stdout.strip()}")
        self._say("sent", f"{label}: {(sent.stdout.strip().splitlines() or ['nothing'])[-1]}")

    def _wait(self, settings: Settings) -> list[dict[str, Any]]:
        """Until every case is done or parked and every result delivered or parked; tells what changes."""
        told, changed_s, over_before = "", time.monotonic(), False
        while True:
            lives = look(settings)
            now = progress(lives)
            if now != told:
                self._say("progress", now)
                told, changed_s = now, time.monotonic()
            # Twice in a row: the node may just be deciding on the last image.
            over = bool(lives) and all(map(is_over, lives))
            if over and over_before:
                return lives
            over_before = over
            if self._node.poll() is not None:
                raise Failed(f"the node ended with exit code {self._node.returncode}\n{tail(self._log)}")
            if time.monotonic() - changed_s > STALL_LIMIT_S:
                self._problems.append(f"nothing went on for {STALL_LIMIT_S:g} s; see {self._log}")
                return lives
            time.sleep(LOOK_EVERY_S)

    def _judge(self, lives: list[dict[str, Any]], received: dict[str, dict[str, Path]]) -> None:
        """Everything that should be there and is not."""
        cases = [case for life in lives for case in life["cases"]]
        if not cases:
            self._problems.append("no rule took any of the studies; the timeline says why")
        for case in cases:
            if case["state"] != "done":
                self._problems.append(f"{case['service']} is {case['state']}: {case['reason']}")
            for delivery in case["deliveries"]:
                uid, where = delivery["sop_instance_uid"], delivery["destination"]
                if delivery["state"] not in ("sent", "confirmed"):
                    self._problems.append(f"{uid} to {where} is {delivery['state']}: {delivery['reason']}")
                elif uid not in received[where]:
                    self._problems.append(f"{uid} was delivered to {where}, but is not in its folder")
        if self._source is None:
            self._judge_own_images(cases, received)

    def _judge_own_images(self, cases: list[dict[str, Any]], received: dict[str, dict[str, Path]]) -> None:
        for service, kinds in EXPECTED.items():
            of_service = [r for case in cases if case["service"] == service for r in case["results"]]
            for where, objects in received.items():
                missing = kinds - {r["kind"] for r in of_service if r["sop_instance_uid"] in objects}
                if missing:
                    self._problems.append(f"{service}: no {', '.join(sorted(missing)).upper()} arrived at {where}")

    def _tell(
        self, settings: Settings, lives: list[dict[str, Any]], receivers: list[Receiver], written: list[Path]
    ) -> None:
        shown = [pacsnode("studies", "show", life["study_instance_uid"]).stdout for life in lives]
        (self._output / "timeline.txt").write_text("\n".join(shown))
        print(f"\nThe timeline, as `pacsnode studies show` tells it ({settings.timezone}):\n")
        print("\n".join(shown))
        print("What was received, under telling names:")
        for path in written:
            print(f"  {path}")
        for receiver in receivers:
            print(f"All that {receiver.ae_title} got: {receiver.folder} ({len(receiver.objects())} files)")
        print(f"Rules: {settings.rules}   Log: {self._log}")
        if self._problems:
            print("\nFAILED:\n  " + "\n  ".join(self._problems), file=sys.stderr)
        else:
            print(f"\nAll arrived, in {time.monotonic() - self._started:.0f} s. Not for diagnosis.")


def make_room(output: Path) -> None:
    """An empty output folder; removes only what an earlier demo left there."""
    if output.exists() and any(output.iterdir()) and not (output / MARK).exists():
        raise Failed(f"{output} holds files that are not of a demo; name another folder with --output")
    for name in OURS:
        path = output / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    (output / MARK).write_text("The next scripts/demo with this output folder replaces what lies here.\n")


def look(settings: Settings) -> list[dict[str, Any]]:
    """The life of every study that the node has."""
    index = Index(settings.index_db)
    try:
        uids = [line.study_instance_uid for line in index.studies(100_000)]
    finally:
        index.close()
    return [life for uid in reversed(uids) if (life := study_life(settings, uid)) is not None]


def is_over(life: dict[str, Any]) -> bool:
    """Whether nothing more will happen to a study by itself."""
    if life["conflict"] or not life["received"]["instances"]:
        return True
    if not life["rules_hash"] or life["waiting"]:
        return False
    return all(
        case["state"] in ("done", "parked") and all(d["state"] not in ("owed", "sending") for d in case["deliveries"])
        for case in life["cases"]
    )


def progress(lives: list[dict[str, Any]]) -> str:
    """Where all studies are, in one line."""
    cases = Counter(case["state"] for life in lives for case in life["cases"])
    cases["not whole yet"] = sum(len(life["waiting"]) for life in lives)
    deliveries = Counter(d["state"] for life in lives for case in life["cases"] for d in case["deliveries"])
    parts = [f"{len(lives)} studies"]
    for what, counts in (("cases", cases), ("deliveries", deliveries)):
        if counts.total():
            parts.append(f"{what}: " + ", ".join(f"{n} {state}" for state, n in counts.items() if n))
    return "; ".join(parts)


def pacsnode(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A `pacsnode` command with the demo's settings."""
    command = [sys.executable, "-m", "pacsnode", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it accepts connections. Raises Failed with the log's end when it does not."""
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"what should listen on port {port} did not start\n{tail(log)}")
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM; SIGKILL for the whole group when that is not enough."""
    process.terminate()
    try:
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tail(log: Path) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-12:])


if __name__ == "__main__":
    sys.exit(main())
