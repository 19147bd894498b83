"""An exception that leaves the `with` block of a crew reaches the caller at once."""

import asyncio
import threading

import pytest

from supervisor import Query, Script, Status, Supervisor, SupervisorStopped
from tests.conftest import eventually
from tests.support.common import PATIENCE, RUNAWAY, nothing_left, run_program
from tests.support.fakes import FakeDatabase, Gate
from tests.support.health import KINDS

INSERT = f"INSERT INTO t SELECT ({RUNAWAY})"


class Typo(Exception):
    pass


def fill(db):
    """Ask for an endless query, an endless write and ten short jobs; return all replies."""
    replies = [db.ask(Query(sql), block=False) for sql in (RUNAWAY, INSERT)]
    assert eventually(lambda: db.ask(Status()).running == min(2, len(db.ask(Status()).workers)))
    return [*replies, *(db.ask(Query(sql), block=False) for sql in ("SELECT 1", "INSERT INTO t VALUES (1)") * 5)]


def leave(start, error):
    with start() as db:
        db.ask(Script("CREATE TABLE t(x)"))
        replies.extend(fill(db))
        raise error


def leave_async(start, error):
    async def main():
        async with start() as db:
            await db.ask(Script("CREATE TABLE t(x)"), block=False)
            replies.extend(fill(db))
            raise error

    asyncio.run(main())


replies = []


@pytest.fixture(params=[leave, leave_async], ids=["with", "async with"])
def leaving(request):
    replies.clear()
    return request.param


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [Typo, KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_an_exception_interrupts_running_jobs_and_rejects_queued_jobs(path, leaving, kind, error):
    with pytest.raises(error):
        leaving(lambda: Supervisor.start(KINDS[kind](path), size=1), error)
    errors = [reply.exception(0) for reply in replies]
    assert {type(each) for each in errors} == {SupervisorStopped}
    assert not any(each.executed for each in errors)
    assert nothing_left()


def test_a_statement_that_ignores_its_interrupt_does_not_delay_the_exception():
    gate = Gate()
    with pytest.raises(Typo), Supervisor.start(FakeDatabase({"stubborn": gate}), size=1) as db:
        reply = db.ask(Query("stubborn"), block=False)
        assert gate.entered.wait(PATIENCE)
        raise Typo
    assert isinstance(reply.exception(0), SupervisorStopped)
    assert reply.exception(0).executed is None
    gate.opened.set()
    assert nothing_left()


def test_an_answered_write_is_kept(path, leaving):
    def start():
        db = Supervisor.start(path, size=1)
        db.ask(Script("CREATE TABLE kept(x); INSERT INTO kept VALUES (1)"))
        return db

    with pytest.raises(Typo):
        leaving(start, Typo)
    with Supervisor.start(path) as db:
        assert db.ask(Query("SELECT x FROM kept")).scalar() == 1
        assert db.ask(Query("SELECT count(*) FROM t")).scalar() == 0


def test_a_transaction_of_another_thread_ends_with_the_block(path):
    ended, entered = [], threading.Event()

    def work(db):
        try:
            with db.transaction(timeout=None) as tx:
                tx.ask(Query("INSERT INTO t VALUES (1)"))
                entered.set()
                tx.ask(Query(RUNAWAY))
        except SupervisorStopped as error:
            ended.append(error.executed)

    with pytest.raises(Typo), Supervisor.start(path, size=1) as db:
        db.ask(Script("CREATE TABLE t(x)"))
        worker = threading.Thread(target=work, args=(db,))
        worker.start()
        assert entered.wait(PATIENCE)
        raise Typo
    worker.join(PATIENCE)
    assert ended == [False]


def test_without_an_exception_the_block_waits_for_all_accepted_jobs(path):
    async def main():
        async with Supervisor.start(path, size=1) as db:
            await db.ask(Script("CREATE TABLE t(x)"), block=False)
            return [db.ask(Query("INSERT INTO t VALUES (1)"), block=False) for _ in range(50)]

    assert all(reply.exception(0) is None for reply in asyncio.run(main()))


def test_a_block_on_a_thread_of_the_crew_does_not_wait_for_itself():
    for leave_it in (
        lambda db: db.__exit__(Typo, Typo(), None),
        lambda db: db.__exit__(None, None, None),
        lambda db: asyncio.run(db.__aexit__(Typo, Typo(), None)),
        lambda db: asyncio.run(db.__aexit__(None, None, None)),
    ):
        gate, left = Gate(), []
        db = Supervisor.start(FakeDatabase({"slow": gate}), size=1)
        reply = db.ask(Query("slow"), block=False)
        assert gate.entered.wait(PATIENCE)
        reply.add_done_callback(lambda _, db=db, left=left, leave_it=leave_it: left.append(leave_it(db)))
        gate.opened.set()
        assert db.wait_until_ended(PATIENCE)
        assert eventually(lambda left=left: left == [None])
    assert nothing_left()


# --- Ctrl-C -------------------------------------------------------------------------------


# A cancelled task cancels the reply that it awaits.
@pytest.mark.parametrize(("how", "awaited"), [("with", "SupervisorStopped"), ("async with", "QueryCancelled")])
def test_ctrl_c_leaves_a_block_although_endless_queries_run(path, how, awaited):
    done = run_program("interrupted", f"leaving {how}", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["interrupted True", f"ended {awaited} SupervisorStopped"]


def test_ctrl_c_interrupts_every_way_of_stopping_and_each_can_be_tried_again(path):
    done = run_program("interrupted", "prompt", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        *(f"{how} interrupted True" for how in ("stop", "stop", "shutdown", "shutdown", "with", "stop")),
        "alive True",
        "ended True",
        "replies SupervisorStopped SupervisorStopped SupervisorStopped SupervisorStopped",
    ]
