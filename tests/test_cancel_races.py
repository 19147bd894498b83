"""Deadlines and cancels that come at the worst moment, step by step and without threads."""

import math
import sys
import threading

import apsw
import pytest

from actors.restart import RestartPolicy
from actors.result import Result
from supervisor import Query, QueryCancelled, QueryTimeout, ResultLost, SQLite, Status
from tests.desk import Desk
from tests.stepped import CLOCK, SteppedSupervisor

POLICY = RestartPolicy(jitter=0, grace=0.5)


@pytest.fixture
def started():
    crews = []

    def start(size=1, **options):
        crew = SteppedSupervisor(size, None, POLICY, **options)
        crews.append(crew)
        crew.launch()
        crew.run(crew.on_start)
        while len(crew.database.workers) < size or not crew.database.workers[-1].opened:
            crew.database.workers[-1].open()
            read_all(crew)
        return crew

    yield start
    for crew in crews:
        for actor in (crew, *crew.database.workers):
            actor.retire()


def read_all(crew):
    while crew.has_mail:
        crew.read()


def ask(crew, **options):
    """Ask, and let the workers that are woken for it take it."""
    reply = crew.actor_ref.ask(Query("SELECT 1", **options), block=False)
    for worker in crew.database.workers:
        if worker.opened and worker.has_mail and not worker.is_paused:
            worker.read()
    return reply


def after(method, act):
    """Return `method` with something that happens between it and its caller's next step, once."""
    todo = [act]

    def replaced(*args, **options):
        answer = method(*args, **options)
        while todo:
            todo.pop()()
        return answer

    return replaced


def before(method, act):
    todo = [act]

    def replaced(*args, **options):
        while todo:
            todo.pop()()
        return method(*args, **options)

    return replaced


def test_a_job_that_ends_in_spite_of_its_interrupt_leaves_the_next_one_unhurt(started):
    crew = started()
    (worker,) = crew.database.workers
    late, innocent = ask(crew, timeout=0.1), ask(crew)
    CLOCK.now += 0.2
    read_all(crew)
    connection = worker._connection
    interrupts = connection.interrupts
    assert interrupts
    worker.end_job(Result())
    assert late.get(timeout=0) == Result()
    for _ in range(50):
        CLOCK.now += 0.02
        read_all(crew)
    assert connection.interrupts == interrupts
    worker.end_job(Result())
    assert innocent.get(timeout=0) == Result()
    assert crew.actor_inbox.alarm is None


@pytest.mark.parametrize("outcome", [Result(), ResultLost("it was done"), ValueError("no such table")])
def test_a_cancel_just_as_the_statement_is_done_keeps_its_word(started, outcome):
    crew = started()
    (worker,) = crew.database.workers
    reply = ask(crew)
    said = []
    crew.dispatcher.finish = before(crew.dispatcher.finish, lambda: said.append(reply.cancel()))
    worker.end_job(outcome)
    assert said == [True]
    error = reply.exception(0)
    assert isinstance(error, QueryCancelled)
    assert error.executed is isinstance(outcome, (Result, ResultLost))
    status = crew.actor_ref.ask(Status())
    assert (status.cancelled, status.answered, status.failed) == (1, 0, 0)


def ask_until_it_is_done(crew):
    """Ask for a statement whose deadline passes just as it is done."""
    reply = ask(crew, timeout=0.1)

    def time_is_up():
        CLOCK.now += 0.2
        read_all(crew)

    crew.dispatcher.finish = before(crew.dispatcher.finish, time_is_up)
    return reply


def test_a_deadline_just_as_the_statement_has_failed_counts_as_what_the_caller_is_told(started):
    crew = started()
    (worker,) = crew.database.workers
    reply = ask_until_it_is_done(crew)
    worker.end_job(ValueError("no such table"))
    status = crew.actor_ref.ask(Status())
    timed_out = isinstance(reply.exception(0), QueryTimeout)
    assert (status.timed_out, status.failed) == (timed_out, not timed_out)


def test_a_deadline_just_as_the_result_of_a_done_statement_is_lost_says_that_it_was_done(started):
    crew = started()
    (worker,) = crew.database.workers
    reply = ask_until_it_is_done(crew)
    worker.end_job(ResultLost("it was done"))
    error = reply.exception(0)
    assert isinstance(error, QueryTimeout)
    assert error.executed is True
    assert isinstance(error.__cause__, ResultLost)


