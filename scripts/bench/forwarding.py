"""How fast archived images are forwarded, side by side on this machine: the node, DCMTK, pynetdicom, Orthanc.

    scripts/bench/run forwarding [--rounds 3] [--ct 1200] [--dx 60] [--only pacsnode,dcmsend]

Every forwarder sends the same files to the same lean sink, in turn within each round. The node's time ends when the
last row of its outbox says `sent`, durably; DCMTK's and pynetdicom's when their process ends; Orthanc's when its job
has ended. A Markdown table goes to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.corpus import Kind, Sample, make
from bench.receivers import LARGEST_PDU, NODELAY, free_port

from pacsnode import schema
from pacsnode.archive.store import Archive
from pacsnode.handover import StoreRequest
from pacsnode.settings import load

LOOPBACK: Final = "127.0.0.1"
FORWARDERS: Final = {
    "pacsnode": "pacsnode: outbox, sender thread, each row and its audit row durable",
    "storescu": "`TCP_NODELAY=1 storescu -R`",
    "storescu as installed": "`storescu -R`",
    "dcmsend": "`TCP_NODELAY=1 dcmsend`",
    "dcmsend as installed": "`dcmsend`",
    "pynetdicom": "pynetdicom: `dcmread`, `send_c_store`, one association",
    "orthanc": "`TCP_NODELAY=1` Orthanc, `POST /modalities/sink/store`, images in its storage",
}
MUSTS: Final = {"storescu": 1.2, "dcmsend": 1.0, "pynetdicom": 10.0}
"""How many times as fast as these the node must be."""
PYNETDICOM: Final = """
import sys
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, DigitalXRayImageStorageForPresentation
ae = AE()
for sop_class in (CTImageStorage, DigitalXRayImageStorageForPresentation):
    ae.add_requested_context(sop_class, "1.2.840.10008.1.2.1")
association = ae.associate("127.0.0.1", int(sys.argv[1]))
assert association.is_established
for path in sys.argv[2:]:
    assert association.send_c_store(dcmread(path)).Status == 0
association.release()
"""


@dataclass(frozen=True)
class Job:
    """What is forwarded, and to where."""

    samples: Sequence[Sample]
    port: int

    @property
    def paths(self) -> list[str]:
        """Of the files."""
        return [str(sample.path) for sample in self.samples]


Forward = Callable[[], float]
"""Forwards all of it; the seconds that it took."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ct", type=int, default=1200)
    parser.add_argument("--dx", type=int, default=60)
    parser.add_argument("--only", default=",".join(FORWARDERS))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    names = given.only.split(",")
    with tempfile.TemporaryDirectory(prefix="bench-forwarding-", dir=given.folder) as folder:
        wanted: dict[Kind, int] = {"ct": given.ct, "cr": given.dx}
        for kind, count in wanted.items():
            if not count:
                continue
            seconds = _measure(names, make(kind, count, Path(folder) / kind), Path(folder), given.rounds)
            print(_table(kind, count, seconds), end="\n\n", flush=True)


