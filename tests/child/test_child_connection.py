"""A batch in a child process, seen by its worker: each job is answered, lost or given back, once.

The tests run without processes and threads: a test scripts the child; see `scripted_child`.
"""

import marshal
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.databases.base import NeedsWriter
from actors.databases.child.connection import ChildConnection
from actors.databases.child.frames import ANSWERS, ERROR, FLUSH, frame
from actors.databases.steps import Begin
from actors.values.errors import ChildProcessEnded, ConnectionLost
from supervisor import Query
from tests.support.groups import Asked, Together, errors
from tests.support.scripted_child import ScriptedChild, connected


class Sent(Together):
    """Jobs that a worker has taken for a child."""

    def __init__(self, connection: ChildConnection, number: int, *requests: Query) -> None:
        super().__init__(connection, requests or [Query("SELECT ?", (each,)) for each in range(number)])
        self.rerouted: list[Asked] = []
        self.stolen: list[int] = []
        """Positions of the jobs that another worker has taken."""

    def reroute(self, task: Asked) -> None:
        self._leave(task)
        self.rerouted.append(task)

    def steal(self, most: int | None = None) -> list[int]:
        """Let another worker take jobs, and return their positions."""
        back = self.connection.recall(most)
        self.stolen += [task.position for task in back]
        return [task.position for task in back]

    def lost(self) -> list[int]:
        """Return the positions of the jobs that have begun and have no answer."""
        return [task.position for task in self.running]

    def given_back(self) -> list[int]:
        return [task.position for task in self.left]


@pytest.fixture(params=[True, False], ids=["reader", "writer"])
def reads_only(request):
    return request.param


@pytest.fixture
def ends(monkeypatch, reads_only):
    """Return a connection and the child at its other end."""
    return connected(monkeypatch, reads_only=reads_only)


def run(connection: ChildConnection, batch: Sent) -> ConnectionLost | None:
    """Run a batch; return the error if the connection was lost, else None."""
    try:
        connection.run(batch)
    except ConnectionLost as lost:
        return lost
    return None


# --- answers ------------------------------------------------------------------------------


def test_a_batch_is_sent_together_and_answered_together(ends):
    connection, child = ends
    batch = Sent(connection, 5)
    child.script.append(child.run)
    assert run(connection, batch) is None
    assert child.begun == [1, 2, 3, 4, 5]
    assert [task.value.scalar() for task in batch.tasks] == [1] * 5
    assert batch.answered == [0, 1, 2, 3, 4]
    assert not connection._tasks, "the connection keeps no finished task"


def test_jobs_of_a_second_batch_have_other_tickets(ends):
    connection, child = ends
    for number in range(3):
        batch = Sent(connection, 2)
        child.script.append(child.run)
        assert run(connection, batch) is None
        assert child.begun[-2:] == [2 * number + 1, 2 * number + 2]


def test_more_jobs_than_a_child_takes_are_sent_one_part_after_the_other(ends):
    connection, child = ends
    batch = Sent(connection, 300)
    child.script += [child.run] * 3
    assert run(connection, batch) is None
    assert batch.answered == [*range(300)]


def test_a_large_job_is_sent_by_itself(ends):
    connection, child = ends
    large = Query("SELECT ?", (b"x" * 100_000,))
    batch = Sent(connection, 0, Query("SELECT 1"), large, Query("SELECT 2"))
    sent = []
    child.script += [lambda: (sent.extend(child.frames), child.run()), child.run, child.run]
    assert run(connection, batch) is None
    assert [count for _, count, _ in sent] == [1, 1]
    assert errors(batch.tasks) == [None] * 3


def test_only_the_jobs_that_need_too_much_memory_to_send_get_the_error(ends, monkeypatch):
    from actors.databases.child import connection as child_connection

    real = child_connection.jobs_frame

    def jobs_frame(ticket, items, *kind):
        if any(len(str(item)) > 1000 for item in items):
            raise MemoryError
        return real(ticket, items, *kind)

    monkeypatch.setattr(child_connection, "jobs_frame", jobs_frame)
    connection, child = ends
    batch = Sent(connection, 0, Query("SELECT 1"), Query("SELECT ?", ("x" * 100_000,)), Query("SELECT 2"))
    child.script += [child.run] * 2
    assert run(connection, batch) is None
    assert errors(batch.tasks) == [None, "MemoryError", None]
    with pytest.raises(MemoryError):
        connection.execute(Query("SELECT ?", ("x" * 100_000,)))
    batch = Sent(connection, 2)
    child.script.append(child.run)
    assert run(connection, batch) is None


