"""A short chaos run.

The killer kills anything, each request is answered once, and nothing runs twice.
"""

import subprocess
import sys
from pathlib import Path

from actors.databases.base import Connection
from actors.dispatch.dispatcher import Dispatcher
from actors.dispatch.lane import Lane
from actors.replies.reply import Reply
from tests.stress.chaos.databases import Scripted
from tests.stress.chaos.files import File
from tests.stress.chaos.run import run

_ASKS = 16_000
_PAUSE = 0.0005  # seconds between two kills: more than a test needs, so that some hit every time


def test_nothing_is_lost_and_nothing_runs_twice_in_spite_of_kills():
    findings = run(_ASKS, 1, Scripted(), pause=_PAUSE)
    assert not findings.broken, findings.table()
    assert min(findings.outcomes[name] for name in ("answered", "QueryTimeout", "QueryCancelled")) > 0
    assert findings.restarts > 0
    assert min(findings.kills[way] for way in ("interrupt", "stop", "doom")) > 0


def test_nothing_is_lost_on_a_real_file_with_readers_and_a_writer(path):
    findings = run(_ASKS // 4, 1, File(path, in_children=False), pause=_PAUSE)
    assert not findings.broken, findings.table()
    assert min(findings.outcomes[name] for name in ("answered", "committed", "streamed")) > 0
    assert findings.restarts > 0


def test_nothing_is_lost_on_a_real_file_in_children(path):
    findings = run(_ASKS // 4, 1, File(path, in_children=True), workers=2, pause=0.1)
    assert not findings.broken, findings.table()
    assert min(findings.outcomes[name] for name in ("answered", "committed", "streamed")) > 0


def test_a_job_that_runs_again_is_found(monkeypatch):
    real = Connection.run_one

    def twice(connection, batch, task):
        if task.request.params[0] % 1000 == 0:
            connection.execute(task.request)
        return real(connection, batch, task)

    monkeypatch.setattr(Connection, "run_one", twice)
    assert "ran twice" in run(_ASKS // 4, 1, Scripted()).broken


def test_an_orphan_that_is_forgotten_is_found(monkeypatch):
    real, forgotten = Dispatcher.remove_worker, []

    def forget_one(dispatcher, handle):
        orphans = real(dispatcher, handle)
        if not forgotten:
            forgotten.extend(orphans)
        return [orphan for orphan in orphans if orphan not in forgotten]

    monkeypatch.setattr(Dispatcher, "remove_worker", forget_one)
    findings = run(_ASKS // 4, 1, Scripted(), pause=_PAUSE, patience=0.5)
    assert "unanswered" in findings.broken
    assert findings.unanswered == 1


def test_a_second_answer_is_found(monkeypatch):
    take, settle = Lane.take, Reply.settle

    def take_and_answer_again(lane, handle):
        batch = take(lane, handle)
        for job in () if batch is None else batch.jobs:
            job.reply.add_done_callback(lambda reply: reply.settle(reply._outcome))
        return batch

    def accept_every_answer(reply, outcome):
        return settle(reply, outcome) or reply.done()

    monkeypatch.setattr(Lane, "take", take_and_answer_again)
    monkeypatch.setattr(Reply, "settle", accept_every_answer)
    assert "answered twice" in run(_ASKS // 4, 1, Scripted(), patience=1.0).broken


def test_a_cancel_that_is_promised_and_not_kept_is_found(monkeypatch):
    monkeypatch.setattr(Dispatcher, "cancel", lambda dispatcher, job: True)
    assert "unexpected" in run(_ASKS // 4, 1, Scripted(), patience=1.0).broken


def test_an_interrupt_that_outlives_its_job_is_found(monkeypatch):
    monkeypatch.setattr(Dispatcher, "follow_up", lambda dispatcher, now: [])
    monkeypatch.setattr("tests.stress.chaos.run.eventually", lambda condition, seconds=0: condition())
    assert "kept" in run(_ASKS // 4, 1, Scripted(), patience=1.0).broken


def test_the_command_prints_a_table_and_ends_with_0_if_nothing_is_broken():
    command = [sys.executable, "-m", "tests.stress.chaos", "--asks", "2000", "--seed", "2", "--database", "sqlite"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all invariants hold" in done.stdout
    assert not done.stderr
