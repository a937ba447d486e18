"""Delivery into a folder: the same bytes, whole or not at all, under names that no UID can turn against the site."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from tests.deliver.owing import image, site


def test_every_file_lies_there_bit_for_bit_and_is_proven_by_reading_it_back(tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    with site(tmp_path, type="folder", folder=str(share)) as owing:
        uids = owing.owe(*[image(tmp_path / f"{n}.dcm", n) for n in range(3)])
        assert [row.state for row in owing.deliver()] == ["sent"] * 3
        for uid in uids:
            (path,) = share.rglob(f"{uid}.dcm")
            assert path.read_bytes() == owing.files[uid].read_bytes()
            assert path.parent.parent.name == owing.studies[uid]
        assert owing.proof() == dict.fromkeys(uids, "")
        assert [p.suffix for p in share.rglob("*") if p.is_file()] == [".dcm"] * 3


def test_a_share_that_is_not_mounted_leaves_all_owed_and_is_not_made(tmp_path: Path) -> None:
    with site(tmp_path, type="folder", folder=str(tmp_path / "absent")) as owing:
        owing.owe(image(tmp_path / "1.dcm"), image(tmp_path / "2.dcm", 2))
        rows = owing.deliver()
        assert [(row.state, row.attempts) for row in rows] == [("owed", 0)] * 2
        assert "is the share mounted?" in rows[0].reason
        assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2/3", "..", "", "1.2.3\\x"])
def test_a_uid_that_is_no_uid_names_no_path(tmp_path: Path, uid: str) -> None:
    share = tmp_path / "share"
    share.mkdir()
    with site(tmp_path, type="folder", folder=str(share)) as owing:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, of the hostile value
            owing.owe(image(tmp_path / "1.dcm", SeriesInstanceUID=uid))
        (row,) = owing.deliver()
        assert row.state == "parked"
        assert "UID that is not of digits and dots" in row.reason
        assert list(share.iterdir()) == []


def test_another_file_under_the_same_uid_is_not_overwritten(tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    with site(tmp_path, type="folder", folder=str(share)) as owing:
        (uid,) = owing.owe(image(tmp_path / "1.dcm"))
        owing.deliver()
        (theirs,) = share.rglob("*.dcm")
        theirs.write_bytes(b"of somebody else")
        with site(tmp_path / "other", type="folder", folder=str(share)) as other:
            other.owe(image(tmp_path / "1.dcm"))
            (row,) = other.deliver()
        assert (row.state, "nothing was overwritten" in row.reason) == ("parked", True)
        assert theirs.read_bytes() == b"of somebody else"
        assert owing.proof() == {uid: "the folder holds other bytes under this UID"}
        theirs.unlink()
        assert owing.proof() == {uid: "the file is not in the folder any more"}


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_postpones(tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir(mode=0o500)
    with site(tmp_path, type="folder", folder=str(share)) as owing:
        owing.owe(image(tmp_path / "1.dcm"))
        (row,) = owing.deliver()
        assert row.state == "owed"
        assert "cannot be used" in row.reason