def test_an_error_goes_to_its_own_job_and_a_job_that_writes_is_rerouted(ends):
    connection, child = ends
    batch = Sent(connection, 4)

    def script():
        child.begin()
        child.answer()
        child.begin()
        child.fail(ValueError("no"))
        child.begin()
        child.reroute()
        child.run()

    child.script.append(script)
    assert run(connection, batch) is None
    assert errors(batch.tasks) == [None, "ValueError", None, None]
    assert batch.rerouted == [batch.tasks[2]]
    assert sorted(batch.answered) == [0, 1, 3]
    assert not isinstance(batch.tasks[1].error, NeedsWriter)


def test_answers_that_a_child_keeps_are_asked_for(ends):
    """The callers of finished jobs do not wait for a long job behind them."""
    connection, child = ends
    batch = Sent(connection, 3)
    seen = []
    child.script += [
        child.begin,
        child.answer,
        child.begin,
        lambda: None,
        lambda: child.flush() if FLUSH in child.interrupted else None,
        lambda: seen.extend(batch.answered),
        child.answer,
        child.run,
    ]
    assert run(connection, batch) is None
    assert seen == [0]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 64,
        b"\xff",
        frame(ANSWERS, 99, b""),
        frame(ANSWERS, 0, b"no marshal"),
        frame(ANSWERS, 0, marshal.dumps([(2, 0.5, 5)])),
        frame(ERROR, 7, b""),
    ],
    ids=["no frame", "no byte of one", "of no job", "no answers", "no result", "no error"],
)
def test_a_malformed_answer_costs_the_child_and_one_job(ends, data):
    connection, child = ends
    batch = Sent(connection, 3)
    child.script += [child.begin, lambda: child.say(data), child.die]
    lost = run(connection, batch)
    assert lost is not None
    assert "sent a frame that cannot be read" in str(lost.__cause__)
    assert (batch.given_back(), batch.lost()) == ([1, 2], [0])


# --- taken back ---------------------------------------------------------------------------


def test_the_oldest_jobs_are_taken_back_and_no_job_that_has_begun(ends):
    connection, child = ends
    batch = Sent(connection, 6)
    child.script += [child.begin, lambda: batch.steal(2), child.answer, child.run]
    assert run(connection, batch) is None
    assert batch.stolen == [1, 2]
    assert batch.answered == [0, 3, 4, 5]


def test_all_jobs_that_have_not_begun_can_be_taken_back(ends):
    connection, child = ends
    batch = Sent(connection, 6)
    child.script += [child.begin, batch.steal, batch.steal, child.answer, child.run]
    assert run(connection, batch) is None
    assert batch.stolen == [1, 2, 3, 4, 5]
    assert batch.answered == [0]


def test_a_child_that_is_silent_after_all_was_taken_back_is_killed_at_the_cost_of_no_job(ends):
    """The child is stopped or hangs. Without the kill, its worker would wait for ever."""
    connection, child = ends
    batch = Sent(connection, 3)
    child.script += [batch.steal, *[lambda: None] * 2]
    lost = run(connection, batch)
    assert lost is not None
    assert (lost.begun, lost.blames) == (False, False)
    assert "did not answer" in str(lost.__cause__)
    assert child.ended
    assert (batch.stolen, batch.given_back(), batch.lost()) == ([0, 1, 2], [], [])


def test_a_child_that_runs_a_job_may_be_silent_for_any_time(ends):
    connection, child = ends
    batch = Sent(connection, 2)
    child.script += [child.begin, lambda: batch.steal(1), *[lambda: None] * 10, child.answer, child.run]
    assert run(connection, batch) is None
    child.script += [child.begin, *[lambda: None] * 10, child.answer, child.run]
    assert connection.execute(Begin(readonly=True)).scalar() == 1


def test_a_batch_is_over_once_all_its_jobs_are_taken_back(ends):
    connection, child = ends
    batch = Sent(connection, 3)
    child.script += [batch.steal, child.run]
    assert run(connection, batch) is None
    assert batch.stolen == [0, 1, 2]
    assert child.begun == []


def test_a_job_that_was_taken_back_can_be_sent_again(ends):
    connection, child = ends
    batch = Sent(connection, 3)
    child.script += [child.begin, batch.steal, child.answer, child.run]
    assert run(connection, batch) is None
    again = Sent(connection, 2)
    child.script.append(child.run)
    assert run(connection, again) is None
    assert child.begun == [1, 4, 5]


def test_a_step_is_never_taken_back(ends):
    """A step belongs to a job that has begun; another worker could not continue that job."""
    connection, child = ends
    taken = []
    child.script += [lambda: taken.extend(connection.recall()), child.run]
    assert connection.execute(Begin(readonly=True)).scalar() == 1
    assert taken == []


