"""Settings of one node: environment `PACSNODE_*`, else `pacsnode.toml`, else the default. One declaration each.

The help text of a field is what `pacsnode --help`, `pacsnode doctor` and docs/operations.md show.
"""

from __future__ import annotations

import ipaddress
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from pacsnode.errors import ConfigError

Port = Annotated[int, Field(ge=0, le=65535)]
Host = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.ASCII | re.IGNORECASE)
DAY_S = 86_400
SECRET = frozenset({"database_url"})
"""May hold a password: never shown."""

CONFIG_FILE_VARIABLE = "PACSNODE_CONFIG"
DEFAULT_CONFIG_FILE = "pacsnode.toml"


class Settings(BaseSettings):
    """Everything a site may set beside `routing_rules.yaml`."""

    # Compose files pass variables on that are empty where nobody set them: an empty one is not set.
    model_config = SettingsConfigDict(env_prefix="PACSNODE_", env_ignore_empty=True, extra="forbid", frozen=True)

    home: Path = Field(Path("/var/lib/pacsnode"), description="Folder of all data: images, databases, results.")
    rules: Path = Field(Path("routing_rules.yaml"), description="The file of peers and rules.")
    models: Path = Field(Path("models"), description="The folder of AI services, one folder each.")
    ae_title: str = Field("PACSNODE", description="AE title of this node.")
    dicom_host: str = Field("0.0.0.0", description="Address on which DICOM is received.")  # noqa: S104
    dicom_port: Port = Field(11112, description="Port on which DICOM is received; 0 takes a free one.")
    tls_port: Port = Field(
        2762, description="Port on which DICOM is received over TLS; off until a certificate and its key are set."
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file of this node's certificate and its chain; a new one is taken over by itself."
    )
    tls_key: Path | None = Field(
        None, validate_default=True, description="PEM file of the key to it, without a password."
    )
    tls_client_certificate: Literal["required", "optional", "none"] = Field(
        "required", description="Whether peers that call over TLS must show a certificate of theirs."
    )
    tls_ca: Path | None = Field(
        None,
        validate_default=True,
        description="PEM file of the authorities whose certificates of peers are believed.",
    )
    web_port: Port = Field(8080, description="Port of the web console (this version has none yet).")
    timezone: str = Field("Asia/Seoul", description="Time zone of DICOM dates, schedules and reports.")
    database_url: str = Field(
        "", description="Database of the engine (sqlite:///… or postgresql://…); empty: jobs.db in the home."
    )
    maximum_associations: int = Field(100, ge=1, le=2000, description="Associations received at once.")
    peer_associations: int = Field(
        50, ge=1, le=2000, description="Of these, how many one peer may have; `associations:` of a peer goes before it."
    )
    unknown_callers: Literal["reject", "quarantine"] = Field(
        "reject", description="What becomes of a caller who is no peer; in quarantine its images are kept, not routed."
    )
    association_idle_s: float = Field(60.0, gt=0, le=DAY_S, description="An association idle for so long is aborted.")
    minimum_free_mb: int = Field(
        1024, ge=1, description="Below this free space the node answers A700 (out of resources) to C-STORE."
    )
    durability: Literal["full", "file", "none"] = Field(
        "file",
        description="What is on the disk before an image is acknowledged: file and name (its row is put back from it "
        "after a power cut), full: the row too, none: nothing, a power cut loses the last half minute.",
    )
    retention_keep_days: float = Field(
        0.0,
        ge=0,
        le=36_500,
        description="Images may go when their study's last came so long ago and the archive confirmed them; 0: never.",
    )
    retention_archive: str = Field(
        "", validate_default=True, description="Peer that is the archive: it must confirm images before they go."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where models run.")
    compute_threads: int = Field(
        0, ge=0, le=1024, description="CPU threads of the compute process; 0: all cores but one."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged.")
    delivery_give_up_days: float = Field(
        14.0, gt=0, le=3650, description="A result that its destination did not take for so long is parked."
    )

    @field_validator("home", "rules", "models", mode="before")
    @classmethod
    def _not_empty(cls, path: Any) -> Any:
        if path == "":
            raise ValueError("expected a path; write . for the present folder")
        return path

    @field_validator("ae_title")
    @classmethod
    def _ae_title(cls, given: str) -> str:
        title = given.strip(" ")
        if not 1 <= len(title) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
            raise ValueError("no AE title: 1 to 16 ASCII characters without \\")  # PS3.5 6.2, VR AE
        return title

    @field_validator("dicom_host")
    @classmethod
    def _host(cls, given: str) -> str:
        try:
            ipaddress.ip_address(given)
        except ValueError:
            if not Host.fullmatch(given) or len(given) > 253:
                raise ValueError("expected an address such as 0.0.0.0 or ::, or a host name") from None
        return given

    @field_validator("tls_key")
    @classmethod
    def _both_or_none(cls, key: Path | None, others: ValidationInfo) -> Path | None:
        if (key is None) != (others.data.get("tls_certificate") is None):
            raise ValueError("PACSNODE_TLS_CERTIFICATE and PACSNODE_TLS_KEY go together")
        return key

    @field_validator("tls_ca")
    @classmethod
    def _somebody_believed(cls, authorities: Path | None, others: ValidationInfo) -> Path | None:
        asks = others.data.get("tls_client_certificate", "none") != "none"
        if authorities is None and asks and others.data.get("tls_certificate") is not None:
            raise ValueError("needed to know peers' certificates, or set PACSNODE_TLS_CLIENT_CERTIFICATE=none")
        return authorities

    @field_validator("retention_archive")
    @classmethod
    def _somebody_who_keeps(cls, peer: str, others: ValidationInfo) -> str:
        if not peer and others.data.get("retention_keep_days"):
            raise ValueError("needed for PACSNODE_RETENTION_KEEP_DAYS: the peer that confirms what may go")
        return peer

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str) -> str:
        if url and not url.startswith(("sqlite:///", "postgresql://")):
            raise ValueError("expected sqlite:///… or postgresql://…")
        return url

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"no time zone {name!r}; expected a name such as Asia/Seoul") from None
        return name

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=config_file())

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of dates that people and DICOM objects see."""
        return ZoneInfo(self.timezone)

    @property
    def files(self) -> Path:
        """Part 10 files, `<epoch>/<xx>/<digest>.dcm`."""
        return self.home / "files"

    @property
    def index_db(self) -> Path:
        """Studies, series, instances."""
        return self.home / "index.db"

    @property
    def node_db(self) -> Path:
        """Decisions, cases, results, outbox, audit."""
        return self.home / "node.db"

    @property
    def runs(self) -> Path:
        """Findings and encoded objects of running cases."""
        return self.home / "runs"

    @property
    def doorbell(self) -> Path:
        """Datagram socket: scp rings, work wakes."""
        return self.home / "doorbell.sock"

    @cached_property
    def engine_url(self) -> str:
        """The engine's database."""
        return self.database_url or f"sqlite:///{self.home.absolute() / 'jobs.db'}"


