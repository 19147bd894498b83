"""A short campaign of truth, and that it would find the bugs that it is for."""

import asyncio
from dataclasses import replace

import apsw
import pykka
import pytest

from supervisor import QueryCancelled, QuerycrewError, QueryTimeout, Result, WorkerDied
from tests.stress.truth.campaign import WRITES, Plan, run
from tests.stress.truth.law import There, Told, Word, allowed
from tests.stress.truth.mutants import MUTANTS, PackingLate
from tests.stress.truth.ways import WAYS

_TRIES = 450  # fewer would not try every kind of write
_MOST_TRIES = 2250  # a planted bug has to show before


def error_with(kind: type[QuerycrewError], executed: bool | None) -> QuerycrewError:
    error = kind("an error")
    error.executed = executed
    return error


@pytest.mark.parametrize(
    ("told", "true"),
    [
        (Told(Result()), {There.WHOLE}),
        (Told(error=error_with(QueryCancelled, True)), {There.WHOLE}),
        (Told(error=error_with(QueryTimeout, False)), {There.NOT}),
        (Told(error=error_with(WorkerDied, None)), {There.NOT, There.WHOLE, There.BEGINNING}),
        (Told(error=apsw.ConstraintError()), {There.NOT, There.BEGINNING}),
        (Told(error=MemoryError()), {There.NOT, There.BEGINNING}),
        (Told(error=pykka.Timeout()), {There.NOT, There.WHOLE, There.BEGINNING}),
        (Told(error=asyncio.CancelledError()), {There.NOT, There.WHOLE, There.BEGINNING}),
        (Told(error=asyncio.CancelledError(), may_be_done=False), {There.NOT}),
    ],
    ids=lambda value: str(value) if isinstance(value, Told) else " or ".join(sorted(there.name for there in value)),
)
def test_each_answer_allows_some_contents_of_the_file(told, true):
    assert {there for there in There if allowed(told.word, there)} == true


@pytest.mark.parametrize(
    ("found", "there"),
    [
        (0, There.NOT),
        (1, There.BEGINNING),
        (5, There.PART),
        (701, There.BEGINNING),
        (1402, There.WHOLE),
        (1403, There.TWICE),
        (-1, There.PART),
    ],
)
def test_the_presence_of_a_write_follows_from_its_number_of_parts(found, there):
    [script] = [write for write in WRITES if write.name == "script"]
    assert replace(script, found=lambda file, number: found).there(None, 1) is there


def test_callers_hear_the_truth_whenever_a_write_is_interrupted(tmp_path):
    findings = run(tmp_path, _TRIES, 1, Plan(rounds=(1, 3, 40), large=0.05))
    assert findings.is_clean, findings.table()
    assert findings.total >= _TRIES
    assert {name for name, _ in findings.words} >= {write.name for write in WRITES}
    told = {word: sum(count for (_, each), count in findings.words.items() if each is word) for word in Word}
    assert min(told[word] for word in (Word.ANSWERED, Word.DONE, Word.UNDONE, Word.FAILED, Word.NOTHING)) > 0, told


THREADS = Plan(
    places=["threads"],
    writes=[write for write in WRITES if write.name in ("insert, 3,000 rows", "returning", "transaction")],
    ways=[way for way in WAYS if way.name.startswith("cancel of the reply")],
    states=["warm", "new text"],
    rounds=[200],
    limited=0.0,
    shut_down=0.0,
)
"""Many tries of little: a window of some microseconds is hit once in a hundred."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(tmp_path, monkeypatch, name):
    for mutant in MUTANTS[name]:
        monkeypatch.setattr(*mutant)
    findings = run(tmp_path, _MOST_TRIES, 1, THREADS, until_wrong=True)
    assert not findings.is_clean, findings.table()


def test_an_answer_that_is_packed_behind_the_commit_is_found(tmp_path):
    findings = run(tmp_path, 200, 1, Plan(places=["children"], large=1.0, child=PackingLate), until_wrong=True)
    assert findings.lies, findings.table()
    assert "MemoryError" in findings.lies[0]