# --- interrupts ---------------------------------------------------------------------------


def test_an_interrupt_has_the_ticket_of_its_job(ends):
    connection, child = ends
    batch = Sent(connection, 4)
    child.script += [child.begin, lambda: batch.interrupt_it(2), lambda: batch.interrupt_it(0), child.answer, child.run]
    assert run(connection, batch) is None
    assert [ticket for ticket in child.interrupted if ticket != FLUSH] == [3, 1]


def test_an_interrupt_of_a_job_that_was_answered_in_this_moment_hits_no_other_job(ends):
    connection, child = ends
    batch = Sent(connection, 4)
    child.script += [child.begin, child.answer, child.flush, child.run]
    real = batch.answer

    def answer(task, value, seconds=None):
        if task.position == 0:
            connection.cancel(task)  # another thread cancels, and still sees the job as running
        real(task, value, seconds)

    batch.answer = answer
    assert run(connection, batch) is None
    assert [ticket for ticket in child.interrupted if ticket != FLUSH] in ([], [1])


def test_an_interrupt_of_a_job_that_was_taken_back_in_this_moment_hits_no_other_job(ends):
    connection, child = ends
    batch = Sent(connection, 4)
    child.script += [child.begin, lambda: [connection.cancel(task) for task in connection.recall(1)], child.answer]
    child.script.append(child.run)
    assert run(connection, batch) is None
    assert [ticket for ticket in child.interrupted if ticket != FLUSH] == []


def test_an_interrupt_of_a_job_that_takes_steps_is_for_the_step(ends):
    connection, child = ends
    batch = Sent(connection, 2)
    child.script.append(child.run)
    assert run(connection, batch) is None
    job = object()  # the transaction, as its caller knows it
    child.script += [child.begin, lambda: connection.cancel(job), child.answer, child.run]
    connection.execute(Begin(readonly=True))
    assert child.interrupted == [3]


# --- deaths -------------------------------------------------------------------------------


def test_a_death_before_any_job_began_gives_all_jobs_back(ends):
    connection, child = ends
    batch = Sent(connection, 3)
    child.script.append(child.die)
    lost = run(connection, batch)
    assert lost is not None
    assert isinstance(lost.__cause__, ChildProcessEnded)
    assert (batch.given_back(), batch.lost()) == ([0, 1, 2], [])


def test_jobs_that_are_sent_to_a_dead_child_are_given_back(ends):
    connection, child = ends
    batch = Sent(connection, 200)
    child.script += [lambda: (child.run(), child.die())]
    assert run(connection, batch) is not None
    assert batch.answered == [*range(128)]
    assert (sorted(batch.given_back()), batch.lost()) == ([*range(128, 200)], [])


def test_a_death_costs_the_running_job(ends):
    connection, child = ends
    batch = Sent(connection, 4)
    child.script += [lambda: (child.begin(), child.answer(), child.flush()), child.begin, child.die]
    assert run(connection, batch) is not None
    assert batch.answered == [0]
    assert (batch.given_back(), batch.lost()) == ([2, 3], [1])


def test_reads_whose_answers_never_left_a_child_are_given_back_and_writes_never(ends, reads_only):
    connection, child = ends
    batch = Sent(connection, 5)
    child.script.append(lambda: (child.begin(), child.answer(), child.begin(), child.answer(), child.begin()))
    child.script.append(child.die)
    assert run(connection, batch) is not None
    assert batch.answered == []
    if reads_only:
        assert (batch.given_back(), batch.lost()) == ([0, 1, 3, 4], [2])
    else:
        assert (batch.given_back(), batch.lost()) == ([3, 4], [0, 1, 2])


def test_the_running_job_is_lost_even_if_jobs_behind_it_were_taken_back(ends, reads_only):
    """A job that killed its child would otherwise begin again, and kill the next child."""
    connection, child = ends
    batch = Sent(connection, 6)
    child.script.append(lambda: (child.begin(), child.answer(), child.begin(), batch.steal(2)))
    child.script.append(child.die)
    assert run(connection, batch) is not None
    assert batch.stolen == [2, 3]
    assert (batch.given_back(), batch.lost()) == (([0, 4, 5], [1]) if reads_only else ([4, 5], [0, 1]))


def test_answers_that_left_a_child_before_its_end_are_given(ends):
    connection, child = ends
    batch = Sent(connection, 3)
    child.script.append(lambda: (child.begin(), child.answer(), child.begin(), child.answer(), child.flush()))
    child.script.append(child.die)
    assert run(connection, batch) is not None
    assert batch.answered == [0, 1]
    assert (batch.given_back(), batch.lost()) == ([2], [])


