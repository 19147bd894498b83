"""A crew answers as a plain connection does.

The comparison finds each planted bug, and it runs every kind of statement.
"""

import logging
import re
import subprocess
import sys

import pytest
from hypothesis.errors import Flaky

from actors.databases.sqlite.runner import Runner
from tests.sqlite.differential import plain
from tests.sqlite.differential.campaign import Campaign, drawn_by_hypothesis
from tests.sqlite.differential.mutants import MUTANTS
from tests.support.common import environment

PROGRAMS = {"memory": 60, "file": 60, "rollback journal": 40, "child": 6}
LOOKED_AT = 400  # programs of some 40 statements each; a planted bug must show in one of them


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL)


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_crew_answers_as_a_plain_connection_does(kind):
    campaign = Campaign(kind)
    drawn_by_hypothesis(campaign.run, PROGRAMS[kind])
    assert campaign.clean.total() > 500


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_planted_bug_is_found(mutant, monkeypatch):
    for name, part in mutant.parts.items():
        monkeypatch.setattr(mutant.owner, name, part)
    campaign = Campaign(mutant.kind, makes_short=False)
    with pytest.raises((AssertionError, Flaky)) as found:  # some mutants depend on time
        drawn_by_hypothesis(campaign.run, LOOKED_AT)
    assert isinstance(found.value, Flaky) or "a crew of kind" in str(found.value)


def test_a_wrong_answer_is_shown_with_the_statements_that_cause_it(monkeypatch):
    monkeypatch.setattr(Runner, "_fetch", lambda self, most: (self._cursor.fetchall()[1:], False))
    with pytest.raises(AssertionError) as caught:
        drawn_by_hypothesis(Campaign("memory").run, LOOKED_AT)
    lines = str(caught.value).splitlines()
    assert lines[0] == "a crew of kind 'memory'"
    assert len(lines) <= 5
    assert "should" in lines[-1]


def test_the_command_says_how_many_statements_ran_clean():
    command = [
        sys.executable,
        "-m",
        "tests.sqlite.differential",
        "--statements",
        "500",
        "--kind",
        "memory",
        "--form",
        "session",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment())
    assert (done.returncode, done.stderr) == (0, "")
    counts = {line[:22].strip(): int(line[22:].split()[0].replace(",", "")) for line in done.stdout.splitlines()[1:-1]}
    assert counts["all"] >= 500
    assert counts["session"] > counts["all"] / 2


WANTED = [
    *("STRICT", "WITHOUT ROWID", "GENERATED ALWAYS", "AUTOINCREMENT", "CHECK", "REFERENCES", "INITIALLY DEFERRED"),
    *("CREATE UNIQUE INDEX", r"CREATE INDEX .* WHERE", "CREATE .*VIEW", "CREATE VIRTUAL TABLE", "AS SELECT"),
    *("BEFORE INSERT", "AFTER UPDATE", "INSTEAD OF", r"raise\(FAIL", r"raise\(IGNORE", "CREATE TEMP TRIGGER"),
    *(r"INSERT OR (FAIL|ROLLBACK|IGNORE)", "UPDATE OR", "REPLACE INTO", "DO UPDATE SET", "DO NOTHING", "RETURNING"),
    *("UPDATE .* FROM", "INSERT .* SELECT", "DEFAULT VALUES", r"VALUES .*\), \(", "^WITH .* INSERT", "WITH RECURSIVE"),
    *("ADD COLUMN", "DROP COLUMN", "RENAME COLUMN", "RENAME TO", "DROP TABLE", "DROP TRIGGER", "CREATE TEMP TABLE"),
    *("MATCH", "json_each", "OVER", "GROUP BY", "UNION", "FULL JOIN", "EXISTS", "ATTACH", "SAVEPOINT", "EXPLAIN"),
    *("VACUUM", "ANALYZE", "REINDEX", "PRAGMA table_xinfo", "pragma_index_list", "PRAGMA user_version =", "--", ":p1"),
]


def test_statements_of_every_kind_are_run_and_most_of_them_without_an_error(monkeypatch):
    good, run = list[str](), plain.run
    asked = 0

    def note(connection, statement):
        nonlocal asked
        asked += 1
        answer = run(connection, statement)
        good.append(statement.sql)
        return answer

    monkeypatch.setattr(plain, "run", note)
    drawn_by_hypothesis(Campaign("memory").run, 100)
    assert len(good) > 0.7 * asked
    assert [wanted for wanted in WANTED if not any(re.search(wanted, sql, re.DOTALL) for sql in good)] == []
