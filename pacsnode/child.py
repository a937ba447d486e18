"""Composition root of the compute child: `python -m pacsnode.child`. Models stay loaded; each job names its service.

Takes paths, gives paths: findings and encoded objects lie in the case's folder. Opens no database, talks to no peer.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pacsnode import findings, telemetry
from pacsnode.errors import Permanent
from pacsnode.handover import Case, EncodeRequest, NodeIdentity
from pacsnode.infer import compute
from pacsnode.infer.catalogue import NOT_ALLOWED, Service, bundle_hash, load_service
from pacsnode.infer.compute import Message

if TYPE_CHECKING:
    from pacsnode.infer.bundle import Bundle

LOG_LEVEL_VARIABLE = "PACSNODE_LOG_LEVEL"


class Models:
    """Services and their loaded models, by folder. Only files of the hash that was asked for are loaded: it is taken
    before and after, so that what runs is what was hashed.
    """

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, str], tuple[Service, Bundle]] = {}

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
        return self._loaded[key]


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
                models.get(folder, allowed_hash, device)
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
        found = run(service, bundle, device, [Path(f) for f in request["files"]])
        findings.save(found, Path(request["folder"]))
        return {"network_s": bundle.network_s - before}

    def encode(request: Message) -> Message:
        from pacsnode.encode.build import encode as build
        from pacsnode.encode.results import write_objects

        folder = Path(request["folder"])
        lists = {k: tuple(request["case"][k]) for k in ("rules", "instances")}
        kinds = tuple(request["kinds"])
        case = Case(**(request["case"] | lists | {"results": kinds}))
        objects = build(
            findings.load(folder),
            EncodeRequest(
                case,
                NodeIdentity(*request["node"]),
                tuple(Path(p) for p in request["sources"]),
                folder,
                datetime.fromisoformat(request["started"]),
                tuple(Path(p) for p in request["predecessors"]),
            ),
        )
        write_objects(folder, kinds, objects)
        return {"objects": len(objects)}

    compute.serve({"warm": warm, "infer": infer, "encode": encode})


if __name__ == "__main__":
    main()
