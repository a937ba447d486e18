"""Settings: environment before file before default, and a sentence for everything that is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pacsnode.errors import ConfigError
from pacsnode.settings import Settings, load


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PACSNODE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AE_TITLE", "A" * 17, "1 to 16 ASCII characters"),
        ("AE_TITLE", "   ", "1 to 16 ASCII characters"),
        ("AE_TITLE", "BACK\\SLASH", "1 to 16 ASCII characters"),
        ("AE_TITLE", "영상의학과", "1 to 16 ASCII characters"),
        ("AE_TITLE", "LINE\nEND", "1 to 16 ASCII characters"),
        ("DICOM_PORT", "dicom", "valid integer"),
        ("DICOM_PORT", "65536", "less than or equal to 65535"),
        ("DICOM_PORT", "-1", "greater than or equal to 0"),
        ("DICOM_HOST", "a..b", "an address such as"),
        ("DICOM_HOST", "no host", "an address such as"),
        ("WEB_PORT", "1e3", "valid integer"),
        ("TIMEZONE", "Asia/Soul", "no time zone 'Asia/Soul'"),
        ("TIMEZONE", "../../etc/passwd", "no time zone"),
        ("TIMEZONE", "Asia", "no time zone"),
        ("DATABASE_URL", "mysql://db", "expected sqlite:///"),
        ("MAXIMUM_ASSOCIATIONS", "0", "greater than or equal to 1"),
        ("ASSOCIATION_IDLE_S", "0", "greater than 0"),
        ("ASSOCIATION_IDLE_S", "inf", "less than or equal to 86400"),
        ("ASSOCIATION_IDLE_S", "nan", "less than or equal to 86400"),
        ("MINIMUM_FREE_MB", "0", "greater than or equal to 1"),
        ("RETENTION_KEEP_DAYS", "-1", "greater than or equal to 0"),
        ("RETENTION_KEEP_DAYS", "nan", "less than or equal to 36500"),
        ("DEVICE", "gpu", "'auto', 'cpu' or 'cuda'"),
        ("COMPUTE_THREADS", "-2", "greater than or equal to 0"),
        ("LOG_LEVEL", "chatty", "'debug', 'info', 'warning' or 'error'"),
        ("DELIVERY_GIVE_UP_DAYS", "inf", "less than or equal to 3650"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_right(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"PACSNODE_{name}", value)
    with pytest.raises(ConfigError) as error:
        load()
    assert error.value.exit_code == 2
    assert f"PACSNODE_{name} (or {name.lower()} in pacsnode.toml)" in str(error.value)
    assert says in str(error.value)


def test_retention_needs_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACSNODE_RETENTION_KEEP_DAYS", "30")
    with pytest.raises(ConfigError, match="needed for PACSNODE_RETENTION_KEEP_DAYS"):
        load()
    assert load(retention_archive="pacs").retention_keep_days == 30
    assert load(retention_keep_days=0.0).retention_archive == ""


def test_all_wrong_settings_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACSNODE_DICOM_PORT", "x")
    monkeypatch.setenv("PACSNODE_TIMEZONE", "x")
    with pytest.raises(ConfigError) as error:
        load()
    assert len(str(error.value).splitlines()) == 2


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACSNODE_DICOM_PROT", "104")
    with pytest.raises(ConfigError, match="no such setting: PACSNODE_DICOM_PROT"):
        load()


def test_a_password_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACSNODE_DATABASE_URL", "oracle://node:s3cret@db/x")
    with pytest.raises(ConfigError) as error:
        load()
    assert "s3cret" not in str(error.value)


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "DICOM_PORT", "TIMEZONE", "AE_TITLE"):
        monkeypatch.setenv(f"PACSNODE_{name}", "")
    given = load()
    for name in ("HOME", "DICOM_PORT", "TIMEZONE", "AE_TITLE"):
        monkeypatch.delenv(f"PACSNODE_{name}")
    assert given == load()


def test_the_environment_goes_before_the_file_and_the_file_before_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pacsnode.toml").write_text('ae_title = "FILE"\ndicom_port = 104\n')
    monkeypatch.setenv("PACSNODE_AE_TITLE", "ENV")
    settings = load()
    assert (settings.ae_title, settings.dicom_port, settings.web_port) == ("ENV", 104, 8080)
    assert load(ae_title="GIVEN").ae_title == "GIVEN"


def test_another_file_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("dicom_port = 4242\n")
    monkeypatch.setenv("PACSNODE_CONFIG", str(tmp_path / "other.toml"))
    assert load().dicom_port == 4242
    monkeypatch.setenv("PACSNODE_CONFIG", str(tmp_path / "absent.toml"))
    with pytest.raises(ConfigError, match="PACSNODE_CONFIG: there is no such file"):
        load()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dicom_prot = 104\n", "dicom_prot in pacsnode.toml: no such setting"),
        ('home = ""\n', "expected a path"),
        ("dicom_port = = 104\n", "pacsnode.toml: not TOML"),
        ("[node]\nhome = 'x'\n", "node in pacsnode.toml: no such setting"),
        ("dicom_port = [104]\n", "valid integer"),
    ],
)
def test_a_wrong_file_is_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "pacsnode.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load()
    assert says in str(error.value)


def test_a_file_that_is_no_text_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "pacsnode.toml").write_bytes(b"\xff\xfe\x00h")
    with pytest.raises(ConfigError, match=r"pacsnode\.toml"):
        load()


def test_an_ae_title_is_stripped_and_every_setting_has_help() -> None:
    assert load(ae_title=" NODE ").ae_title == "NODE"
    assert all(field.description for field in Settings.model_fields.values())


def test_the_engine_has_a_file_of_its_own_in_the_home() -> None:
    assert load(home=Path("/data")).engine_url == "sqlite:////data/jobs.db"
    assert load(database_url="postgresql://db/x").engine_url == "postgresql://db/x"
