"""`pacsnode models run`: one service on a folder of DICOM files, on the node's own way, outside of the node's cases.

In: the name of a service, files. Out: findings on the screen, and the result objects in a folder. Decides as a rule
that takes everything, runs the compute process with the limits of the service, and writes nothing into the node.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pacsnode.errors import ConfigError, PacsnodeError, Permanent

if TYPE_CHECKING:
    from pacsnode.findings import Findings, Group
    from pacsnode.handover import Candidate, Decision, ResultKind, Study
    from pacsnode.infer.catalogue import Service
    from pacsnode.infer.compute import ComputeKeeper
    from pacsnode.settings import Settings

NAME_ARGUMENT = typer.Argument(help="A service: the name of its folder.")
FILES_ARGUMENT = typer.Argument(help="A DICOM file, or a folder of such files.")
OUT_OPTION = typer.Option(None, "--out", help="A new or empty folder for the result objects; left out: none is kept.")
KINDS: tuple[tuple[ResultKind, ...], ...] = (("seg", "sr"), ("sc", "pdf", "ko", "pr"))
"""As the node makes them: the report does not wait for the picture."""
EVERYTHING = """\
version: 1
peers: {{screen: {{ae_title: SCREEN, host: 127.0.0.1, port: 104, investigational: true}}}}
rules:
  - name: everything
    when: {{SOPClassUID: {{exists: true}}}}
    complete: {{quiet: 0s}}
    run: "{name}"
    results: [sr, seg, sc, pdf, ko, pr]
    send_to: [screen]
