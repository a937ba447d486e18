"""Which bundles may run: those whose files have a hash that an operator allowed, looked at before every case.

In: services as they were read, the allow list in `node.db`, the files as they lie there now. Out: "" or the reason for
which a case waits. At the first start of a node all services that are there are allowed: who set it up put them there.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from pacsnode import schema
from pacsnode.archive.allowed import Allowed, AllowList, Bundle, Source
from pacsnode.errors import SchemaError
from pacsnode.infer.catalogue import NOT_ALLOWED, Service, bundle_hash, fingerprint
from pacsnode.settings import Settings
from pacsnode.telemetry import Log

log = Log(__name__)

SHORT_HASH = 12


class Allowing:
    """The allow list as `work` asks it; may be used by several threads."""

    def __init__(self, node_db: Path) -> None:
        self._list = AllowList(node_db)
        self._seen = self._list.newest()
        self._same: dict[Path, str] = {}
        """Fingerprints of folders whose files were written anew, with the same content."""

    def close(self) -> None:
        """Give the connection back."""
        self._list.close()

    def begin(self, services: Mapping[str, Service]) -> None:
        """At the first start: what is there is allowed. Says of every later start what is not."""
        if self._list.begin(map(bundle_of, services.values()), author()):
            self._seen = self._list.newest()
            log.info("first start: the services that are there are allowed", services=",".join(sorted(services)))
        for service in services.values():
            if refusal := self.refusal(service):
                log.warning("service may not run", service=service.name, reason=refusal)

    def has_grown(self) -> bool:
        """Whether somebody allowed something since the last look."""
        newest = self._list.newest()
        seen, self._seen = self._seen, newest
        return newest != seen

    def is_allowed(self, service: Service) -> bool:
        """Whether somebody allowed the service as it was read."""
        return self._list.find(service.name, service.bundle_hash) is not None

    def allow(self, service: Service, source: Source) -> None:
        """Let the service run as it was read."""
        self._list.allow(bundle_of(service), author(), source)

    def refusal(self, service: Service) -> str:
        """Why the service may not run as its files are now; "" where it may."""
        try:
            changed = self._hash_now(service)
        except OSError as error:
            return f"{NOT_ALLOWED}: the files of {service.name} cannot be read ({error.strerror}: {error.filename})"
        if changed != service.bundle_hash:
            told = f"were changed while the node runs (their hash is now {changed[:SHORT_HASH]})"
        elif not self.is_allowed(service):
            told = (
                f"with the hash {service.bundle_hash[:SHORT_HASH]} (version {service.version}) were allowed by nobody"
            )
        else:
            return ""
        return (
            f"{NOT_ALLOWED}: the files of {service.name} {told}; look at them, "
            f"then run `pacsnode models allow {service.name}`: the case goes on by itself"
        )

    def _hash_now(self, service: Service) -> str:
        looks = fingerprint(service.folder)
        if looks in (service.looks, self._same.get(service.folder)):
            return service.bundle_hash
        found = bundle_hash(service.folder)
        if found == service.bundle_hash:
            self._same[service.folder] = looks
        return found


def allowed(settings: Settings, service: Service) -> Allowed | None:
    """Who allowed a service as it was read; None where nobody did, or where there is no node yet."""
    try:
        schema.check(settings)
    except SchemaError:
        return None
    with closing(AllowList(settings.node_db)) as held:
        return held.find(service.name, service.bundle_hash)


def bundle_of(service: Service) -> Bundle:
    """A service as the allow list has it."""
    return Bundle(service.name, service.bundle_hash, service.version)


def author() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user number without a name, as containers have them
        return "?"