@pytest.mark.parametrize("begun", [True, False])
def test_a_connection_that_is_lost_says_whether_the_last_job_was_begun(ends, begun):
    connection, child = ends
    batch = Sent(connection, 3)

    def script():
        child.begin()
        child.answer()
        child.begin()
        child.lose(ConnectionLost("told to", begun=begun, blames=False))

    child.script.append(script)
    lost = run(connection, batch)
    assert lost is not None
    assert (lost.begun, lost.blames) == (begun, False)
    assert batch.answered == [0]
    assert (batch.given_back(), batch.lost()) == (([2], [1]) if begun else ([1, 2], []))


def test_a_child_that_has_ended_is_noticed_before_a_batch_is_taken(ends):
    connection, child = ends
    connection.check()
    child.die()
    with pytest.raises(ConnectionLost) as caught:
        connection.check()
    assert isinstance(caught.value.__cause__, ChildProcessEnded)


def test_a_thread_that_takes_jobs_back_as_the_child_dies_alone_owns_them(ends, monkeypatch):
    """The worker neither loses the job nor gives it back.

    The thread has drawn the token of the job, and has not removed the job from the connection yet.
    """
    connection, child = ends
    batch = Sent(connection, 3)
    child.script += [child.begin, child.die]
    real, thief = child.recall, []

    def recall(most):
        if not thief:  # another thread is in the middle as the worker begins
            thief.append(real(1))
            connection._recalls.append(None)
        return real(most)

    monkeypatch.setattr(child, "recall", recall)

    def goes_on(_):
        if connection._recalls:
            thief.append(connection._tasks.pop(thief[0][0])[1])
            connection._recalls.pop()

    monkeypatch.setattr("time.sleep", goes_on)
    assert run(connection, batch) is not None
    assert [task.position for task in thief[1:]] == [1]
    assert batch.given_back() == [2]
    assert batch.lost() == [0, 1], "the other thread owns the job that it takes back, and is about to remove it"


# --- any order ----------------------------------------------------------------------------

ACTS = ["begin", "answer", "fail", "flush", "steal 1", "steal all", "cancel", "nothing"]


@settings(max_examples=400, deadline=None)
@given(
    number=st.integers(1, 8),
    acts=st.lists(st.sampled_from(ACTS), max_size=30),
    reads_only=st.booleans(),
    dies=st.booleans(),
)
def test_each_job_has_one_end_in_any_order_of_events(number, acts, reads_only, dies):
    with pytest.MonkeyPatch.context() as monkeypatch:
        connection, child = connected(monkeypatch, reads_only=reads_only)
    batch = Sent(connection, number)
    script = Script(child, batch)
    child.script += [lambda act=act: script.do(act) for act in acts]
    child.script += [child.die] if dies else [script.finish]
    lost = run(connection, batch)
    if lost is not None and not dies:
        assert not script.runs, "only a silent child without a running job is killed"
        assert (batch.lost(), batch.given_back()) == ([], [])
    left = {"answered": batch.answered, "stolen": batch.stolen, "lost": batch.lost(), "back": batch.given_back()}
    everywhere = sorted(position for places in left.values() for position in places)
    assert everywhere == [*range(number)], left
    begun = [ticket - 1 for ticket in child.begun]
    assert len(set(begun)) == len(begun), "a job was begun twice"
    assert not set(begun) & set(batch.stolen), "a job was begun and taken back"
    if lost is None:
        assert batch.lost() == batch.given_back() == []
    elif reads_only:
        assert len(batch.lost()) <= 1
        assert not script.runs or batch.lost() == begun[-1:], "only the running job is lost"
    else:
        assert not set(batch.given_back()) & set(begun), "a job that may have written never begins again"


class Script:
    """Acts of a child and of other workers; an act that is impossible at the moment is skipped."""

    def __init__(self, child: ScriptedChild, batch: Sent) -> None:
        self.child, self.batch = child, batch
        self.runs = False

    def do(self, act: str) -> None:
        child = self.child
        match act:
            case "begin" if not self.runs:
                self.runs = child.begin() is not None
            case "answer" if self.runs:
                child.answer()
                self.runs = False
            case "fail" if self.runs:
                child.fail(ValueError("no"))
                self.runs = False
            case "flush" if child.kept:
                child.flush()
            case "steal 1":
                self.batch.steal(1)
            case "steal all":
                self.batch.steal()
            case "cancel" if self.batch.running:
                task = self.batch.running[0]
                before = len(child.interrupted)
                with suppress(IndexError):
                    self.batch.interrupt(task)
                assert child.interrupted[before:] == [task.position + 1]

    def finish(self) -> None:
        if self.runs:
            self.child.answer()
        self.child.run()
