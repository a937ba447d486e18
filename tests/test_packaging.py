"""The image and the services, as far as a machine without Docker and without a running systemd can try them.

The Dockerfile's own COPY and RUN lines are carried out in a folder and a fresh virtual environment, its health check
asks a live node, and the roles talk to a notify socket as to systemd.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pacsnode.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
UNITS = sorted((ROOT / "scripts" / "systemd").glob("*.service"))
INSTALLED = "/opt/pacsnode/venv/bin/pacsnode"
LOOPBACK = "127.0.0.1"
NO_RULES = (
    "version: 1\npeers:\n  a: {ae_title: A, host: 127.0.0.1, may: [store], issuer: X}\nrules: []\nunmatched: keep\n"
)


# ---------------------------------------------------------------------------------------------- the image


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, in order."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1].strip()) for line in lines if line.strip()]


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in instructions() if name == instruction]


def environment_of_image() -> dict[str, str]:
    """What its ENV lines say."""
    return dict(word.split("=", 1) for rest in arguments("ENV") for word in shlex.split(rest))


@dataclass(frozen=True)
class Image:
    """What the Dockerfile makes: a root folder, and the Python in which its pip lines were carried out."""

    root: Path
    bin: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in the image's working directory, with its variables; its paths lie below `root`."""
        variables = {k: f"{self.root}{v}" if v.startswith("/") else v for k, v in environment_of_image().items()}
        variables = {k: v for k, v in os.environ.items() if not k.startswith("PACSNODE_")} | variables
        return subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=f"{self.root}{arguments('WORKDIR')[0]}",
            env=variables | {"HOME": str(self.root), "PYTHONPATH": ""},
            check=False,
            capture_output=True,
            text=True,
        )


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The COPY lines in a folder, the RUN line that installs the program in a fresh virtual environment."""
    root = tmp_path_factory.mktemp("image")
    for rest in arguments("COPY"):
        *sources, target = rest.split()
        for source in sources:
            inside = Path(f"{root}{target}") / (source if target.endswith("/") else "")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, inside, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                inside.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / source, inside)
    Path(f"{root}{environment_of_image()['PACSNODE_HOME']}").mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root / "venv")], check=True)
    python = root / "venv" / "bin" / "python"
    # The dependencies are those of this Python: only what is copied is tried here, not the package index. A path in a
    # .pth file brings no .pth files of that place with it, so an editable pacsnode stays out.
    program = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout.strip()
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (install,) = [rest for rest in arguments("RUN") if "[ai]" in rest]
    words = [word.replace("/build", f"{root}/build") for word in shlex.split(install)]
    assert words[:4] == ["python", "-m", "pip", "install"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", *offline]
    done = subprocess.run([*pip, *words[4:]], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Image(root, root / "venv" / "bin")


def test_the_installed_program_is_all_of_the_package_and_nothing_else(image: Image) -> None:
    found = image.run("python", "-c", "import pacsnode; print(pacsnode.__path__[0])").stdout.strip()
    assert found.startswith(str(image.root / "venv"))
    installed = {p.relative_to(found) for p in Path(found).rglob("*.py")}
    assert installed == {p.relative_to(ROOT / "pacsnode") for p in (ROOT / "pacsnode").rglob("*.py")}


def test_the_image_s_command_runs_the_program(image: Image) -> None:
    (entry_point,) = json.loads(arguments("ENTRYPOINT")[0])
    (role,) = json.loads(arguments("CMD")[0])
    answer = image.run(entry_point, role, "--help")
    assert answer.returncode == 0, answer.stderr
    assert "whole node" in answer.stdout


def test_the_copied_models_can_be_used(image: Image) -> None:
    answer = image.run("pacsnode", "models", "list", "--json")
    assert answer.returncode == 0, answer.stderr
    names = {row["name"] for row in json.loads(answer.stdout)}
    assert names == {p.parent.name for p in (ROOT / "models").glob("*/pipeline.yaml")}


def test_the_copied_rules_hold_with_the_copied_models(image: Image) -> None:
    answer = image.run("pacsnode", "rules", "check")
    assert answer.returncode == 0, answer.stderr
    assert "examples hold" in answer.stdout


def test_the_image_s_settings_are_settings_of_the_program(image: Image) -> None:
    answer = image.run("pacsnode", "settings")
    assert answer.returncode == 0, answer.stderr
    assert f"PACSNODE_HOME={image.root}/var/lib/pacsnode" in answer.stdout


def test_ports_and_paths_of_the_image_are_those_of_the_settings() -> None:
    variables = environment_of_image()
    assert (
        arguments("EXPOSE") == [variables["PACSNODE_DICOM_PORT"]] == [str(Settings.model_fields["dicom_port"].default)]
    )
    assert arguments("VOLUME") == [variables["PACSNODE_HOME"]] == [str(Settings.model_fields["home"].default)]
    targets = {rest.split()[-1].rstrip("/") for rest in arguments("COPY")}
    assert variables["PACSNODE_MODELS"] in targets
    assert str(Path(variables["PACSNODE_RULES"]).parent) in targets


def test_the_image_does_not_run_as_root_and_its_user_owns_the_home() -> None:
    user = arguments("USER")[-1]
    assert user not in ("root", "0")
    (making,) = [rest for rest in arguments("RUN") if "useradd" in rest]
    install = next(shlex.split(c) for c in making.split("&&") if "install -d" in c)
    assert install[install.index("-o") + 1] == user
    assert install[-1] == environment_of_image()["PACSNODE_HOME"]
    names = [name for name, _ in instructions()]
    assert names.index("USER") < names.index("VOLUME"), "a volume takes over the owner that the folder has before"


def test_torch_comes_from_the_index_of_the_build_argument_in_the_pinned_version(tmp_path: Path) -> None:
    (install,) = [rest for rest in arguments("RUN") if "TORCH_INDEX" in rest]
    shown = tmp_path / "python"
    shown.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    shown.chmod(0o755)
    script = install.replace("/build/", f"{ROOT}/")
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TORCH_INDEX": "an-index"}
    words = subprocess.run(
        ["sh", "-c", script], env=variables, check=True, capture_output=True, text=True
    ).stdout.split()
    assert words[words.index("--index-url") + 1] == "an-index"
    assert re.fullmatch(r"torch==[0-9.]+", words[-1]), "a pin without a local version fits every build"


def test_everything_that_is_copied_is_let_into_the_build() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {source for rest in arguments("COPY") for source in rest.split()[:-1]} == let_in


# ---------------------------------------------------------------------------------------------- its health check


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_healthy(port: int) -> bool:
    """Carry out the HEALTHCHECK of the image."""
    command = json.loads(arguments("HEALTHCHECK")[0].split("CMD", 1)[1])
    assert command[0] == "python"
    variables = dict(os.environ) | {"PACSNODE_DICOM_PORT": str(port)}
    done = subprocess.run([sys.executable, *command[1:]], env=variables, check=False, capture_output=True, timeout=60)
    return done.returncode == 0


@contextmanager
def role(home: Path, name: str, **more: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A role on a home of its own, with a site that has no rules; gives its process and its DICOM port."""
    (home / "models").mkdir(parents=True)
    (home / "rules.yaml").write_text(NO_RULES)
    port = free_port()
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PACSNODE_")} | {
        "PACSNODE_HOME": str(home / "data"),
        "PACSNODE_RULES": str(home / "rules.yaml"),
        "PACSNODE_MODELS": str(home / "models"),
        "PACSNODE_DICOM_HOST": LOOPBACK,
        "PACSNODE_DICOM_PORT": str(port),
        "PACSNODE_WEB_PORT": "0",
        "PACSNODE_MINIMUM_FREE_MB": "1",
    }
    pacsnode = [sys.executable, "-m", "pacsnode"]
    subprocess.run([*pacsnode, "migrate"], env=variables, cwd=ROOT, check=True, capture_output=True)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([*pacsnode, name], env=variables | more, cwd=ROOT, stderr=log)
    try:
        yield process, port
    finally:
        process.kill()  # without effect on one that has ended
        process.wait()


