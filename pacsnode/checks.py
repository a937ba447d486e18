"""`pacsnode doctor`: what is right, what is not, and what to do. Also what `serve` refuses to start without."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pacsnode import database, schema, yamlfile
from pacsnode.allowing import allowed
from pacsnode.archive import quarantine, refusals
from pacsnode.archive.cases import Cases
from pacsnode.archive.index import Index
from pacsnode.archive.rule_versions import RuleVersion, RuleVersions
from pacsnode.deliver import overview
from pacsnode.deliver.outbox import Outbox
from pacsnode.dimse import tls
from pacsnode.dimse.association import ECHO_CONTEXT, Association, Timeouts
from pacsnode.errors import ConfigError, PacsnodeError, Permanent, SchemaError, Transient
from pacsnode.infer import kserve
from pacsnode.infer.catalogue import Service, load_catalogue
from pacsnode.live import WORK_LOCK, LiveRules, judged
from pacsnode.owing import Site
from pacsnode.retaining import is_low, retention, why_nothing_goes
from pacsnode.settings import Settings

Level = Literal["ok", "warning", "wrong"]
ECHO_TIMEOUTS = Timeouts(connect_s=3.0, acse_s=5.0, pdu_s=5.0, dimse_s=5.0)
EXPIRY_WARNING_DAYS = 30
TIME_ERROR = 5
"""adjtimex(2): the clock is not synchronised."""

SYNTAXES = {
    "JPEG": "1.2.840.10008.1.2.4.50",
    "JPEG lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "HTJ2K": "1.2.840.10008.1.2.4.201",
    "RLE": "1.2.840.10008.1.2.5",
}


@dataclass(frozen=True)
class Check:
    """One line of doctor. `todo` says what a person should do; "" when nothing."""

    subject: str
    level: Level
    found: str
    todo: str = ""


def check_start(settings: Settings) -> None:
    """Make a good rules file live. Raises ConfigError for what would make every case fail: no version of the rules that
    is good, models, a missing `[ai]`.
    """
    with closing(RuleVersions(settings.node_db)) as versions:
        live = LiveRules(settings, versions)
        if any(rule.enabled for rule in live.site.rules.rules) and (problem := missing_ai()):
            raise ConfigError(problem)
        # One that drains yet after its `serve` was killed goes on judging by itself.
        with suppress(ConfigError), database.locked(settings.home / WORK_LOCK, wait=False):
            live.record()


def missing_ai() -> str:
    """A sentence when models cannot run here, "" when they can."""
    missing = [name for name in ("torch", "monai") if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    return f"{' and '.join(missing)} not installed; AI services need the extra: pip install 'pacsnode[ai]'"


def examine(settings: Settings) -> Iterator[Check]:
    """All checks, quick ones first; each stands by itself."""
    yield from _guarded("home", lambda: _disk(settings))
    yield from _guarded("databases", lambda: _databases(settings))
    sites: list[Site] = []

    yield from _guarded("rules and models", lambda: _rules_and_models(settings, sites))
    yield from _guarded("torch", _torch)
    yield from _guarded("codecs", _codecs)
    yield from _guarded("clock", lambda: _clock(settings))
    yield from _guarded("TLS", lambda: _tls(settings))
    for site in sites:
        if site.rules.unmatched == "alarm" and settings.node_db.exists():
            yield from _guarded("unmatched", lambda: _unmatched(settings))
        yield from _guarded("peers", lambda site=site: _peers(settings, site))  # type: ignore[misc]
    if settings.index_db.exists() and settings.node_db.exists():
        yield from _guarded("callers", lambda: _callers(settings))
        yield from _guarded("studies", lambda: _studies(settings))
        yield from _guarded("retention", lambda: _retention(settings))


def _guarded(subject: str, checks: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from checks()
    except PacsnodeError as error:
        yield Check(subject, "wrong", str(error), "correct what the line names")
    except OSError as error:
        yield Check(subject, "wrong", str(error), "correct the file or folder that the line names")
    except sqlite3.Error as error:
        yield Check(
            subject, "wrong", f"a database cannot be read: {error}", "stop the node and restore it from a backup"
        )


def _disk(settings: Settings) -> Iterator[Check]:
    schema.prepare_home(settings)
    free_mb = shutil.disk_usage(settings.home).free >> 20
    if free_mb < settings.minimum_free_mb:
        yield Check(
            "home",
            "wrong",
            f"{settings.home}: {free_mb} MB free, less than {settings.minimum_free_mb} MB: images are refused (A700)",
            "free space on this disk, or lower PACSNODE_MINIMUM_FREE_MB",
        )
    else:
        yield Check("home", "ok", f"{settings.home} is writable, {free_mb} MB free")


def _databases(settings: Settings) -> Iterator[Check]:
    schema.check(settings)
    for path in (settings.index_db, settings.node_db):
        connection = database.connect(path, "NORMAL")
        try:
            answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            connection.close()
        if answer != "ok":
            yield Check("databases", "wrong", f"{path}: {answer}", "stop the node and restore this file from a backup")
            return
    yield Check("databases", "ok", "index.db and node.db are whole and of this version")


def _rules_and_models(settings: Settings, sites: list[Site]) -> Iterator[Check]:
    """The file as it lies there, and which version is live; `sites` gets the site where both are good."""
    services = load_catalogue(settings.models)
    yield from _models(settings, services)
    live = _live_version(settings)
    since = datetime.fromtimestamp(live.live_utc_us / 1e6, settings.zone) if live else None
    version = f"version {live.short} of {since:%Y-%m-%d %H:%M:%S}" if live else ""
    try:
        site = judged(settings, yamlfile.load(settings.rules), services)
    except ConfigError as error:
        stays = f"; {version} stays live" if live else ""
        yield Check("rules", "wrong", f"{error}{stays}", "correct what the line names")
        return
    sites.append(site)
    if site.rules.warnings:
        yield Check("rules", "warning", "\n".join(site.rules.warnings), "correct the line, if it is not meant so")
    enabled = sum(rule.enabled for rule in site.rules.rules)
    found = f"{site.rules.file}: {enabled} rules, {len(site.rules.peers.peers)} peers"
    if live is None:
        yield Check("rules", "ok", found)
    elif live.hash == site.rules.hash:
        yield Check("rules", "ok", f"{found}; {version} is live")
    else:
        todo = "a running node takes it over within seconds; if this stays, reload it (SIGHUP)"
        yield Check("rules", "warning", f"{found}; good, but {version} is live", todo)


def _models(settings: Settings, services: Mapping[str, Service]) -> Iterator[Check]:
    names = ", ".join(f"{s.name} {s.version} ({s.pipeline.status})" for s in services.values())
    yield Check("models", "ok", names or "no services")
    for service in services.values():
        if service.obstacle:
            yield Check(f"model {service.name}", "warning", service.obstacle, "do so, or take its folder away")
        elif allowed(settings, service) is None and settings.node_db.exists():
            todo = (
                f"look at its files, then `pacsnode models allow {service.name}`; the first start allows what is there"
            )
            yield Check(f"model {service.name}", "warning", "nobody allowed it as its files are: its cases wait", todo)
        elif service.pipeline.http is not None and (told := kserve.problem(service.pipeline.http, service.folder)):
            yield Check(f"model {service.name}", "warning", told, "mend the server, or `http` of its pipeline.yaml")


def _live_version(settings: Settings) -> RuleVersion | None:
    try:
        schema.check(settings)
    except (ConfigError, SchemaError):  # another line says so
        return None
    with closing(RuleVersions(settings.node_db)) as versions:
        return versions.live()


def _unmatched(settings: Settings) -> Iterator[Check]:
    with closing(Cases(settings.node_db)) as cases:
        count = cases.unmatched_count()
    if count:
        todo = "see `pacsnode rules explain UID` for why; set `unmatched: keep` where this is as it should be"
        yield Check("unmatched", "warning", f"{count} studies are taken by no rule", todo)


def _torch() -> Iterator[Check]:
    problem = missing_ai()
    if problem:
        yield Check("torch", "wrong", problem, "pip install 'pacsnode[ai]', then restart the node")
        return
    from pacsnode.infer.bundle import describe_torch  # seconds to import; doctor is no part of scp or work

    yield Check("torch", "ok", describe_torch())


def _codecs() -> Iterator[Check]:
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    missing = [name for name, uid in SYNTAXES.items() if not get_decoder(UID(uid)).is_available]
    if missing:
        yield Check("codecs", "warning", f"cannot decode {', '.join(missing)}", "install pacsnode's dependencies again")
    else:
        yield Check("codecs", "ok", "decoders for " + ", ".join(SYNTAXES))


def _clock(settings: Settings) -> Iterator[Check]:
    # struct timex is 208 bytes on 64-bit Linux; modes = 0 only reads.
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    if state == TIME_ERROR:
        yield Check(
            "clock",
            "warning",
            f"not synchronised; time zone {settings.timezone}",
            "let chrony or systemd-timesyncd set the clock: results carry its time",
        )
    else:
        yield Check("clock", "ok", f"synchronised; time zone {settings.timezone}")


def _tls(settings: Settings) -> Iterator[Check]:
    credentials = tls.credentials(settings)
    for path in (credentials.certificate, credentials.authorities):
        if path is not None:
            yield _expiry(path)
    if credentials.certificate is None:
        yield Check("TLS", "ok", "off: DICOM is received in clear text alone")
    else:
        credentials.server_context(settings.tls_client_certificate)  # raises what is wrong with the files
        asked = f"peers' certificates {settings.tls_client_certificate}"
        yield Check("TLS", "ok", f"received on port {settings.tls_port}, {asked}")


def _expiry(path: Path) -> Check:
    until = tls.valid_until(path)
    days = (until - datetime.now(UTC)).days
    told, todo = f"{path} ends on {until:%Y-%m-%d}", "put the renewed one in its place; a running node takes it over"
    if days < 0:
        return Check("certificate", "wrong", f"{told}: it has ended, peers refuse it", todo)
    level: Level = "warning" if days < EXPIRY_WARNING_DAYS else "ok"
    return Check("certificate", level, f"{told}, in {days} days", todo if level == "warning" else "")


def _callers(settings: Settings) -> Iterator[Check]:
    listed = refusals.listing(settings.index_db)
    times = sum(line.count for line in listed)
    kept = quarantine.count(settings.index_db)
    if kept:
        todo = "see `pacsnode peers refused`; `pacsnode peers allow NAME` takes them in"
        yield Check("quarantine", "warning", f"{kept} objects of unknown callers, not routed", todo)
    if listed:
        yield Check(
            "callers",
            "warning",
            f"{len({line.refusal.address for line in listed})} addresses were turned away, {times} times in all",
            "see `pacsnode peers refused`",
        )
    else:
        yield Check("callers", "ok", "nobody was turned away")


def _peers(settings: Settings, site: Site) -> Iterator[Check]:
    for name, peer in site.rules.peers.peers.items():
        if peer.type != "dimse" or peer.port is None:
            continue
        try:
            with Association.request(
                peer.host,
                peer.port,
                settings.ae_title,
                peer.ae_title,
                [ECHO_CONTEXT],
                ECHO_TIMEOUTS,
                tls=tls.credentials(settings).toward(peer),
            ) as association:
                status = association.echo()
        except (Transient, Permanent, ConfigError) as error:
            yield Check("peer " + name, "warning", str(error), "ask its operator, or correct host, port and AE title")
            continue
        yield Check("peer " + name, "ok" if status.is_success else "warning", f"answers C-ECHO with {status}")


def _studies(settings: Settings) -> Iterator[Check]:
    index, cases = Index(settings.index_db), Cases(settings.node_db)
    outbox = Outbox(settings.node_db, 0)
    try:
        for uid, reason in index.conflicts():
            yield Check(
                "study " + uid,
                "warning",
                f"stored, but its instances disagree on the patient ({reason}); it is not routed",
                "ask the department which patient it is, and have the study sent again under a right name",
            )
        aside = index.aside_count()
        if aside:
            yield Check("aside", "warning", f"{aside} objects are kept aside", "see `pacsnode studies aside`")
        overdue = sum(pending.is_overdue for pending in cases.pending())
        if overdue:
            todo = "see `pacsnode studies show UID`: send what is missing, or change `complete:` of the rule"
            yield Check("cases", "warning", f"{overdue} cases stay incomplete", todo)
        parked = cases.listing("parked", 1000)
        if parked:
            shadows = sum(record.shadow for record in parked)
            told = f"{len(parked)} parked" + (f", {shadows} of them in shadow" if shadows else "")
            yield Check("cases", "warning", told, "see `pacsnode jobs list`, then `jobs retry`")
        for (study,) in cases.rows("SELECT DISTINCT study_instance_uid FROM notes WHERE state = 'parked'"):
            todo = "see `pacsnode studies show UID`, then `jobs retry` with the key of the case"
            yield Check("study " + study, "wrong", "a note about its results cannot be made", todo)
        problems = list(overview.problems(outbox))
        yield from (Check("deliveries", "warning", told, todo) for told, todo in problems)
        if not (aside or overdue or parked or problems):
            yield Check("studies", "ok", "nothing is parked or kept aside")
    finally:
        outbox.close()
        cases.close()
        index.close()


def _retention(settings: Settings) -> Iterator[Check]:
    with closing(retention(settings)) as kept:
        survey = kept.survey()
    todo = "see `pacsnode retention`"
    if is_low(settings) and not survey.instances:
        reason = why_nothing_goes(settings, survey)
        yield Check("retention", "wrong", f"the disk is nearly full, and nothing may go: {reason}", todo)
    elif not settings.retention_keep_days:
        yield Check("retention", "ok", "off: nothing is ever removed")
    elif lacking := survey.staying_studies["lacking"]:
        told = f"{settings.retention_archive} says that it does not have all of {lacking} studies; they stay"
        yield Check("retention", "warning", told, f"send them there; {todo}")
    else:
        waiting = survey.staying_studies["unconfirmed"]
        yield Check("retention", "ok", f"{survey.studies} studies may go, {waiting} wait for the archive's word")
