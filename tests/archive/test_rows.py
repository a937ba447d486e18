"""What a row says is what the header said."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from sqlite_utils import Database

from pacsnode import database, schema
from pacsnode.archive.index import Index
from pacsnode.archive.rows import _json_objects
from pacsnode.dicom.attributes import PER_IMAGE
from pacsnode.index_tables import index
from pacsnode.settings import load
from tests.archive import homes

KEYWORDS = st.sampled_from(
    ["PatientName", "Modality", "ImageType", "StudyDescription", "ContentTime", "InstanceNumber"]
)
VALUES = st.lists(st.text(max_size=100), max_size=3).map(tuple)


@given(st.dictionaries(KEYWORDS, VALUES))
def test_attributes_come_back_from_their_row_as_they_were(attributes: dict[str, tuple[str, ...]]) -> None:
    for _ in range(2):  # short ones are remembered: the second time they come from there
        common, own = map(json.loads, _json_objects(attributes))
        assert not common.keys() & PER_IMAGE
        assert own.keys() <= PER_IMAGE
        assert {keyword: tuple(values) for keyword, values in (common | own).items()} == attributes


def test_images_of_a_series_share_one_row_and_read_back_whole(tmp_path: Path) -> None:
    settings = homes.home(tmp_path)
    for start in range(2):  # the second process remembers nothing
        node = homes.archive(settings)
        for number in range(3):
            uid = f"1.9.{start}.{number}"
            homes.store(node, homes.data_set(uid, InstanceNumber=str(number)), homes.request(uid))
        assert homes.store(node, homes.data_set("1.9.0.0", InstanceNumber="0"), homes.request("1.9.0.0"))
        node.close()
    assert homes.rows(settings, "SELECT count(*) FROM common") == [(2,)]
    with closing(Index(settings.index_db)) as held:
        study = held.study("1.2.3")
        assert study is not None
        for one in study.instances:
            said = {"SOPInstanceUID": (one.sop_instance_uid,), "InstanceNumber": (one.sop_instance_uid[-1],)}
            assert said.items() <= dict(one.attributes).items()
            assert one.attributes["PatientID"] == ("4711",)
            assert one.attributes.get("ContentTime") is None
            assert len(one.attributes) == len(dict(one.attributes))
        alone = held.instance("1.9.0.0")
        assert alone is not None
        assert alone.attributes == study.instances[0].attributes


def test_a_duplicate_leaves_no_row_behind_that_nothing_points_to(tmp_path: Path) -> None:
    settings = homes.home(tmp_path)
    for _ in range(3):
        node = homes.archive(settings)
        homes.store(node, homes.data_set("1.9.1"), homes.request("1.9.1"))
        node.close()
    assert homes.rows(settings, "SELECT count(*) FROM common") == [(1,)]


def test_a_row_of_common_attributes_that_is_gone_is_entered_anew(tmp_path: Path) -> None:
    """Retention is another process: it may remove what this one remembers, and its number may be given again."""
    settings = homes.home(tmp_path)
    node = homes.archive(settings)
    homes.store(node, homes.data_set("1.9.1", PatientID="1", study="1.2.1"), homes.request("1.9.1"))
    homes.rows(settings, "DELETE FROM instances")
    homes.rows(settings, "DELETE FROM common")
    homes.store(node, homes.data_set("1.9.2", PatientID="2", study="1.2.2"), homes.request("1.9.2"))
    homes.store(node, homes.data_set("1.9.3", PatientID="1", study="1.2.1"), homes.request("1.9.3"))
    node.close()
    with closing(Index(settings.index_db)) as held:
        for study_uid, patient in (("1.2.1", "1"), ("1.2.2", "2")):
            study = held.study(study_uid)
            assert study is not None
            assert [one.attributes["PatientID"] for one in study.instances] == [(patient,)]


def test_an_index_of_before_is_brought_to_shared_attributes_and_says_the_same(tmp_path: Path) -> None:
    settings = load(home=tmp_path / "home")
    settings.home.mkdir()
    with closing(Database(settings.index_db)) as made:
        made.enable_wal()
        index.apply(made, stop_before="index_0005")
    said = {"Modality": ["CT"], "PatientName": ["홍^길동"], "ImageType": ["ORIGINAL", "PRIMARY"]}
    images = {f"1.9.{n}": {**said, "SOPInstanceUID": [f"1.9.{n}"], "InstanceNumber": [str(n)]} for n in range(5)}
    with closing(database.connect(settings.index_db, "NORMAL")) as connection, database.transaction(connection):
        connection.execute("INSERT INTO studies VALUES ('1.2.3', 'I', '4711', '홍^길동==', '', '', '', 5, 1, 1)")
        for uid, attributes in images.items():
            values = ("CT", "1.2.3.1", "1.2.3", "1.2", f"1/00/{uid}.dcm", "sha", 9, "received", "ct-1", "CT", "a", 7, 8)
            connection.execute(
                "INSERT INTO instances VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'boot', ?, '[]')",
                (uid, *values, json.dumps(attributes)),
            )
    schema.migrate(settings)
    schema.check(settings)
    assert homes.rows(settings, "SELECT count(*) FROM common") == [(1,)]
    with closing(Index(settings.index_db)) as held:
        study = held.study("1.2.3")
        assert study is not None
        found = {one.sop_instance_uid: {k: list(v) for k, v in one.attributes.items()} for one in study.instances}
        assert found == images
        assert {(one.path, one.peer, one.boot_id) for one in study.instances} == {
            (f"1/00/{uid}.dcm", "ct-1", "boot") for uid in images
        }
    with closing(sqlite3.connect(settings.index_db)) as connection:
        plan = str(
            connection.execute("EXPLAIN QUERY PLAN SELECT 1 FROM instances WHERE study_instance_uid = ''").fetchall()
        )
    assert "instances_study" in plan