def until(what: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_the_health_check_says_yes_of_a_node_that_receives_and_no_of_one_that_hangs(tmp_path: Path) -> None:
    with role(tmp_path, "scp") as (process, port):
        until(lambda: is_healthy(port))
        process.send_signal(signal.SIGSTOP)
        assert not is_healthy(port)
        process.send_signal(signal.SIGCONT)
        until(lambda: is_healthy(port))
        process.terminate()
        assert process.wait(60) == 0
    assert not is_healthy(port)


# ---------------------------------------------------------------------------------------------- the demo


def test_the_demo_leaves_reports_outlines_and_pictures(tmp_path: Path) -> None:
    output = tmp_path / "demo out"
    command = [sys.executable, str(ROOT / "scripts" / "demo_node.py"), "--output", str(output)]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    left = {path.name for path in (output / "results").iterdir()}
    assert left == {
        "chest-xray_report_SR.dcm",
        "chest-xray_report_SR.txt",
        "chest-xray_outlines_SEG.dcm",
        "chest-xray_overlay_SC.dcm",
        "chest-xray_overlay_SC.png",
        "ecg-arrhythmia_report_SR.dcm",
        "ecg-arrhythmia_report_SR.txt",
        "ecg-arrhythmia_page_SC.dcm",
        "ecg-arrhythmia_page_SC.png",
    }
    assert "Cardiothoracic" in (output / "results" / "chest-xray_report_SR.txt").read_text()
    assert {path.name for path in output.iterdir()} >= {"timeline.txt", "node.log", "received"}


def test_the_demo_touches_no_folder_of_others(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    command = [sys.executable, str(ROOT / "scripts" / "demo_node.py"), "--output", str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "name another folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


# ---------------------------------------------------------------------------------------------- systemd


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    there = tmp_path / "pacsnode"  # the place where they expect the program is not on this machine
    there.write_text("#!/bin/sh\n")
    there.chmod(0o755)
    copies = []
    for unit in UNITS:
        copies.append(tmp_path / unit.name)
        copies[-1].write_text(unit.read_text().replace(INSTALLED, str(there)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *copies], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def keys(unit: Path) -> dict[str, list[str]]:
    """Key to values of a unit file, sections left out."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith(("#", "[")):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda u: u.name)
def test_a_unit_runs_a_role_with_known_settings_and_comes_back_after_any_end(unit: Path) -> None:
    found = keys(unit)
    (command,) = found["ExecStart"]
    program, name = command.split()
    assert program == INSTALLED
    helped = subprocess.run(
        [sys.executable, "-m", "pacsnode", name, "--help"], cwd=ROOT, check=False, capture_output=True
    )
    assert helped.returncode == 0
    assert name == "serve" or found["ExecStartPre"] == [f"{INSTALLED} migrate"]
    known = {f"PACSNODE_{field.upper()}" for field in Settings.model_fields}
    assert {v.split("=")[0] for v in found["Environment"] if v.startswith("PACSNODE_")} <= known
    assert (found["Type"], found["NotifyAccess"], found["Restart"]) == (["notify"], ["main"], ["always"])
    assert found["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert found["StateDirectory"] == ["pacsnode"]
    assert "PACSNODE_HOME=/var/lib/pacsnode" in found["Environment"]


def messages(channel: socket.socket) -> Iterator[tuple[int, str]]:
    """(process, message) of what is sent to a notify socket, as systemd reads it."""
    size = socket.CMSG_SPACE(struct.calcsize("3i"))
    while True:
        data, ancillary, _, _ = channel.recvmsg(4096, size)
        sender = next(struct.unpack("3i", d)[0] for _, kind, d in ancillary if kind == socket.SCM_CREDENTIALS)
        yield sender, data.decode()


@pytest.mark.parametrize("name", ["scp", "work", "serve"])
def test_a_role_tells_systemd_that_it_is_ready_alive_and_stopping(tmp_path: Path, name: str) -> None:
    address = f"\0pacsnode-test-{os.getpid()}-{name}"  # abstract: no limit of length, nothing left behind
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        channel.bind(address)
        channel.settimeout(60)
        told = messages(channel)
        watched = {"NOTIFY_SOCKET": f"@{address[1:]}", "WATCHDOG_USEC": "400000"}
        with role(tmp_path, name, **watched) as (process, _):
            # NotifyAccess=main: what other processes of the service send does not count.
            of_main = (message for sender, message in told if sender == process.pid)
            before = [next(of_main)]
            while before[-1] != "READY=1":
                before.append(next(of_main))
            assert [next(of_main), next(of_main)] == ["WATCHDOG=1"] * 2
            process.terminate()
            after = [next(of_main)]
            while after[-1] != "STOPPING=1":
                after.append(next(of_main))
            assert set(before[:-1] + after[:-1]) <= {"WATCHDOG=1"}
            assert process.wait(60) == 0
