"""A receiving node as it is run: real archive, real admission, the list of the refused, on free ports."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from pacsnode import schema
from pacsnode.archive.refusals import RefusalLine, Refusals, listing
from pacsnode.archive.rule_versions import RuleVersions
from pacsnode.archive.store import Archive
from pacsnode.dimse import tls
from pacsnode.live import LivePeers
from pacsnode.receive.protocol import TimeLimits
from pacsnode.receive.server import ListenOptions, Server, TlsPort
from pacsnode.receive.site import SiteAdmission
from pacsnode.settings import load
from tests.archive import homes
from tests.receive.doubles import CT, EXPLICIT, RawClient, dcmtk, p_data, pdv, run_tool, store_command

RULES = """\
version: 1
peers:
  modality: {ae_title: MODALITY, host: 127.0.0.1, may: [store], issuer: CLINIC}
  other: {ae_title: OTHER, host: 127.0.0.1, may: [store], issuer: CLINIC}
  viewer: {ae_title: VIEWER, host: 127.0.0.1, may: [query]}
"""
OTHERS_OBJECT = "1.2.826.9.1"
OTHERS_FILE = "1.2.826.9.2"

T = TypeVar("T")


class Site:
    """One node with its home in `folder`."""

    def __init__(self, folder: Path, rules: str = RULES, limits: TimeLimits | None = None, **given: Any) -> None:
        self.folder = folder
        (folder / "rules.yaml").write_text(rules)
        self.settings = load(home=folder / "home", rules=folder / "rules.yaml", minimum_free_mb=1, **given)
        schema.migrate(self.settings)
        self._limits = limits or TimeLimits(linger_s=0.5)

    def __enter__(self) -> Self:
        settings = self.settings
        self.refusals = Refusals(settings.index_db)
        self.archive = Archive(settings.files, settings.index_db, "scp", minimum_free_mb=1, on_rows=lambda: None)
        self.versions = RuleVersions(settings.node_db)
        self.live = LivePeers(settings, self.versions)
        self.admission = SiteAdmission(settings, self.refusals, lambda: self.live.directory)
        port = None
        if settings.tls_certificate is not None:
            self.incoming = tls.Incoming(tls.credentials(settings), settings.tls_client_certificate)
            port = TlsPort(0, self.incoming.context)
        options = ListenOptions("127.0.0.1", 0, settings.maximum_associations, limits=self._limits, tls=port)
        self.server = Server(options, self.admission, self.archive).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop(grace_s=5)
        self.archive.close()
        self.refusals.close()
        self.versions.close()

    def client(self, contexts: Sequence[tuple[str, Sequence[str]]] = ((CT, (EXPLICIT,)),), **titles: str) -> RawClient:
        """An association with the node."""
        return RawClient(self.server.port).associate(contexts, **titles)

    def held(self) -> set[str]:
        """SOP Instance UIDs of what the index holds."""
        return {str(uid) for (uid,) in homes.rows(self.settings, "SELECT sop_instance_uid FROM instances")}

    def aside(self) -> list[tuple[str, str]]:
        """(SOP Instance UID, reason) of what is kept aside."""
        found = homes.rows(self.settings, "SELECT sop_instance_uid, reason FROM aside ORDER BY received_utc_us")
        return [(str(uid), str(reason)) for uid, reason in found]

    def refused(self, expected: int = 1) -> list[RefusalLine]:
        """The list of the refused once it has `expected` lines; it is written behind the associations' backs."""
        return wait_for(lambda: listing(self.settings.index_db), lambda lines: len(lines) >= expected)

    def torn(self) -> list[Path]:
        """Files that no row points to: named ones, and those that this process still holds open without a name."""
        known = {str(p) for t in ("instances", "aside") for (p,) in homes.rows(self.settings, f"SELECT path FROM {t}")}
        named = [p for p in homes.on_disk(self.settings) if str(p.relative_to(self.settings.files)) not in known]
        return named + [p for p in _open_files() if p.is_relative_to(self.settings.files) and not p.exists()]


def _open_files() -> list[Path]:
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(descriptor.readlink())
    return found


def wait_for(look: Callable[[], T], enough: Callable[[T], bool], patience_s: float = 20.0) -> T:
    """What `look` gives once it is `enough`; raises TimeoutError."""
    until = time.monotonic() + patience_s
    while not enough(found := look()):
        if time.monotonic() > until:
            raise TimeoutError(f"still {found!r}")
        time.sleep(0.02)
    return found


def ct_file(folder: Path, uid: str, preamble: bytes = bytes(128), pixels: int = 64) -> Path:
    """A Part 10 file of a small CT image."""
    made = Dataset.from_json(_template(uid))
    made.add_new("PixelData", "OW", bytes(i & 0xFF for i in range(pixels)))
    made.preamble = preamble
    made.ensure_file_meta()
    made.file_meta.TransferSyntaxUID = EXPLICIT
    path = folder / f"{uid}.dcm"
    dcmwrite(path, made, enforce_file_format=True)
    return path


def _template(uid: str) -> str:
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = CT, uid
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.826.9", "1.2.826.9.0"
    made.Modality, made.PatientID, made.PatientName = "CT", "4711", "Hong^Gildong"
    return str(made.to_json())


@contextlib.contextmanager
def another_modality(site: Site) -> Iterator[None]:
    """Another modality is inside an object while something bad happens; afterwards it ends it, and DCMTK sends one."""
    data = homes.data_set(OTHERS_OBJECT)
    with site.client(calling="OTHER") as other:
        other.send(store_command(OTHERS_OBJECT) + p_data(pdv(1, 0, data[:100])))
        yield
        other.send(p_data(pdv(1, 2, data[100:])))
        assert other.read_status().status.is_success
        other.release()
    file = ct_file(site.folder, OTHERS_FILE)
    sent = run_tool(
        dcmtk("storescu"), "-aet", "OTHER", "-aec", "PACSNODE", "127.0.0.1", str(site.server.port), str(file)
    )
    assert sent.returncode == 0, sent.stderr
    assert homes.held_bytes(site.settings, OTHERS_OBJECT) == data
    assert {OTHERS_OBJECT, OTHERS_FILE} <= site.held()
    wait_for(site.torn, lambda torn: not torn)
