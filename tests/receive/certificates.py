"""Authorities and certificates for tests of TLS, made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: Path
    key: Path

    def fingerprint(self) -> str:
        said = openssl("x509", "-in", str(self.certificate), "-noout", "-fingerprint", "-sha256")
        return said.partition("=")[2].strip()


def openssl(*arguments: str) -> str:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder."""

    folder: Path
    own: Pair

    @classmethod
    def make(cls, folder: Path, name: str) -> Authority:
        folder.mkdir(parents=True, exist_ok=True)
        own = Pair(folder / f"{name}.pem", folder / f"{name}.key")
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "100"),
            *("-subj", f"/CN={name}", "-keyout", str(own.key), "-out", str(own.certificate)),
        )
        return cls(folder, own)

    def issue(self, name: str, *, days: int = 90, host: str = "IP:127.0.0.1") -> Pair:
        """A certificate for `name` that names `host` too."""
        made = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        request = self.folder / f"{name}.csr"
        openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/O=Clinic/CN={name}"),
            *("-addext", f"subjectAltName={host}", "-keyout", str(made.key), "-out", str(request)),
        )
        openssl(
            *("x509", "-req", "-in", str(request), "-copy_extensions", "copy", "-days", str(days)),
            *("-CA", str(self.own.certificate), "-CAkey", str(self.own.key), "-CAcreateserial"),
            *("-out", str(made.certificate)),
        )
        return made
