"""The tables of `index.db`, as migrations that a crash cannot break (each may run again).

Times are UTC microseconds, lists and maps are JSON.
"""

from __future__ import annotations

import json

from sqlite_utils import Database, Migrations

from pacsnode.dicom.attributes import PER_IMAGE

index = Migrations("index")


@index()
def index_0001(db: Database) -> None:
    """Epochs of files, studies, instances, and what was kept aside."""
    db.executescript("""
    CREATE TABLE IF NOT EXISTS epochs (
        epoch INTEGER PRIMARY KEY AUTOINCREMENT,
        owner TEXT NOT NULL,                  -- scp | work
        opened_utc_us INTEGER NOT NULL,
        closed_utc_us INTEGER,
        sealed INTEGER NOT NULL DEFAULT 0     -- 1: every file has its row on disk; recovery need not look
    );
    CREATE TABLE IF NOT EXISTS revision (only INTEGER PRIMARY KEY CHECK (only = 1), value INTEGER NOT NULL);
    INSERT OR IGNORE INTO revision VALUES (1, 0);
    CREATE TABLE IF NOT EXISTS studies (
        study_instance_uid TEXT PRIMARY KEY,
        issuer TEXT NOT NULL,
        patient_id TEXT NOT NULL,
        person_name TEXT NOT NULL,            -- three component groups, joined by =
        birth_date TEXT NOT NULL,
        sex TEXT NOT NULL,
        conflict TEXT NOT NULL DEFAULT '',    -- why the instances cannot be of one patient; '' when they can
        revision INTEGER NOT NULL,            -- of the whole index, at the last change of this study
        first_received_utc_us INTEGER NOT NULL,
        last_received_utc_us INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS studies_revision ON studies(revision);
    CREATE TABLE IF NOT EXISTS instances (
        sop_instance_uid TEXT PRIMARY KEY,
        sop_class_uid TEXT NOT NULL,
        series_instance_uid TEXT NOT NULL,
        study_instance_uid TEXT NOT NULL,
        transfer_syntax_uid TEXT NOT NULL,
        path TEXT NOT NULL UNIQUE,            -- below files/
        dataset_sha256 TEXT NOT NULL,
        dataset_bytes INTEGER NOT NULL,
        origin TEXT NOT NULL,                 -- received | result | answer (of a vendor's node)
        peer TEXT NOT NULL,
        calling_ae_title TEXT NOT NULL,
        address TEXT NOT NULL,
        received_utc_us INTEGER NOT NULL,
        received_boot_us INTEGER NOT NULL,
        boot_id TEXT NOT NULL,
        attributes TEXT NOT NULL,
        damaged TEXT NOT NULL                 -- keywords whose text had to be repaired
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS instances_study ON instances(study_instance_uid);
    CREATE TABLE IF NOT EXISTS aside (
        path TEXT PRIMARY KEY,
        sop_instance_uid TEXT NOT NULL,
        study_instance_uid TEXT NOT NULL,
        dataset_sha256 TEXT NOT NULL,
        reason TEXT NOT NULL,
        peer TEXT NOT NULL,
        calling_ae_title TEXT NOT NULL,
        address TEXT NOT NULL,
        received_utc_us INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS aside_study ON aside(study_instance_uid);
    CREATE INDEX IF NOT EXISTS aside_object ON aside(sop_instance_uid, dataset_sha256);
    """)


