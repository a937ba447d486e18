"""The live rules: a saved file is noticed, judged whole, recorded in `node.db`, and swapped in whole.

In: routing_rules.yaml as it lies on disk, the folder of services, the versions that `node.db` holds. Out: for `work`,
who judges, a Site; for `scp` the peers of the very version that was found good. A bad file or half of one changes
nothing, across restarts too, and its mistakes are logged once.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Mapping
from typing import Final

from pacsnode import peers, yamlfile
from pacsnode.archive.rule_versions import SHORT_HASH, RuleVersion, RuleVersions
from pacsnode.errors import ConfigError
from pacsnode.infer.catalogue import Service, load_catalogue, usable
from pacsnode.owing import Site
from pacsnode.peers import Directory
from pacsnode.retaining import archive_peer
from pacsnode.route.examples import check_examples
from pacsnode.route.rule import ServiceSummary
from pacsnode.route.rules import Rules, rules_of
from pacsnode.settings import Settings
from pacsnode.telemetry import Log
from pacsnode.watched import Clock, Saved, WatchedFile
from pacsnode.yamlfile import Document

log = Log(__name__)

WORK_LOCK: Final = "work.lock"
"""In the home. Who holds it judges the rules, and alone records what is live."""
MOST_TOLD: Final = 20
"""Mistakes of one content in the log; `pacsnode doctor` tells more."""


def load_site(settings: Settings) -> Site:
    """Services, rules and peers as they are on disk. Raises ConfigError with everything that is wrong."""
    services = load_catalogue(settings.models)
    return _site(settings, yamlfile.load(settings.rules), services)


def _site(settings: Settings, document: Document, services: Mapping[str, Service]) -> Site:
    rules = read_rules(document, services, settings)
    archive_peer(settings, rules.peers)
    return Site(rules, usable(services))


def read_rules(document: Document, services: Mapping[str, Service], settings: Settings) -> Rules:
    """The rules of a document, checked against these services. Raises ConfigError with all mistakes."""
    return rules_of(document, {name: _summary(service) for name, service in services.items()}, settings.zone)


def _summary(service: Service) -> ServiceSummary:
    remote, status = service.pipeline.remote, service.pipeline.status
    if remote is None:
        return ServiceSummary(service.name, status, service.accepts, service.obstacle)
    return ServiceSummary(service.name, status, service.accepts, service.obstacle, remote.peer, remote.results)


def judged(settings: Settings, document: Document, services: Mapping[str, Service]) -> Site:
    """A site that may go live: its examples hold too. Raises ConfigError."""
    site = _site(settings, document, services)
    if failures := check_examples(site.rules):
        raise ConfigError("\n".join(failures))
    return site


class LiveRules:
    """What `work` goes by. One thread calls `record` and `look`; any may call `ask`.

    Starts with the file, or with the last good version where the file is bad. Raises ConfigError when there is neither.
    """

    def __init__(self, settings: Settings, versions: RuleVersions, clock: Clock = time.monotonic) -> None:
        self._settings = settings
        self._versions = versions
        self._file = WatchedFile(settings.rules, clock)
        self._mistakes = Mistakes()
        self._asked = threading.Event()
        self._unrecorded: Saved | None = None
        self._version = versions.live()
        self._site = self._at_start(load_catalogue(settings.models))
        self._warn()

    @property
    def site(self) -> Site:
        """Rules, peers and services; swapped whole."""
        return self._site

    def record(self) -> None:
        """Tell every process of the node, and later starts, that what was found good is live."""
        saved, self._unrecorded = self._unrecorded, None
        if saved is not None and not self._is_live(saved):
            self._version = self._versions.go_live(saved.document, saved.text, saved.author, self._settings.rules)
            log.info("rules live", version=self._version.short, author=saved.author)

    def ask(self) -> None:
        """Let the next look read file and services, whether they changed or not, and at once."""
        self._asked.set()

    def look(self) -> bool:
        """Take over what was saved, once it lies still and is good. True when the site is a new one."""
        if self._asked.is_set():
            self._asked.clear()
            return self._take_over(asked=True)
        return self._file.has_settled() and self._take_over(asked=False)

    def _at_start(self, services: Mapping[str, Service]) -> Site:
        try:
            saved = self._file.read() if self._file.wait() else None
            if saved is None:
                raise ConfigError("somebody is writing this file just now", where=str(self._settings.rules))
            site = judged(self._settings, saved.document, services)
        except ConfigError as error:
            return self._last_good(services, error)
        self._unrecorded = saved
        return site

    def _last_good(self, services: Mapping[str, Service], error: ConfigError) -> Site:
        if self._version is None:
            raise error
        try:
            site = judged(self._settings, self._version.document(), services)
        except ConfigError:  # its services are gone, or the program is another: the file is what a person can correct
            raise error from None
        self._mistakes.tell(str(error), self._version)
        return site

    def _take_over(self, *, asked: bool) -> bool:
        try:
            saved = self._file.read()
            if saved is None:
                return False
            if self._is_live(saved) and not asked:
                self._mistakes.end()
                return False
            site = judged(self._settings, saved.document, load_catalogue(self._settings.models))
        except ConfigError as error:
            self._mistakes.tell(str(error), self._version)
            return False
        self._mistakes.end()
        self._unrecorded = saved
        self.record()
        self._site = site
        log.info("rules and models reloaded", rules=site.rules.hash[:SHORT_HASH])
        self._warn()
        return True

    def _warn(self) -> None:
        for line in self._site.rules.warnings[:MOST_TOLD]:
            log.warning("hardly meant in the rules", problem=line)

    def _is_live(self, saved: Saved) -> bool:
        return self._version is not None and self._version.hash == saved.document.sha256


class LivePeers:
    """The peers that `scp` knows: of the live version, or of the file as long as `node.db` has no version.

    `look` every second. Raises ConfigError where there are none. May be used by several threads.
    """

    def __init__(self, settings: Settings, versions: RuleVersions, clock: Clock = time.monotonic) -> None:
        self._settings = settings
        self._versions = versions
        self._file = WatchedFile(settings.rules, clock)
        self._mistakes, self._trouble = Mistakes(), Mistakes()
        self._lock = threading.Lock()
        self._version = versions.live()
        self._hash = ""
        self._directory = self._at_start()

    @property
    def directory(self) -> Directory:
        """All peers; swapped whole."""
        return self._directory

    def look(self) -> bool:
        """Take over a new live version; where there is none, what was saved. True when the peers are new ones."""
        with self._lock:
            return self._look(asked=False)

    def reload(self) -> None:
        """As `look`, and at once. What was saved is for `work` to judge, which has the same signal."""
        with self._lock:
            if not self._look(asked=True):
                log.info("no new peers", version=self._hash[:SHORT_HASH])

    def _at_start(self) -> Directory:
        if self._version is not None:
            try:
                directory = self._peers_of(self._version.document())
            except ConfigError as error:  # recorded by another program; `work` is about to judge the file
                self._mistakes.tell(str(error), None)
            else:
                self._tell_of_file()
                return directory
        return self._peers_of(yamlfile.load(self._settings.rules))

    def _tell_of_file(self) -> None:
        try:
            peers.load(self._settings.rules)
        except ConfigError as error:
            self._mistakes.tell(str(error), self._version)

    def _look(self, *, asked: bool) -> bool:
        try:
            document = self._new_document(asked=asked)
            self._trouble.end()
            if document is None:
                return False
            self._directory = self._peers_of(document)
        except ConfigError as error:
            self._mistakes.tell(str(error), self._version)
            return False
        except sqlite3.Error as error:  # no reason to stop receiving
            self._trouble.tell(f"node.db cannot be read: {error}", self._version)
            return False
        self._mistakes.end()
        log.info("peers reloaded", version=self._hash[:SHORT_HASH], peers=len(self._directory.peers))
        return True

    def _new_document(self, *, asked: bool) -> Document | None:
        live_id = self._versions.live_id()
        if live_id is not None:
            if self._version is None or self._version.id != live_id:
                self._version = self._versions.live()
                return None if self._version is None else self._version.document()
            return None
        saved = self._file.read() if asked or self._file.has_settled() else None
        return None if saved is None or saved.document.sha256 == self._hash else saved.document

    def _peers_of(self, document: Document) -> Directory:
        directory = peers.of_document(document)
        self._hash = document.sha256
        return directory


class Mistakes:
    """Logs what is wrong with the rules once, then is silent until it is something else."""

    def __init__(self) -> None:
        self._told = ""

    def tell(self, problem: str, stays: RuleVersion | None) -> None:
        """One line that says what stays, one for each mistake."""
        if problem == self._told:
            return
        self._told = problem
        lines = problem.splitlines()
        stays_live = "" if stays is None else stays.short
        log.error("rules not taken over, the last good ones stay", version=stays_live, mistakes=len(lines))
        for line in lines[:MOST_TOLD]:
            log.error("mistake in the rules", problem=line)

    def end(self) -> None:
        """Nothing is wrong any more."""
        if self._told:
            log.info("rules in order again")
        self._told = ""