unmatched: keep
"""
"""The rule by which the images are chosen: what the service accepts decides alone."""


def models_run(name: str = NAME_ARGUMENT, files: Path = FILES_ARGUMENT, out: Path | None = OUT_OPTION) -> None:
    """Run one service on DICOM files and print what it finds. No case of the node, nothing is sent."""
    from pacsnode.checks import missing_ai
    from pacsnode.cli.dicom_files import studies_of
    from pacsnode.settings import load

    settings = load()
    service = _usable(settings, name)
    if problem := missing_ai():
        raise Permanent(problem)
    if not files.exists():
        raise ConfigError("there is no such file or folder", where=str(files))
    if out is not None:
        _make_empty(out)
    found = studies_of(files)
    for path, why in found.skipped.items():
        typer.echo(f"{path} is left out: {why}", err=True)
    if not found.studies:
        raise Permanent(f"there are no DICOM objects in {files}")
    done = [ended for study in found.studies for ended in _run_study(settings, service, study, out)]
    if not all(done):
        raise typer.Exit(1)


def _usable(settings: Settings, name: str) -> Service:
    from pacsnode.allowing import allowed
    from pacsnode.infer.catalogue import folders, load_service
    from pacsnode.yamlfile import nearest

    by_name = {folder.name: folder for folder in folders(settings.models)}
    if name not in by_name:
        raise ConfigError(f"there is no service {name} in {settings.models}{nearest(name, by_name)}")
    service = load_service(by_name[name])
    if service.obstacle:
        raise ConfigError(f"{name} cannot be used: {service.obstacle}")
    if service.pipeline.remote is not None:
        asks = f"{name} is run by the vendor's node {service.pipeline.remote.peer}"
        raise ConfigError(f"{asks}: send a study to this node to try it")
    if allowed(settings, service) is None:
        typer.echo(f"{name} is not allowed to run in the node yet (`pacsnode models allow {name}`)", err=True)
    return service


def _make_empty(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise ConfigError("is not empty; name a new folder", where=str(out))
    except OSError as error:
        raise ConfigError(f"cannot be written ({error.strerror})", where=str(out)) from None


def _run_study(settings: Settings, service: Service, study: Study, out: Path | None) -> Iterator[bool]:
    """Whether each case of a study, or the study itself, came to its end."""
    from pacsnode.infer.compute import ComputeKeeper
    from pacsnode.work import child_environment

    decision = _decide(settings, service, study)
    if not decision.candidates:
        typer.echo(f"study {study.study_instance_uid}: {decision.verdicts[0].reason}")
        yield False
    quiet = child_environment(settings) | {"PACSNODE_LOG_LEVEL": "error"}
    for candidate in decision.candidates:
        keeper = ComputeKeeper([sys.executable, "-m", "pacsnode.child"], quiet)
        with tempfile.TemporaryDirectory(prefix="pacsnode-run-") as folder:
            try:
                _run(keeper, settings, service, _Case(study, candidate, Path(folder), out))
            except PacsnodeError as error:
                typer.echo(f"study {study.study_instance_uid}: {error}")
                yield False
            else:
                yield True
            finally:
                keeper.close()


def _decide(settings: Settings, service: Service, study: Study) -> Decision:
    from pacsnode import yamlfile
    from pacsnode.archive.attributes import with_files
    from pacsnode.live import read_rules
    from pacsnode.route.decide import decide

    document = yamlfile.parse(EVERYTHING.format(name=service.name), "models run")
    rules = read_rules(document, {service.name: service}, settings)
    return decide(with_files(study, settings.files, rules.beyond_index), rules)  # an absolute path stays what it is


class _Case:
    """One run: the images of a study, where it works, where its objects go."""

    def __init__(self, study: Study, candidate: Candidate, folder: Path, out: Path | None) -> None:
        by_uid = {instance.sop_instance_uid: instance.path for instance in study.instances}
        self.study = study
        self.candidate = candidate
        self.files = [by_uid[uid] for uid in candidate.instances]
        self.folder = folder
        self.out = out

    def key(self, service: Service) -> str:
        """As the node's, but never one of the node's own: what is tried here must not pass for its result."""
        from pacsnode.considering import case_key
        from pacsnode.infer.catalogue import hash_file

        hashed = tuple(
            replace(instance, dataset_sha256=f"models run {hash_file(Path(instance.path))}")
            for instance in self.study.instances
            if instance.sop_instance_uid in self.candidate.instances
        )
        return case_key(replace(self.study, instances=hashed), self.candidate, service)


def _run(keeper: ComputeKeeper, settings: Settings, service: Service, case: _Case) -> None:
    from pacsnode import findings_files

    images = "1 image" if len(case.files) == 1 else f"{len(case.files)} images"
    typer.echo(f"study {case.study.study_instance_uid}: {images}")
    limits = service.pipeline.limits
    asked = {
        "service": str(service.folder.absolute()),
        "bundle_hash": service.bundle_hash,
        "files": case.files,
        "folder": str(case.folder),
        "device": settings.device,
    }
    keeper.call("infer", asked, time_limit_s=limits.time_s, memory_limit_mb=limits.memory_mb)
    typer.echo("\n".join(_told(findings_files.load(case.folder))))
    if case.out is not None:
        for path in _encode(keeper, settings, service, case):
            typer.echo(f"  written: {path}")


def _encode(keeper: ComputeKeeper, settings: Settings, service: Service, case: _Case) -> Iterator[Path]:
    from datetime import datetime

    from pacsnode import __version__
    from pacsnode.dicom import uids
    from pacsnode.encode.results import read_objects
    from pacsnode.workflow import ENCODE_LIMITS

    assert case.out is not None
    key, started = case.key(service), datetime.now(settings.zone)
    plain: dict[str, Any] = {
        "key": key,
        "study_instance_uid": case.study.study_instance_uid,
        "service": service.name,
        "rules": ["models run"],
        "rules_hash": "",
        "instances": list(case.candidate.instances),
        "started_utc_us": int(started.timestamp() * 1000) * 1000,
    }
    for kinds in KINDS:
        request = {
            "case": plain,
            "kinds": kinds,
            "node": [settings.ae_title, uids.derive("pacsnode models run"), __version__],
            "sources": case.files,
            "folder": str(case.folder),
            "started": started.isoformat(timespec="milliseconds"),
            "predecessors": [],
        }
        limits = ENCODE_LIMITS
        keeper.call("encode", request, time_limit_s=limits.time_s, memory_limit_mb=limits.memory_mb)
        numbers = Counter[str]()
        for made in read_objects(case.folder, kinds):
            numbers[made.kind] += 1
            target = case.out / f"{key[:12]}-{made.kind}-{numbers[made.kind]}.dcm"
            shutil.copyfile(made.path, target)
            yield target


def _told(found: Findings) -> Iterator[str]:
    yield f"  {found.algorithm.title}, version {found.algorithm.version}, {found.algorithm.status}, not for diagnosis"
    for number, group in enumerate(found.groups, 1):
        if len(found.groups) > 1:
            yield f"  input {number} of {len(found.groups)}"
        yield from _of_group(group)


def _of_group(group: Group) -> Iterator[str]:
    for one in group.measurements:
        where = " ".join(part.meaning.lower() for part in (one.laterality, one.site) if part)
        named = one.unit.meaning if one.unit.value.startswith("{") else one.unit.value
        unit = "" if one.unit.value == "1" else f" {named}"
        yield f"  {one.name.meaning}{f' ({where})' if where else ''}: {one.value:.6g}{unit}"
    for said in group.evaluations:
        sure = "" if said.probability is None else f", probability {said.probability:.3g}"
        comment = f" ({said.comment})" if said.comment else ""
        yield f"  {said.name.meaning}: {said.presence.value}{sure}{comment}"
    for region in group.regions:
        sure = "" if region.probability is None else f", probability {region.probability:.3g}"
        frame = "" if region.frame is None else f" on frame {region.frame}"
        corners = ", ".join(f"{column:g}/{row:g}" for column, row in region.points)
        yield f"  region: {region.label}, {region.shape} {corners} (column/row){frame}{sure}"
    if group.label_map is not None:
        for segment in group.segments:
            yield f"  outline: {segment.label}, {int(group.mask(segment.value).sum())} pixels"
    for note in group.notes:
        yield f"  note: {note}"