@index()
def index_0002(db: Database) -> None:
    """Storage commitment requests until their result is told, and what modalities told of their procedure steps."""
    db.executescript("""
    CREATE TABLE IF NOT EXISTS commitments (
        id INTEGER PRIMARY KEY,
        transaction_uid TEXT NOT NULL,
        peer TEXT NOT NULL,
        calling_ae_title TEXT NOT NULL,
        called_ae_title TEXT NOT NULL,
        address TEXT NOT NULL,
        received_utc_us INTEGER NOT NULL,
        instances TEXT NOT NULL,              -- [[SOP class UID, SOP instance UID], …]
        state TEXT NOT NULL,                  -- asked | checked | reported | parked
        failures TEXT NOT NULL DEFAULT '[]',  -- FailureReason of each instance, in their order; 0: it is safe
        attempts INTEGER NOT NULL DEFAULT 0,
        next_attempt_utc_us INTEGER NOT NULL,
        ended_utc_us INTEGER,
        reason TEXT NOT NULL DEFAULT ''       -- why the last attempt to report failed
    );
    CREATE INDEX IF NOT EXISTS commitments_open ON commitments(peer, next_attempt_utc_us)
        WHERE state IN ('asked', 'checked');
    CREATE INDEX IF NOT EXISTS commitments_transaction ON commitments(transaction_uid);
    CREATE INDEX IF NOT EXISTS commitments_ended ON commitments(ended_utc_us);
    CREATE TABLE IF NOT EXISTS evidence (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,                   -- mpps | ian
        operation TEXT NOT NULL,              -- create | set
        sop_instance_uid TEXT NOT NULL,       -- of the procedure step or of the notice
        state TEXT NOT NULL,                  -- of the procedure step, or availabilities joined by a backslash
        referenced TEXT NOT NULL,             -- SOP Instance UIDs
        transfer_syntax_uid TEXT NOT NULL,
        data_set BLOB NOT NULL,
        peer TEXT NOT NULL,
        calling_ae_title TEXT NOT NULL,
        address TEXT NOT NULL,
        received_utc_us INTEGER NOT NULL
    );
    CREATE INDEX IF NOT EXISTS evidence_object ON evidence(sop_instance_uid);
    CREATE INDEX IF NOT EXISTS evidence_received ON evidence(received_utc_us);
    CREATE TABLE IF NOT EXISTS evidence_studies (
        study_instance_uid TEXT NOT NULL,
        evidence INTEGER NOT NULL REFERENCES evidence(id),
        PRIMARY KEY (study_instance_uid, evidence)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS evidence_studies_evidence ON evidence_studies(evidence);
    """)


@index()
def index_0003(db: Database) -> None:
    """Callers who were refused or put into quarantine."""
    db.executescript("""
    CREATE TABLE IF NOT EXISTS refused (
        calling_ae_title TEXT NOT NULL,
        called_ae_title TEXT NOT NULL,
        address TEXT NOT NULL,
        certificate TEXT NOT NULL,
        outcome TEXT NOT NULL,                -- rejected | quarantined
        reason TEXT NOT NULL,
        count INTEGER NOT NULL,
        first_utc_us INTEGER NOT NULL,
        last_utc_us INTEGER NOT NULL,
        PRIMARY KEY (calling_ae_title, called_ae_title, address, certificate, outcome, reason)
    );
    """)


@index()
def index_0004(db: Database) -> None:
    """What the archive said that it has, and what retention removed."""
    db.executescript("""
    CREATE TABLE IF NOT EXISTS questions (
        transaction_uid TEXT PRIMARY KEY,
        archive TEXT NOT NULL,                -- the peer that was asked
        asked_utc_us INTEGER NOT NULL,
        answered_utc_us INTEGER,
        instances TEXT NOT NULL               -- [[SOP class UID, SOP instance UID, SHA-256 when asked], …]
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS confirmations (
        sop_instance_uid TEXT PRIMARY KEY,
        archive TEXT NOT NULL,
        transaction_uid TEXT NOT NULL,
        dataset_sha256 TEXT NOT NULL,         -- what we held when we asked
        failure INTEGER NOT NULL,             -- FailureReason; 0: the archive has it
        told_utc_us INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS unlinking (path TEXT PRIMARY KEY) WITHOUT ROWID;  -- below files/: the row is gone
    CREATE TABLE IF NOT EXISTS tombstones (
        sop_instance_uid TEXT PRIMARY KEY,
        study_instance_uid TEXT NOT NULL,
        dataset_sha256 TEXT NOT NULL,
        archive TEXT NOT NULL,
        transaction_uid TEXT NOT NULL,        -- in which the archive confirmed it
        removed_utc_us INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS tombstones_study ON tombstones(study_instance_uid);
    """)


