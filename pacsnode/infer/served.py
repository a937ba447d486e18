"""A network that an inference server computes, in the place of one that runs here.

In: the record `http` of a service and its folder. Out: a callable from a batch to its output, as of `weights`; one
request at a time. Holds no weights; whatever the server gives was checked by `kserve`.
"""

from __future__ import annotations

from pathlib import Path

import torch

from pacsnode.infer.endpoint import Http
from pacsnode.infer.kserve import Model, Served


class ServedNetwork:
    """The network of one service on its server."""

    def __init__(self, http: Http, folder: Path) -> None:
        self._http = http
        self._model = Model(http, folder)
        self._served: Served | None = None

    def look(self) -> str:
        """Look whether the server may be asked; who answers, for people. Raises Transient, Permanent."""
        self._served = self._model.look()
        version = f" version {self._served.version}" if self._served.version else ", version not told"
        platform = f" ({self._served.platform})" if self._served.platform else ""
        return f"inference server {self._http.address}, model {self._http.model}{version}{platform}"

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """The output of each item. Raises Transient, Permanent."""
        if self._served is None:
            self.look()
        assert self._served is not None
        values = torch.Tensor.numpy(batch.detach().cpu().float().as_subclass(torch.Tensor))
        return torch.from_numpy(self._model.infer(values, self._served)).to(batch.device)
