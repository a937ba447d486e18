"""The tables of `node.db`, as migrations that a crash cannot break (each may run again).

Times are UTC microseconds, lists and maps are JSON.
"""

from __future__ import annotations

from sqlite_utils import Database, Migrations

node = Migrations("node")


@node()
def node_0001(db: Database) -> None:
    """Decisions, candidates, cases, results, outbox, audit."""
    db.executescript("""
    CREATE TABLE IF NOT EXISTS node (only INTEGER PRIMARY KEY CHECK (only = 1), device_uid TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS watermark (only INTEGER PRIMARY KEY CHECK (only = 1), revision INTEGER NOT NULL);
    INSERT OR IGNORE INTO watermark VALUES (1, 0);
    CREATE TABLE IF NOT EXISTS decisions (
        study_instance_uid TEXT PRIMARY KEY,
        revision INTEGER NOT NULL,
        rules_hash TEXT NOT NULL,
        decided_utc_us INTEGER NOT NULL,
        verdicts TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS candidates (
        id INTEGER PRIMARY KEY,
        study_instance_uid TEXT NOT NULL,
        candidate TEXT NOT NULL,
        rules_hash TEXT NOT NULL,
        last_received_boot_us INTEGER NOT NULL,
        boot_id TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS candidates_study ON candidates(study_instance_uid);
    CREATE TABLE IF NOT EXISTS cases (
        key TEXT PRIMARY KEY,
        study_instance_uid TEXT NOT NULL,
        service TEXT NOT NULL,
        rules TEXT NOT NULL,
        rules_hash TEXT NOT NULL,
        instances TEXT NOT NULL,
        results TEXT NOT NULL,
        send_to TEXT NOT NULL,
        priority INTEGER NOT NULL,
        state TEXT NOT NULL,                  -- waiting | asked | running | done | parked | withdrawn
        reason TEXT NOT NULL DEFAULT '',
        whole_because TEXT NOT NULL,
        supersedes TEXT NOT NULL DEFAULT '',
        attempt INTEGER NOT NULL DEFAULT 1,
        timings TEXT NOT NULL DEFAULT '{}',   -- seconds by step
        started_utc_us INTEGER NOT NULL,
        finished_utc_us INTEGER
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS cases_study ON cases(study_instance_uid);
    CREATE INDEX IF NOT EXISTS cases_unfinished ON cases(state, priority, started_utc_us)
        WHERE state IN ('waiting', 'running');
    CREATE TABLE IF NOT EXISTS results (
        sop_instance_uid TEXT PRIMARY KEY,
        case_key TEXT NOT NULL,
        kind TEXT NOT NULL,
        sop_class_uid TEXT NOT NULL,
        series_instance_uid TEXT NOT NULL,
        path TEXT NOT NULL,
        created_utc_us INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS results_case ON results(case_key);
    CREATE TABLE IF NOT EXISTS outbox (
        id INTEGER PRIMARY KEY,
        sop_instance_uid TEXT NOT NULL,
        destination TEXT NOT NULL,
        case_key TEXT NOT NULL,
        study_instance_uid TEXT NOT NULL,
        state TEXT NOT NULL,                  -- see deliver/outbox.py
        priority INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        next_attempt_utc_us INTEGER NOT NULL,
        created_utc_us INTEGER NOT NULL,
        ended_utc_us INTEGER,
        status INTEGER,
        reason TEXT NOT NULL DEFAULT '',
        UNIQUE (sop_instance_uid, destination)
    );
    CREATE INDEX IF NOT EXISTS outbox_due ON outbox(destination, next_attempt_utc_us) WHERE state = 'owed';
    CREATE INDEX IF NOT EXISTS outbox_case ON outbox(case_key);
    CREATE TABLE IF NOT EXISTS audit (
        id INTEGER PRIMARY KEY,
        utc_us INTEGER NOT NULL,
        event TEXT NOT NULL,
        study_instance_uid TEXT NOT NULL,
        case_key TEXT NOT NULL,
        detail TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS audit_study ON audit(study_instance_uid);
    """)


@node()
def node_0002(db: Database) -> None:
    """The rules file as it was, each time that it went live."""
    db.executescript("""
    CREATE TABLE IF NOT EXISTS rule_versions (
        id INTEGER PRIMARY KEY,
        hash TEXT NOT NULL,                   -- SHA-256 of the file: what decisions and cases have as rules_hash
        text TEXT NOT NULL,                   -- the whole file
        live_utc_us INTEGER NOT NULL,
        retired_utc_us INTEGER,               -- NULL: it is live
        author TEXT NOT NULL,                 -- who owned the file
        source TEXT NOT NULL                  -- its path
    );
    CREATE UNIQUE INDEX IF NOT EXISTS rule_versions_live ON rule_versions(retired_utc_us IS NULL)
        WHERE retired_utc_us IS NULL;         -- at most one
    """)