@index()
def index_0005(db: Database) -> None:
    """What the images of a series have in common, once; each image's row points to it."""
    # No executescript: it would end the transaction, and a crash could leave half of the rows behind.
    db.execute("CREATE TABLE common (id INTEGER PRIMARY KEY, attributes TEXT NOT NULL)")
    db.execute("""
    CREATE TABLE instances_of_0005 (
        sop_instance_uid TEXT PRIMARY KEY,
        sop_class_uid TEXT NOT NULL,
        series_instance_uid TEXT NOT NULL,
        study_instance_uid TEXT NOT NULL,
        transfer_syntax_uid TEXT NOT NULL,
        path TEXT NOT NULL UNIQUE,            -- below files/
        dataset_sha256 TEXT NOT NULL,
        dataset_bytes INTEGER NOT NULL,
        origin TEXT NOT NULL,                 -- received | result | answer (of a vendor's node)
        peer TEXT NOT NULL,
        calling_ae_title TEXT NOT NULL,
        address TEXT NOT NULL,
        received_utc_us INTEGER NOT NULL,
        received_boot_us INTEGER NOT NULL,
        boot_id TEXT NOT NULL,
        common INTEGER NOT NULL REFERENCES common(id),
        own TEXT NOT NULL,                    -- attributes that nearly each image has for itself
        damaged TEXT NOT NULL                 -- keywords whose text had to be repaired
    ) WITHOUT ROWID
    """)
    _share_common_attributes(db)
    db.execute("DROP TABLE instances")
    db.execute("ALTER TABLE instances_of_0005 RENAME TO instances")
    db.execute("CREATE INDEX instances_study ON instances(study_instance_uid)")


@index()
def index_0006(db: Database) -> None:
    """A confirmation for each instance and destination: results go to several, and each is asked."""
    # No executescript: it would end the transaction, and a crash could leave half of it behind.
    db.execute("""
    CREATE TABLE confirmations_of_0006 (
        sop_instance_uid TEXT NOT NULL,
        archive TEXT NOT NULL,
        transaction_uid TEXT NOT NULL,
        dataset_sha256 TEXT NOT NULL,         -- what we held when we asked
        failure INTEGER NOT NULL,             -- FailureReason; 0: the archive has it
        told_utc_us INTEGER NOT NULL,
        PRIMARY KEY (sop_instance_uid, archive)
    ) WITHOUT ROWID
    """)
    columns = "sop_instance_uid, archive, transaction_uid, dataset_sha256, failure, told_utc_us"
    db.execute(f"INSERT INTO confirmations_of_0006 SELECT {columns} FROM confirmations")  # noqa: S608  # our words
    db.execute("DROP TABLE confirmations")
    db.execute("ALTER TABLE confirmations_of_0006 RENAME TO confirmations")


def _share_common_attributes(db: Database) -> None:
    ids: dict[str, int] = {}
    study = ""
    for row in db.execute("SELECT * FROM instances ORDER BY study_instance_uid"):
        *head, attributes, damaged = row
        if row[3] != study:
            ids, study = {}, row[3]
        said = json.loads(attributes)
        own = {keyword: said.pop(keyword) for keyword in PER_IMAGE if keyword in said}
        common = json.dumps(said, ensure_ascii=False)
        if common not in ids:
            db.execute("INSERT INTO common (attributes) VALUES (?)", (common,))
            ids[common] = db.execute("SELECT last_insert_rowid()").fetchone()[0]
        values = (*head, ids[common], json.dumps(own, ensure_ascii=False), damaged)
        marks = ", ".join("?" * len(values))
        db.execute(f"INSERT INTO instances_of_0005 VALUES ({marks})", values)  # noqa: S608  # question marks
