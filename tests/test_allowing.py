"""Only bundles whose files are as somebody allowed them run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacsnode import database, schema
from pacsnode.allowing import Allowing, allowed, author
from pacsnode.infer.catalogue import NOT_ALLOWED, Service, load_service
from pacsnode.node_tables import node
from pacsnode.settings import load
from tests.infer.bundles import workflow_bundle


@pytest.fixture
def allowing(tmp_path: Path) -> Iterator[Allowing]:
    database.migrate(tmp_path / "node.db", node)
    made = Allowing(tmp_path / "node.db")
    yield made
    made.close()


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return load_service(workflow_bundle(tmp_path / "models", "{}"))


def test_what_is_there_at_the_first_start_may_run(allowing: Allowing, service: Service, tmp_path: Path) -> None:
    assert "were allowed by nobody" in allowing.refusal(service)
    allowing.begin({service.name: service})
    assert allowing.refusal(service) == ""
    settings = load(home=tmp_path, models=tmp_path / "models")
    schema.migrate(settings)
    found = allowed(settings, service)
    assert found is not None
    assert (found.author, found.source) == (author(), "first start")


def test_what_comes_later_may_not_until_somebody_allows_it(allowing: Allowing, service: Service) -> None:
    allowing.begin({})
    allowing.begin({service.name: service})
    refusal = allowing.refusal(service)
    assert refusal.startswith(f"{NOT_ALLOWED}: the files of says with the hash {service.bundle_hash[:12]}")
    assert "run `pacsnode models allow says`" in refusal
    assert not allowing.has_grown()
    allowing.allow(service, "allow")
    assert allowing.has_grown()
    assert not allowing.has_grown()
    assert allowing.refusal(service) == ""


@pytest.mark.parametrize("change", ["content", "new file", "removed", "same length and time"])
def test_a_changed_file_is_refused_at_once(allowing: Allowing, service: Service, change: str) -> None:
    allowing.begin({service.name: service})
    script = service.folder / "scripts" / "said.py"
    if change == "content":
        script.write_text("OUTPUTS = 1\n")
    elif change == "new file":
        (service.folder / "scripts" / "more.py").write_text("")
    elif change == "removed":
        script.unlink()
    else:
        before = script.stat()
        script.write_text(script.read_text().replace("nan", "nam"))
        os.utime(script, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "the files of says were changed while the node runs (their hash is now " in allowing.refusal(service)


def test_files_written_anew_with_the_same_content_are_the_same_bundle(allowing: Allowing, service: Service) -> None:
    allowing.begin({service.name: service})
    shutil.copytree(service.folder, service.folder.with_name("copy"))
    shutil.rmtree(service.folder)
    service.folder.with_name("copy").rename(service.folder)
    assert allowing.refusal(service) == ""
    (service.folder / "LICENSE").write_text("")
    assert allowing.refusal(service) != ""


def test_a_folder_that_is_gone_is_refused(allowing: Allowing, service: Service) -> None:
    allowing.begin({service.name: service})
    shutil.rmtree(service.folder)
    assert allowing.refusal(service).startswith(NOT_ALLOWED)