@pytest.mark.parametrize("method", ["follow_up", "bury"])
def test_a_worker_that_comes_back_as_it_is_given_up_does_not_take_its_next_job_with_it(started, method):
    crew = started()
    (worker,) = crew.database.workers
    stuck, following = ask(crew, timeout=0.1), ask(crew, timeout=5)
    CLOCK.now += 0.2
    read_all(crew)
    CLOCK.now += 0.6

    def come_back():
        if not crew.dispatcher.is_mine():  # otherwise it has to wait until all is decided
            worker.end_job(Result())

    moment = after if method == "follow_up" else before
    setattr(crew.dispatcher, method, moment(getattr(crew.dispatcher, method), come_back))
    read_all(crew)
    assert stuck.done()
    for _ in range(400):  # whoever runs the next one now, its deadline holds
        CLOCK.now += 0.02
        read_all(crew)
    assert following.done()
    status = crew.actor_ref.ask(Status())
    assert (status.died, status.queued, status.running) == (0, 0, 0)


def test_a_finalizer_may_cancel_another_job_while_one_is_interrupted_again(started):
    crew = started(size=2)
    first, second = ask(crew), ask(crew)
    connection = next(worker._connection for worker in crew.database.workers if worker.member.job.reply is first)
    first.cancel()
    connection.interrupt = before(connection.interrupt, second.cancel)
    CLOCK.now += 0.05
    read_all(crew)
    for worker in crew.database.workers:
        worker.end_job(InterruptedError())
    assert isinstance(first.exception(0), QueryCancelled)
    assert isinstance(second.exception(0), QueryCancelled)


def test_jobs_whose_deadlines_end_together_are_rejected_in_the_order_of_the_asking(started):
    crew = started()
    ask(crew)
    told = []
    for number in range(100):
        reply = ask(crew, timeout=0.1)
        reply.add_done_callback(lambda _, number=number: told.append(number))
    CLOCK.now += 0.2
    read_all(crew)
    assert told == list(range(100))


@pytest.mark.parametrize(
    "timeout", [1e307, 1e300, 10**400, 1e17, math.inf], ids=["1e307", "1e300", "10**400", "1e17", "inf"]
)
def test_a_deadline_in_a_million_years_is_none(started, timeout):
    crew = started()
    (worker,) = crew.database.workers
    reply = ask(crew, timeout=timeout)
    worker.end_job(Result())
    assert reply.get(timeout=0) == Result()
    assert not worker.ended


@pytest.mark.parametrize("method", ["withdraw", "cancelled"])
def test_a_cancel_that_is_cut_off_by_ctrl_c_leaves_nobody_waiting(started, method):
    crew = started()
    ask(crew)
    reply = ask(crew)

    def ctrl_c():
        raise KeyboardInterrupt

    setattr(crew.dispatcher, method, after(getattr(crew.dispatcher, method), ctrl_c))
    with pytest.raises(KeyboardInterrupt):
        reply.cancel()
    assert isinstance(reply.exception(0), QueryCancelled)


@pytest.mark.parametrize("milliseconds", range(0, 200, 7))
def test_when_the_queue_is_looked_at_and_what_is_then_shed_agree_to_the_last_digit(milliseconds):
    desk = Desk(shed_after=0.05)
    desk.clock.now += milliseconds / 1000
    job = desk.submit()
    desk.clock.now = desk.dispatcher.next_due()
    assert [shed for shed, _ in desk.dispatcher.expire(desk.clock.now)] == [job]


class CtrlC:
    """A profiler that interrupts a thread at the `at`-th moment at which Python could do so, in locks as well."""

    def __init__(self, at):
        self.left = at

    def __call__(self, frame, event, arg):
        if event in ("call", "c_return") and frame.f_globals.get("__name__", "").startswith(("actors", "threading")):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


@pytest.mark.parametrize("at", range(1, 12))
def test_an_interrupt_that_is_cut_off_by_ctrl_c_leaves_the_connection_usable(path, at):
    connection = SQLite(path).connect()
    sys.setprofile(CtrlC(at))
    try:
        connection.interrupt()
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
    usable = threading.Event()

    def use():
        connection.interrupt()
        if connection.execute(Query("SELECT 1")).scalar() == 1:
            usable.set()

    threading.Thread(target=use, daemon=True).start()
    assert usable.wait(5), "it hangs, and so would everybody who needs the dispatcher's lock"
    connection.close()


def test_a_cancel_that_comes_while_the_connection_is_opened_anew_does_not_lose_it(path):
    connection = SQLite(path, journal_mode="delete").connect()
    other = apsw.Connection(str(path))
    open_anew, on_busy = connection._open, connection._on_busy

    def cancelled_while_another_holds_the_lock():
        other.execute("BEGIN EXCLUSIVE")
        connection.interrupt()
        open_anew()

    def goes_on_once_the_lock_is_free(attempts):
        if other.in_transaction:
            other.execute("ROLLBACK")
        return on_busy(attempts)

    connection._open, connection._on_busy = cancelled_while_another_holds_the_lock, goes_on_once_the_lock_is_free
    try:
        connection.execute(Query("PRAGMA cache_size = 100"))  # the next job must not see that
        assert connection.execute(Query("SELECT 1")).scalar() == 1
    finally:
        connection.close()
        other.close(True)