def _measure(names: Sequence[str], samples: Sequence[Sample], folder: Path, rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        sink = stack.enter_context(_process(["-m", "bench.sink"]))
        job = Job(samples, int(sink.read()))
        forwards = {
            name: stack.enter_context(_STARTS[name](job, folder / f"{samples[0].path.parent.name}-work"))
            for name in names
        }
        for number in range(-1, rounds):  # the first one warms
            for name in names if number % 2 else names[::-1]:
                try:
                    took_s = forwards[name]()
                except subprocess.CalledProcessError as error:  # pynetdicom loses an answer now and then
                    sink.ask()
                    print(f"round {number} {name}: FAILED, exit code {error.returncode}", file=sys.stderr, flush=True)
                    if number >= 0:
                        seconds[name].append(math.inf)
                    continue
                taken = sink.ask()
                if taken["objects"] != len(samples):
                    raise RuntimeError(f"{name}: {taken['objects']} of {len(samples)} objects arrived")
                if number >= 0:
                    seconds[name].append(took_s)
                print(f"round {number} {name}: {len(samples) / took_s:.0f} objects/s", file=sys.stderr, flush=True)
    return seconds


class _Talking:
    """A Python process that answers lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmark ended early, see its message above")
        return line.strip()

    def ask(self) -> dict[str, Any]:
        """Its answer to a line."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.read())
        return answer


@contextmanager
def _process(words: Sequence[str]) -> Iterator[_Talking]:
    process = subprocess.Popen([sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield _Talking(process)
    finally:
        process.communicate(timeout=60)


@contextmanager
def _node(job: Job, folder: Path) -> Iterator[Forward]:
    settings = load(home=folder / "home")
    schema.migrate(settings)
    archive = Archive(settings.files, settings.index_db, "bench", minimum_free_mb=1, on_rows=lambda: None)
    for sample in job.samples:
        meta = sample.meta
        names = meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid
        writer = archive.open(StoreRequest(*names, "CT1", "PACSNODE", LOOPBACK, "ct-1", "CLINIC"), "received")
        writer.write([sample.path.read_bytes()[meta.dataset_offset :]])
        writer.commit()
    archive.close()
    with _process(["-m", "bench.forwarding_node", str(settings.home), str(job.port)]) as node:
        assert node.read() == "ready"
        yield lambda: float(node.ask()["seconds"])


@contextmanager
def _dcmtk(job: Job, words: Sequence[str], environment: dict[str, str]) -> Iterator[Forward]:
    command = [*words, "-aec", "SINK", LOOPBACK, str(job.port), *job.paths]
    clean = {key: value for key, value in os.environ.items() if key not in NODELAY}

    def forward() -> float:
        started_s = time.monotonic()
        ended = subprocess.run(command, env=clean | environment, capture_output=True, text=True, timeout=600)
        took_s = time.monotonic() - started_s
        if ended.returncode or "Store Failed" in ended.stderr:
            raise RuntimeError(f"{words[0]}: {ended.stderr[-300:]}")
        return took_s

    yield forward


@contextmanager
def _pynetdicom(job: Job, folder: Path) -> Iterator[Forward]:
    def forward() -> float:
        started_s = time.monotonic()
        subprocess.run([sys.executable, "-c", PYNETDICOM, str(job.port), *job.paths], check=True, timeout=600)
        return time.monotonic() - started_s

    yield forward


@contextmanager
def _orthanc(job: Job, folder: Path) -> Iterator[Forward]:
    storage = folder / "orthanc"
    storage.mkdir()
    port = free_port()
    settings = {
        "StorageDirectory": str(storage),
        "IndexDirectory": str(storage),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "SyncStorageArea": False,
        "DicomModalities": {"sink": ["SINK", LOOPBACK, job.port]},
        "MaximumPduLength": int(LARGEST_PDU),
        "RegisteredUsers": {"bench": "bench"},
    }
    (storage / "orthanc.json").write_text(json.dumps(settings))
    process = subprocess.Popen(
        ["/usr/sbin/Orthanc", str(storage / "orthanc.json")], env=os.environ | NODELAY, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://{LOOPBACK}:{port}"
        _await(url)
        names = [_http(f"{url}/instances", sample.path.read_bytes())["ID"] for sample in job.samples]
        body = json.dumps({"Resources": names, "Synchronous": True}).encode()

        def forward() -> float:
            started_s = time.monotonic()
            said = _http(f"{url}/modalities/sink/store", body)
            assert said["FailedInstancesCount"] == 0
            return time.monotonic() - started_s

        yield forward
    finally:
        process.terminate()
        process.wait(60)


def _await(url: str) -> None:
    until_s = time.monotonic() + 60
    while True:
        try:
            _http(f"{url}/system", None)
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.1)
        else:
            return


def _http(url: str, body: bytes | None) -> dict[str, Any]:
    secret = base64.b64encode(b"bench:bench").decode()
    request = urllib.request.Request(url, body, {"Authorization": f"Basic {secret}"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        said: dict[str, Any] = json.load(answer)
        return said


def _table(kind: Kind, count: int, seconds: dict[str, list[float]]) -> str:
    title = {"ct": "CT, 512 x 512, 0.53 MB each", "cr": "DX, 2800 x 2400, 13.4 MB each"}.get(kind, kind)
    lines = [f"| {count} {title} | objects/s: median (from to) | the node against it | must |", "|---|---|---|---|"]
    ours = seconds.get("pacsnode", [])
    for name, took in seconds.items():
        rates = sorted(count / one for one in took)
        ratio = statistics.median(theirs / own for own, theirs in zip(ours, took, strict=True)) if ours else 0
        must = MUSTS.get(name)
        shown = "" if name == "pacsnode" or not ours else f"{ratio:.2f}x"
        shown = f"**{shown}**" if must and ratio < must else shown
        median = statistics.median(rates)
        failed = took.count(math.inf)
        spread = f"{median:.0f} ({rates[0]:.0f} to {rates[-1]:.0f}){f', {failed} rounds FAILED' if failed else ''}"
        lines.append(f"| {FORWARDERS[name]} | {spread} | {shown} | {f'{must:g}x' if must else ''} |")
    return "\n".join(lines)


_STARTS: Final[dict[str, Callable[[Job, Path], Any]]] = {
    "pacsnode": _node,
    "storescu": lambda job, folder: _dcmtk(job, ["/usr/bin/storescu", "-R"], NODELAY),
    "storescu as installed": lambda job, folder: _dcmtk(job, ["/usr/bin/storescu", "-R"], {}),
    "dcmsend": lambda job, folder: _dcmtk(job, ["/usr/bin/dcmsend"], NODELAY),
    "dcmsend as installed": lambda job, folder: _dcmtk(job, ["/usr/bin/dcmsend"], {}),
    "pynetdicom": _pynetdicom,
    "orthanc": _orthanc,
}


if __name__ == "__main__":
    main()
