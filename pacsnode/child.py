"""Composition root of the compute child: `python -m pacsnode.child`. Models stay loaded; each job names its service.

Takes paths, gives paths: findings and encoded objects lie in the case's folder. Opens no database, talks to no peer: it
has no socket to a modality, and delivers nothing. A service on an inference server is asked from here, since that call
stands in the place of a forward pass: numbers out, numbers in, between the pre- and postprocessing that run here, under
the time and memory limits of any model. No name of a patient, no DICOM and no result ever goes that way.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections import OrderedDict
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pacsnode import findings_files, telemetry
from pacsnode.errors import Permanent
from pacsnode.handover import Case, EncodeRequest, Form, NodeIdentity
from pacsnode.infer import compute
from pacsnode.infer.catalogue import NOT_ALLOWED, Service, bundle_hash, load_service
from pacsnode.infer.compute import Message
from pacsnode.telemetry import Log

if TYPE_CHECKING:
    from pacsnode.infer.bundle import Bundle

log = Log(__name__)

HELD_SHARE = 0.5
"""Of a job's memory limit: what loaded models and leftovers may take of it before it begins."""
LOG_LEVEL_VARIABLE = "PACSNODE_LOG_LEVEL"


class Models:
    """Services and their loaded models, by folder, the least recently used first. Only files of the hash that was asked
    for are loaded: it is taken before and after, so that what runs is what was hashed.
    """

    def __init__(self) -> None:
        self._loaded: OrderedDict[tuple[str, str], tuple[Service, Bundle]] = OrderedDict()
        self._has_run = False

    def get(self, folder: str, allowed_hash: str, device: str) -> tuple[Service, Bundle]:
        """The service and its model, loaded at the first call. Raises Permanent, ConfigError."""
        load_bundle = torch_side().load_bundle
        key = (folder, device)
        if key not in self._loaded or self._loaded[key][0].bundle_hash != allowed_hash:
            service = load_service(Path(folder))
            if service.obstacle:
                raise Permanent(f"{service.name} cannot be used: {service.obstacle}")
            _refuse_changed(service, service.bundle_hash, allowed_hash)
            loaded = service, load_bundle(service, device)
            _refuse_changed(service, bundle_hash(service.folder), allowed_hash)
            self._loaded[key] = loaded
        self._loaded.move_to_end(key)
        return self._loaded[key]

    def make_room(self, limit_mb: int) -> None:
        """Give back memory before a job with this limit, which counts all that the process holds.

        Other models go, the least recently used first, until half of the limit is free. Raises compute.Spent where that
        is not enough: a new process holds nothing.
        """
        enough_mb = limit_mb * HELD_SHARE
        if compute.resident_mb(os.getpid()) > enough_mb:
            _give_back()
        while self._loaded and compute.resident_mb(os.getpid()) > enough_mb:
            folder = self._loaded.popitem(last=False)[0][0]  # and nothing that would keep the model alive
            log.info("model unloaded, its memory is needed", service=Path(folder).name)
            _give_back()
        held_mb = compute.resident_mb(os.getpid())
        if self._has_run and held_mb > enough_mb:
            raise compute.Spent(f"the compute process still held {held_mb} MB of earlier cases")
        self._has_run = True


