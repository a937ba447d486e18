"""How long the rules of a large hospital take: one study explained, and ten thousand recorded ones under two files.

Prints a Markdown table. The studies lie in a real index.db, one after the other as a site receives them; the replay is
the command as people run it, from its start to its end. Run: scripts/bench/run rules. Deletes its folder at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bench import hospital, many_rules
from bench.rounds import percentile_ms

from pacsnode import schema
from pacsnode.archive.index import Index
from pacsnode.live import load_site
from pacsnode.route.decide import decide
from pacsnode.route.rules import Rules
from pacsnode.settings import Settings, load

TYPICAL = "count(*) BETWEEN 60 AND 300 AND count(DISTINCT series_instance_uid) = 3"


def typical(index_db: Path, most: int) -> list[str]:
    """Studies of three series with 60 to 300 images, in the order in which they came."""
    with closing(sqlite3.connect(index_db)) as connection:
        rows = connection.execute(
            f"SELECT study_instance_uid FROM instances GROUP BY 1 HAVING {TYPICAL} ORDER BY min(received_utc_us)"
        ).fetchmany(most)
    return [uid for (uid,) in rows]


def seconds_to_decide(settings: Settings, rules: Rules, uids: Sequence[str], warm_up: int) -> tuple[list[float], float]:
    """Seconds for each study behind the first ones, each read just before as `work` reads it; and images of a study."""
    seconds, images = [], []
    with closing(Index(settings.index_db)) as index:
        for uid in uids:
            study = index.study(uid)
            assert study is not None
            begun = time.perf_counter()
            decision = decide(study, rules)
            seconds.append(time.perf_counter() - begun)
            images.append(len(study.instances))
            assert len(decision.verdicts) == len(rules.rules)
            del study, decision
    return seconds[warm_up:], statistics.median(images)


def replay(folder: Path, rounds: int) -> tuple[list[float], dict[str, Any]]:
    """Seconds of the whole command in each round, and what it said."""
    command = [sys.executable, "-m", "pacsnode", "rules", "replay", "--rules", str(folder / "new.yaml"), "--diff"]
    seconds, answer = [], ""
    for _ in range(rounds):
        begun = time.monotonic()
        done = subprocess.run([*command, "--json"], env=environment(folder), check=True, capture_output=True, text=True)
        seconds.append(time.monotonic() - begun)
        answer = done.stdout
    told: dict[str, Any] = json.loads(answer)
    return seconds, told


def environment(folder: Path) -> dict[str, str]:
    """The settings of the site."""
    return os.environ | {
        "PACSNODE_HOME": str(folder / "home"),
        "PACSNODE_RULES": str(folder / "rules.yaml"),
        "PACSNODE_MODELS": str(folder / "models"),
    }


def build(folder: Path, studies: int, rules: int) -> tuple[Settings, int]:
    """A site with its archive, services and two rules files; how many images it has."""
    (folder / "rules.yaml").write_text(many_rules.rules_text(rules))
    (folder / "new.yaml").write_text(many_rules.rules_text(rules, "new"))
    (folder / "models").mkdir()
    many_rules.install(folder / "models")
    settings = load(home=folder / "home", rules=folder / "rules.yaml", models=folder / "models")
    schema.migrate(settings)
    return settings, hospital.fill(settings.index_db, studies)


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--rules", type=int, default=200)
    parser.add_argument("--decided", type=int, default=800, help="studies decided one by one, at most")
    parser.add_argument("--rounds", type=int, default=3, help="of the replay")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="rules"))
    try:
        settings, images = build(folder, given.studies, given.rules)
        rules = load_site(settings).rules
        uids = typical(settings.index_db, given.decided)
        seconds, of_study = seconds_to_decide(settings, rules, uids, min(100, len(uids) // 2))
        replayed, told = replay(folder, given.rounds)
    finally:
        shutil.rmtree(folder)
    print("| figure | measured | must |\n|---|---|---|")
    what = f"one study of 3 series, {of_study:.0f} images, decided and explained under {given.rules} rules"
    p50_ms, p99_ms = percentile_ms(seconds, 50), percentile_ms(seconds, 99)
    print(f"| {what}, p50 of {len(seconds)} | {p50_ms:.2f} ms | under 2 ms |")
    print(f"| the same, p99 | {p99_ms:.2f} ms | |")
    what = f"`rules replay --diff`: {told['studies']:,} studies, {images:,} images, twice {given.rules} rules"
    median_s = statistics.median(replayed)
    print(f"| {what}, median of {len(replayed)} | {median_s:.1f} s | under 10 s |")
    print(f"| the same, worst | {max(replayed):.1f} s | |")
    print(f"\n{told['changed']:,} studies would change; {os.cpu_count()} cores, Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