@node()
def node_0003(db: Database) -> None:
    """What is known of a candidate's arrival, and whether any rule takes a study."""
    _add_columns(
        db,
        "candidates",
        last_received_utc_us="INTEGER NOT NULL DEFAULT 0",
        peers="TEXT NOT NULL DEFAULT '[]'",  # that sent its images
        overdue="INTEGER NOT NULL DEFAULT 0",  # 1: it stays incomplete, and an alarm was given
    )
    _add_columns(db, "decisions", matched="INTEGER NOT NULL DEFAULT 1")
    db.executescript("""
    UPDATE candidates SET candidate = json_remove(
        json_set(candidate, '$.completion', json_object('quiet_s', json_extract(candidate, '$.quiet_s'))), '$.quiet_s'
    ) WHERE json_extract(candidate, '$.completion') IS NULL;
    """)


@node()
def node_0004(db: Database) -> None:
    """Which bundles an operator allowed to run: the hash of all files, who, when."""
    db.executescript("""
    CREATE TABLE IF NOT EXISTS allowed (
        id INTEGER PRIMARY KEY,
        service TEXT NOT NULL,                -- '': the list was begun, at the first start of the node
        bundle_hash TEXT NOT NULL,
        version TEXT NOT NULL,
        allowed_utc_us INTEGER NOT NULL,
        author TEXT NOT NULL,                 -- the user of the command
        source TEXT NOT NULL                  -- first start | allow | install
    );
    CREATE INDEX IF NOT EXISTS allowed_bundle ON allowed(service, bundle_hash);
    """)


@node()
def node_0005(db: Database) -> None:
    """Cases in shadow, and the numbers of every case that is done, for comparing two services."""
    _add_columns(db, "cases", shadow="INTEGER NOT NULL DEFAULT 0")  # 1: nothing of it is ever sent
    db.executescript("""
    CREATE TABLE IF NOT EXISTS numbers (
        case_key TEXT PRIMARY KEY,
        read_utc_us INTEGER NOT NULL,         -- when they were entered
        numbers TEXT NOT NULL                 -- measurements and evaluations; no pixels, no sentences
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS numbers_age ON numbers(read_utc_us);
    CREATE INDEX IF NOT EXISTS cases_service ON cases(service, started_utc_us);
    """)


@node()
def node_0006(db: Database) -> None:
    """Cases whose work a vendor's node does: when it was asked, until when it may answer, what was refused."""
    db.executescript("""
    CREATE TABLE IF NOT EXISTS asked (
        case_key TEXT PRIMARY KEY,
        study_instance_uid TEXT NOT NULL,
        peer TEXT NOT NULL,                   -- the vendor's node
        asked_utc_us INTEGER NOT NULL,        -- the last time
        until_utc_us INTEGER NOT NULL,
        answered_attempt INTEGER NOT NULL DEFAULT 0  -- the attempt of the case for which the answer is here
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS asked_study ON asked(study_instance_uid, peer);
    CREATE INDEX IF NOT EXISTS asked_time ON asked(asked_utc_us);
    CREATE INDEX IF NOT EXISTS cases_asked ON cases(key) WHERE state = 'asked';
    CREATE TABLE IF NOT EXISTS refused_answers (
        sop_instance_uid TEXT PRIMARY KEY,
        case_key TEXT NOT NULL,
        reason TEXT NOT NULL,
        refused_utc_us INTEGER NOT NULL
    ) WITHOUT ROWID;
    """)


@node()
def node_0007(db: Database) -> None:
    """What was rejected, who said so, and what the node says of a case itself: rejection notes, `not analysed`."""
    _add_columns(
        db,
        "cases",
        on_failure="TEXT NOT NULL DEFAULT 'keep'",  # tell: its destinations hear that it could not be analysed
    )
    db.executescript("""
    CREATE TABLE IF NOT EXISTS rejection_notes (  -- that were received, and looked at
        sop_instance_uid TEXT PRIMARY KEY,
        study_instance_uid TEXT NOT NULL,
        peer TEXT NOT NULL,
        code TEXT NOT NULL,                   -- '': its title is none that rejects
        objection TEXT NOT NULL,              -- why it does nothing; '' where it counts
        instances INTEGER NOT NULL,           -- how many it rejects, of those that are here
        looked_utc_us INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS rejection_notes_study ON rejection_notes(study_instance_uid);
    CREATE TABLE IF NOT EXISTS rejected (
        sop_instance_uid TEXT PRIMARY KEY,
        study_instance_uid TEXT NOT NULL,
        code TEXT NOT NULL,
        author TEXT NOT NULL,                 -- the peer, or the user of the command
        note TEXT NOT NULL,                   -- SOP Instance UID of the rejection note; '' by the command
        rejected_utc_us INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS rejected_study ON rejected(study_instance_uid);
    CREATE TABLE IF NOT EXISTS reconsider (   -- studies to decide again though nothing new came
        study_instance_uid TEXT PRIMARY KEY,
        asked_utc_us INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS notes (        -- that we make; their objects are in results, under this key
        key TEXT PRIMARY KEY,
        kind TEXT NOT NULL,                   -- rejection | failure
        case_key TEXT NOT NULL,
        study_instance_uid TEXT NOT NULL,
        code TEXT NOT NULL,                   -- title of a rejection
        reason TEXT NOT NULL,
        instances TEXT NOT NULL,              -- our objects that a rejection lists
        destinations TEXT NOT NULL,           -- who gets a rejection
        told_utc_us INTEGER NOT NULL,         -- a part of its bytes
        state TEXT NOT NULL DEFAULT 'due',    -- due | done | parked
        problem TEXT NOT NULL DEFAULT ''      -- why it is parked
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS notes_case ON notes(case_key);
    CREATE INDEX IF NOT EXISTS notes_due ON notes(told_utc_us) WHERE state = 'due';
    """)