def _give_back() -> None:
    """Memory that Python and the C library keep for later goes back to the system."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc
        libc.malloc_trim(0)


def _refuse_changed(service: Service, found_hash: str, allowed_hash: str) -> None:
    if found_hash != allowed_hash:
        told = f"the files of {service.name} were changed while the node runs (their hash is now {found_hash[:12]})"
        raise Permanent(f"{NOT_ALLOWED}: {told}; look at them, then run `pacsnode models allow {service.name}`")


def torch_side() -> ModuleType:
    """pacsnode.infer.bundle, which takes seconds to import torch. Raises Permanent where the extra is not installed."""
    try:
        from pacsnode.infer import bundle
    except (ImportError, OSError) as error:
        raise Permanent(
            f"AI services need torch and MONAI, which cannot be loaded ({error}); "
            "run: pip install 'pacsnode[ai]', then restart the node"
        ) from error
    return bundle


def main() -> None:
    """Serve the keeper until it is gone."""
    telemetry.configure("child", os.environ.get(LOG_LEVEL_VARIABLE, "info"))
    models = Models()

    def warm(request: Message) -> Message:
        """Load models and what encoding needs, before the first study waits for it."""
        from pacsnode.encode.build import warm as warm_encoder  # highdicom: seconds to import

        warm_encoder()
        device: str = torch_side().pick_device(request["device"])
        problems = []
        for folder, allowed_hash in request["services"]:
            try:
                models.get(folder, allowed_hash, device)[1].ready()
            except Exception as error:  # noqa: BLE001  # one model that does not load must not keep the others cold
                problems.append(f"{Path(folder).name}: {error}")
        if problems:
            raise Permanent("; ".join(problems))
        return {"device": device}

    def infer(request: Message) -> Message:
        device = torch_side().pick_device(request["device"])

        from pacsnode.infer.run import infer as run

        service, bundle = models.get(request["service"], request["bundle_hash"], device)
        before = bundle.network_s
        found = run(service, bundle, bundle.ready(), [Path(f) for f in request["files"]])
        findings_files.save(found, Path(request["folder"]))
        return {"network_s": bundle.network_s - before}

    def infer_many(request: Message) -> Message:
        """Several cases of one service: an answer for each, in which `reason` says why there are no findings."""
        device = torch_side().pick_device(request["device"])

        from pacsnode.infer.run import infer_many as run

        service, bundle = models.get(request["service"], request["bundle_hash"], device)
        items = request["items"]
        before = bundle.network_s
        answers: list[Message] = []
        every = run(service, bundle, bundle.ready(), [[Path(f) for f in item["files"]] for item in items])
        for item, found in zip(items, every, strict=True):
            if isinstance(found, Permanent):
                answers.append({"reason": str(found)})
            else:
                findings_files.save(found, Path(item["folder"]))
                answers.append({"reason": None})
        each_s = (bundle.network_s - before) / len(items)
        return {"answers": [answer | {"network_s": each_s} for answer in answers]}

    def encode(request: Message) -> Message:
        from pacsnode.encode.build import encode as build
        from pacsnode.encode.results import write_objects

        asked = _encode_request(request)
        objects = build(findings_files.load(asked.folder), asked)
        write_objects(asked.folder, asked.case.results, objects, asked.form)
        return {"objects": len(objects)}

    def reject(request: Message) -> Message:
        """Our rejection note for results of ours."""
        from pacsnode.encode.rejection import rejection
        from pacsnode.encode.results import write_objects

        asked = _encode_request(request)
        asked.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_objects(asked.folder, asked.case.results, [rejection(request["code"], request["reason"], asked)])
        return {}

    def fail(request: Message) -> Message:
        """What says that a case was not analysed; its service may have gone."""
        from pacsnode.encode.failure import failure
        from pacsnode.encode.rejection import node_algorithm
        from pacsnode.encode.results import write_objects
        from pacsnode.infer.run import algorithm

        asked = _encode_request(request)
        asked.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        service = request["service"]
        said_by = algorithm(load_service(Path(service)), "none") if service else node_algorithm(asked)
        write_objects(asked.folder, asked.case.results, failure(request["reason"], said_by, asked))
        return {}

    def show(request: Message) -> Message:
        """A result made visible: for a command, not for the node."""
        from pacsnode.show.objects import show as made_visible

        sources = {uid: Path(p) for uid, p in request["sources"].items()}
        return vars(
            made_visible(Path(request["path"]), sources, Path(request["folder"]), whole_tree=request["whole_tree"])
        )

    def convert(request: Message) -> Message:
        """An archived object in a transfer syntax that a destination takes."""
        from pacsnode.infer.converting import convert as write

        write(Path(request["source"]), request["transfer_syntax_uid"], Path(request["target"]))
        return {}

    operations = (warm, infer, infer_many, encode, reject, fail, show, convert)
    compute.serve({one.__name__: one for one in operations}, models.make_room, _give_back)


def _encode_request(request: Message) -> EncodeRequest:
    lists = {k: tuple(request["case"][k]) for k in ("rules", "instances")}
    case = Case(**(request["case"] | lists | {"results": tuple(request["kinds"])}))
    return EncodeRequest(
        case,
        NodeIdentity(*request["node"]),
        tuple(Path(p) for p in request["sources"]),
        Path(request["folder"]),
        datetime.fromisoformat(request["started"]),
        tuple(Path(p) for p in request["predecessors"]),
        Form(**request.get("form", {})),
        tuple(request.get("unasked", ())),
    )


if __name__ == "__main__":
    main()