def config_file() -> Path:
    """The optional settings file: `PACSNODE_CONFIG`, else `pacsnode.toml` here."""
    return Path(os.environ.get(CONFIG_FILE_VARIABLE, DEFAULT_CONFIG_FILE))


def load(**overrides: Any) -> Settings:
    """The settings in force. Raises ConfigError with every wrong setting named."""
    given = os.environ.get(CONFIG_FILE_VARIABLE)
    if given and not Path(given).is_file():
        raise ConfigError(f"there is no such file: {given}", where=CONFIG_FILE_VARIABLE)
    try:
        _refuse_unknown_variables()
        return Settings(**overrides)
    except ValidationError as error:
        lines = [_sentence(e["loc"], e["type"], e["msg"], e["input"]) for e in error.errors()]
        raise ConfigError("\n".join(lines)) from None
    except ValueError as error:  # a TOML file that is none
        raise ConfigError(f"not TOML: {error}", where=str(config_file())) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(config_file())) from None


def _refuse_unknown_variables() -> None:
    """A misspelt variable would be ignored in silence otherwise."""
    known = {f"PACSNODE_{name.upper()}" for name in Settings.model_fields} | {CONFIG_FILE_VARIABLE}
    known |= {"PACSNODE_TORCH_INDEX"}  # read by scripts/, not by the node
    unknown = sorted(v for v in os.environ if v.startswith("PACSNODE_") and v not in known)
    if unknown:
        raise ConfigError(f"no such setting: {', '.join(unknown)}; known: {', '.join(sorted(known))}")


def _sentence(location: tuple[int | str, ...], kind: str, message: str, given: Any) -> str:
    name = str(location[0]) if location else "?"
    if kind == "extra_forbidden":
        return f"{name} in {config_file()}: no such setting; `pacsnode settings` lists them"
    where = f"PACSNODE_{name.upper()} (or {name} in {config_file()})"
    found = "" if name in SECRET else f" (given: {given!r})"
    return f"{where}: {message.removeprefix('Value error, ')}{found}"