@node()
def node_0008(db: Database) -> None:
    """Results in the form that their destination wants."""
    _add_columns(db, "results", form="TEXT NOT NULL DEFAULT ''")  # '': as shipped


@node()
def node_0009(db: Database) -> None:
    """Deliveries with proof: more states of a row, holds of an operator, how each destination stands."""
    _add_columns(
        db,
        "outbox",
        held="INTEGER NOT NULL DEFAULT 0",  # 1: one of `holds` keeps it here
        rules="TEXT NOT NULL DEFAULT '[]'",  # by which it is owed
        since_utc_us="INTEGER NOT NULL DEFAULT 0",  # from then on its days until it is given up count
        lost="INTEGER NOT NULL DEFAULT 0",  # how often the destination took it and then had it not
        proof="TEXT NOT NULL DEFAULT ''",  # commitment | query, or why it is not proven
        prove_utc_us="INTEGER",  # when to ask for proof; NULL: not (any more)
        asked="INTEGER NOT NULL DEFAULT 0",  # for proof, since it was sent last
        question="TEXT NOT NULL DEFAULT ''",  # Transaction UID whose answer is still to come
        proven_utc_us="INTEGER",
    )
    db.executescript("""
    UPDATE outbox SET since_utc_us = created_utc_us WHERE since_utc_us = 0;
    UPDATE outbox SET state = 'refused' WHERE state = 'parked' AND status IS NOT NULL;
    UPDATE outbox SET rules = (SELECT c.rules FROM cases c WHERE c.key = case_key)
        WHERE rules = '[]' AND state != 'sent' AND case_key IN (SELECT key FROM cases);
    DROP INDEX IF EXISTS outbox_due;
    CREATE INDEX IF NOT EXISTS outbox_queue ON outbox(destination, held, priority, id) WHERE state = 'owed';
    CREATE INDEX IF NOT EXISTS outbox_next ON outbox(destination, held, next_attempt_utc_us, priority)
        WHERE state = 'owed';
    CREATE INDEX IF NOT EXISTS outbox_sending ON outbox(destination, study_instance_uid) WHERE state = 'sending';
    CREATE INDEX IF NOT EXISTS outbox_unproven ON outbox(destination, prove_utc_us)
        WHERE state = 'sent' AND prove_utc_us IS NOT NULL;
    CREATE INDEX IF NOT EXISTS outbox_question ON outbox(question) WHERE question != '';
    CREATE INDEX IF NOT EXISTS outbox_study ON outbox(study_instance_uid);
    CREATE INDEX IF NOT EXISTS outbox_ended ON outbox(ended_utc_us) WHERE ended_utc_us IS NOT NULL;
    CREATE TABLE IF NOT EXISTS holds (
        kind TEXT NOT NULL,                   -- destination | study | case | rule
        subject TEXT NOT NULL,
        held_utc_us INTEGER NOT NULL,
        author TEXT NOT NULL,                 -- the user of the command
        reason TEXT NOT NULL,
        PRIMARY KEY (kind, subject)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS destinations (
        name TEXT PRIMARY KEY,
        failures INTEGER NOT NULL DEFAULT 0,  -- in a row; 0: it answers
        since_utc_us INTEGER NOT NULL DEFAULT 0,
        retry_utc_us INTEGER NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '',
        proof TEXT NOT NULL DEFAULT '',       -- commitment | query | none, as learned; '': not yet
        proof_reason TEXT NOT NULL DEFAULT '',
        learned_utc_us INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    """)


@node()
def node_0010(db: Database) -> None:
    """What destinations said they take, learned from negotiation and refusals."""
    db.executescript("""
    CREATE TABLE IF NOT EXISTS learned (
        peer TEXT NOT NULL,
        sop_class_uid TEXT NOT NULL,
        transfer_syntax_uid TEXT NOT NULL,    -- '': the class as such
        place TEXT NOT NULL,                  -- type, host and so on: a peer that moved is unknown again
        reason TEXT NOT NULL,                 -- why it is refused, '': it is taken
        learned_utc_us INTEGER NOT NULL,
        PRIMARY KEY (peer, sop_class_uid, transfer_syntax_uid)
    ) WITHOUT ROWID;
    """)


def _add_columns(db: Database, table: str, **columns: str) -> None:
    held = {column.name for column in db[table].columns}
    for name, kind in columns.items():
        if name not in held:
            db.executescript(f"ALTER TABLE {table} ADD COLUMN {name} {kind};")
