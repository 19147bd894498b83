"""The child's end of a connection: which jobs the child begins, and when their answers leave it.

The tests run without a process. The pipes are real; a test writes and reads at their other ends.
"""

import marshal
import os
import threading
from itertools import count
from types import SimpleNamespace

import pytest

from actors.databases.base import Connection, NeedsWriter
from actors.databases.child import host as child_host
from actors.databases.child.claims import tokens_of
from actors.databases.child.frames import (
    ANSWERS,
    DONE,
    ERROR,
    FLUSH,
    HEAD,
    JOBS,
    LOST,
    PICKLED,
    RESULT,
    ROWS,
    RUNNING_JOB,
    STEP,
)
from actors.databases.child.host import Host
from actors.databases.child.requests import Requests
from actors.databases.child.requests_codec import item_of, jobs_frame
from actors.databases.child.results_codec import Packed, load_error
from actors.databases.sqlite.database import SQLite
from actors.databases.steps import Begin
from actors.values.errors import ConnectionLost, ResultLost
from supervisor import Query, Result
from tests.support.groups import SETUP, insert

ONE = Result(("x",), [(1,)], 1)


class Ended(BaseException):
    """Stands for the end of the child process."""


class Scripted(Connection):
    """A connection that a test scripts: each text has its own result, error or function."""

    plain_values = True

    def __init__(self, *, reads_only=True):
        self.reads_only = reads_only
        self.ran = []
        self.cancelled = []
        self.does = {}

    def execute(self, request):
        text = getattr(request, "sql", type(request).__name__)
        self.ran.append(text)
        done = self.does.get(text, ONE)
        if isinstance(done, BaseException):
            raise done
        return done() if callable(done) else done

    def cancel(self, task):
        self.cancelled.append(task.ticket)


class Ends:
    """A host, and the parent's ends of its pipes."""

    def __init__(self, connection):
        self.pipes = [os.pipe() for _ in range(3)]
        (jobs, self.jobs), (self.answers, answers), (tokens, self.tokens) = self.pipes
        for end in (jobs, self.answers, tokens):
            os.set_blocking(end, False)
        self.requests = Requests(jobs)
        self.host = host = Host(self.requests, answers, tokens, -1)
        host._connection, host._plain, host.tells_first = connection, True, not connection.reads_only
        self.connection = connection

    def serve(self, first, *texts, tokens=None, kind=JOBS):
        """Send jobs to the child, which may run the jobs whose numbers are in `tokens`."""
        count = len(texts)
        for number in range(count) if tokens is None else tokens:
            os.write(self.tokens, tokens_of(first + number, 1))
        items = [item_of(Query(text) if isinstance(text, str) else text)[0] for text in texts]
        self.host._serve_batch(first, count, kind, marshal.dumps(items))
        return self.said()

    def said(self):
        """Return the frames that the child has written, as pairs of kind and ticket or tickets."""
        try:
            written = os.read(self.answers, 1 << 20)
        except BlockingIOError:
            return []
        found, at = [], 0
        while at < len(written):
            _, length, ticket, kind, _ = HEAD.unpack_from(written, at)
            body = written[at + HEAD.size : at + HEAD.size + length]
            tickets = [each for each, _, _ in marshal.loads(body)] if kind in (ANSWERS, DONE) else ticket
            found.append((kind, tickets))
            if kind in (ERROR, LOST):
                self.error = load_error(body[kind == LOST :], BaseException)
            at += HEAD.size + length
        return found

    def close(self):
        for end in (end for pipe in self.pipes for end in pipe):
            os.close(end)


@pytest.fixture
def make(monkeypatch):
    made = []

    def ended(code):
        raise Ended

    def make_one(connection):
        made.append(Ends(connection))
        return made[-1]

    monkeypatch.setattr(child_host, "end", ended)
    # No time passes, unless the test says so: on a busy machine a job may take longer than the
    # child keeps its answers.
    monkeypatch.setattr(child_host, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    yield make_one
    for ends in made:
        ends.close()


@pytest.fixture
def reader(make):
    return make(Scripted())


@pytest.fixture
def writer(make):
    return make(Scripted(reads_only=False))


# --- when answers leave -------------------------------------------------------------------


def test_small_answers_of_reads_leave_together(reader):
    assert reader.serve(1, "a", "b", "c") == [(DONE, [1, 2, 3])]
    assert reader.connection.ran == ["a", "b", "c"]


def test_answers_of_a_connection_that_can_write_leave_before_the_next_job_begins(writer):
    """A death then costs the running job, and no answer."""
    seen = []
    writer.connection.does = {"b": lambda: (seen.append(writer.said()), ONE)[1], "c": ValueError("no")}
    writer.connection.does["d"] = lambda: (seen.append(writer.said()), ONE)[1]
    assert writer.serve(1, "a", "b", "c", "d") == [(DONE, [4])]
    assert seen == [[(ANSWERS, [1])], [(ANSWERS, [2]), (ERROR, 3)]]


def test_answers_of_a_commit_leave_before_the_next_transaction_begins(make, path, monkeypatch):
    """Also if the jobs begin a second time, because one of them broke a deferred constraint."""
    setup = f"{SETUP}; CREATE TABLE child(parent REFERENCES kept DEFERRABLE INITIALLY DEFERRED)"
    connection = SQLite(path).lanes()[1].connect()
    for sql in setup.split(";"):
        connection.execute(Query(sql))
    ends = make(connection)
    connection.seal_with(lambda value, of: Packed(value, of, plain=True))
    seen = []
    begin = connection._begin_for
    monkeypatch.setattr(connection, "_begin_for", lambda *args: (seen.append(ends.said()), begin(*args))[1])
    run_one = connection.run_one
    monkeypatch.setattr(connection, "run_one", lambda *args: (seen.append(ends.said()), run_one(*args))[1])
    bad = Query("INSERT INTO child VALUES (77)")
    last = ends.serve(1, insert(1), insert(2), bad, insert(3))
    connection.close()
    answered = [ticket for said in seen for kind, tickets in said if kind == ANSWERS for ticket in tickets]
    assert answered == [1, 2], "the first two were committed before the third ran alone"
    assert (DONE, [4]) in last


def test_answers_that_took_long_do_not_wait_for_others(reader, monkeypatch):
    """A large value takes long to send, so the child does not hold it back either."""
    monkeypatch.setattr(child_host.time, "perf_counter", count(0.0, 0.0004).__next__)
    assert reader.serve(1, *"abcdefg") == [(ANSWERS, [1, 2, 3]), (ANSWERS, [4, 5, 6]), (DONE, [7])]


def test_a_large_result_leaves_at_once_and_behind_the_answers_before_it(reader):
    reader.connection.does["b"] = Result(("x",), [(number,) for number in range(300)], 300)
    assert reader.serve(1, "a", "b", "c") == [(ANSWERS, [1]), (RESULT, 2), (DONE, [3])]
    reader.connection.does["b"] = Result(("x",), [(str(number) * 200,) for number in range(10_000, 15_000)], 5000)
    reading = reader.answers
    os.set_blocking(reading, True)
    said = []

    def read():
        data = b""
        while not said or said[-1][0] != DONE:
            data += os.read(reading, 1 << 20)
            while len(data) >= HEAD.size and len(data) >= HEAD.size + HEAD.unpack_from(data)[1]:
                _, length, ticket, kind, _ = HEAD.unpack_from(data)
                said.append((kind, ticket))
                data = data[HEAD.size + length :]

    thread = threading.Thread(target=read)
    thread.start()
    os.set_blocking(reading, True)
    items = [item_of(Query(text))[0] for text in "abc"]
    os.write(reader.tokens, tokens_of(4, 3))
    reader.host._serve_batch(4, 3, JOBS, marshal.dumps(items))
    thread.join()
    assert said == [(ANSWERS, 0), (ROWS, 5), (RESULT, 5), (DONE, 0)]


def test_answers_that_are_kept_leave_when_they_are_asked_for(reader):
    reader.connection.does["b"] = lambda: (reader.host._flush_now(), seen.append(reader.said()), ONE)[-1]
    seen = []
    assert reader.serve(1, "a", "b", "c") == [(DONE, [2, 3])]
    assert seen == [[(ANSWERS, [1])]]


def test_the_child_reports_a_job_that_needs_the_writer(reader):
    reader.connection.does["b"] = NeedsWriter()
    assert reader.serve(1, "a", "b") == [(DONE, [1, 2])]


# --- which jobs are begun -----------------------------------------------------------------


def test_a_job_whose_token_was_drawn_by_another_is_not_begun(reader):
    assert reader.serve(1, "a", "b", "c", "d", tokens=[1, 3]) == [(DONE, [2, 4])]
    assert reader.connection.ran == ["b", "d"]
    assert reader.serve(5, "e", "f", tokens=[]) == [(DONE, [])]


def test_a_token_of_the_next_frame_is_kept_for_it(reader):
    os.write(reader.tokens, tokens_of(1, 2))
    os.write(reader.tokens, tokens_of(3, 2))
    assert reader.serve(1, "a", "b", tokens=[]) == [(DONE, [1, 2])]
    assert reader.serve(3, "c", "d", tokens=[]) == [(DONE, [3, 4])]
    assert reader.connection.ran == ["a", "b", "c", "d"]


def test_tokens_are_right_after_tickets_have_outgrown_them(reader):
    first = (1 << 32) - 2
    assert reader.serve(first, "a", "b", "c", "d", tokens=[0, 2, 3]) == [(DONE, [first, first + 2, first + 3])]
    assert reader.connection.ran == ["a", "c", "d"]


def test_a_step_needs_no_token(reader):
    reader.connection.does["Begin"] = Result()
    assert reader.serve(1, Begin(readonly=True), tokens=[], kind=STEP) == [(DONE, [1])]
    assert reader.serve(2, "a") == [(DONE, [2])]
    assert reader.connection.ran == ["Begin", "a"]


def test_only_jobs_that_need_too_much_memory_get_an_error(reader):
    os.write(reader.tokens, tokens_of(1, 2))
    reader.host._serve_batch(1, 2, JOBS, None)
    assert reader.said() == [(ERROR, 1), (ERROR, 2), (DONE, [])]
    assert isinstance(reader.error, MemoryError)
    assert "memory_limit" in str(reader.error)
    reader.host._serve_batch(3, 1, STEP, None)
    assert reader.said() == [(ERROR, 3), (DONE, [])]
    assert reader.serve(4, "a") == [(DONE, [4])]


def test_a_frame_that_finds_no_memory_is_read_to_its_end(reader, monkeypatch):
    from actors.databases.child import requests as child_requests

    class Scarce(bytearray):
        def __new__(cls, size=0):
            if isinstance(size, int) and size > 70_000:
                raise MemoryError
            return bytearray(size)

    monkeypatch.setattr(child_requests, "bytearray", Scarce, raising=False)
    sent = jobs_frame(1, [item_of(Query("a", ("x" * 60_000, "y" * 60_000)))[0]]) + jobs_frame(2, [("b", (), None)])
    at = 0
    while at < len(sent):
        at += os.write(reader.jobs, sent[at : at + 60_000])
        if at == len(sent):
            break
        if at < 180_000:
            reader.requests._parse()
            if len(reader.requests._buffer) < HEAD.size:
                reader.requests._buffer += os.read(reader.requests._descriptor, 1 << 16)
        if at >= 60_000:
            break
    rest = threading.Thread(target=lambda: os.write(reader.jobs, sent[at:]))
    rest.start()
    assert reader.requests.next() == (1, 1, JOBS, None)
    rest.join()
    ticket, count, kind, body = reader.requests.next()
    assert (ticket, count, kind) == (2, 1, JOBS)
    assert marshal.loads(body) == [("b", (), None)]


# --- interrupts ---------------------------------------------------------------------------


def test_an_interrupt_hits_its_job_and_no_other(reader):
    host = reader.host
    reader.connection.does["b"] = lambda: (*(host._interrupt(ticket) for ticket in (1, 2, 4)), ONE)[-1]
    reader.connection.does["c"] = lambda: (host._interrupt(RUNNING_JOB), ONE)[-1]
    assert reader.serve(1, "a", "b", "c", "d", "e") == [(ERROR, 4), (DONE, [1, 2, 3, 5])]
    assert reader.connection.cancelled == [2, 3]
    assert reader.connection.ran == ["a", "b", "c", "e"], "a job that is interrupted before it begins does not run"
    assert isinstance(reader.error, InterruptedError)
    assert not host.unwanted, "the host keeps no interrupt of a finished job"


def test_an_interrupt_of_a_job_of_the_next_frame_waits_for_it(reader):
    reader.connection.does["a"] = lambda: (reader.host._interrupt(2), ONE)[-1]
    assert reader.serve(1, "a") == [(DONE, [1])]
    assert reader.serve(2, "b", "c") == [(ERROR, 2), (DONE, [3])]
    assert reader.connection.cancelled == []


def test_a_request_to_send_answers_is_no_interrupt(reader, monkeypatch):
    sent = [FLUSH, 0]
    monkeypatch.setattr(child_host.os, "read", lambda *_: sent.pop(0).to_bytes(8, "little") if sent else b"")
    with pytest.raises(Ended):
        reader.host._listen()
    assert reader.connection.cancelled == []
    assert reader.host.unwanted == set()


# --- the end ------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [True, False])
def test_the_child_reports_a_lost_connection_after_the_earlier_answers(reader, begun):
    lost = ConnectionLost("told to", begun=begun, blames=False)
    lost.__cause__ = OSError("broken")
    reader.connection.does["b"] = lost
    with pytest.raises(Ended):
        reader.serve(1, "a", "b", "c")
    assert reader.said() == [(ANSWERS, [1]), (LOST, 0)]
    assert isinstance(reader.error, OSError)


# --- answers that cannot be sent ----------------------------------------------------------


def packed_and_unsendable():
    packed = Packed(1, "the request", plain=True)
    packed.parts = [(PICKLED, Endless())]
    return packed


class Endless(bytes):
    """A value that needs more memory than there is."""

    def __len__(self):
        raise MemoryError


@pytest.mark.parametrize(
    ("value", "is_done"), [(packed_and_unsendable, True), (lambda: Result(("a",), [(object(),)], 1), False)]
)
def test_the_error_of_an_answer_that_cannot_be_sent_says_whether_its_job_was_done(writer, value, is_done):
    writer.host._seals = True
    writer.connection.does["b"] = value
    said = writer.serve(1, "a", "b", "c")
    assert [each for each in said if each != (ANSWERS, [])] == [(ANSWERS, [1]), (ERROR, 2), (DONE, [3])]
    assert getattr(writer.error, "executed", False) is is_done, writer.error
    assert isinstance(writer.error, ResultLost) == is_done


def test_an_answer_that_falsely_claims_to_be_plain_costs_no_other_job(reader):
    """Its outcome is unknown, unless the connection rolls back an answer that cannot be sent."""
    reader.connection.does["b"] = Result(("x",), [(object(),)], 1)
    assert reader.serve(1, "a", "b", "c") == [(ANSWERS, [1]), (ERROR, 2), (ANSWERS, [3]), (DONE, [])]
    assert isinstance(reader.error, ResultLost)


def test_answers_that_together_need_too_much_memory_are_sent_one_by_one(reader, monkeypatch):
    reader.host._seals = True  # like SQLite: a job whose result was not packed has changed nothing
    real = marshal.dumps

    def dumps(value):
        if isinstance(value, list) and (len(value) > 1 or (value and value[0][0] == 2)):
            raise MemoryError
        return real(value)

    class Scarce:
        loads = staticmethod(marshal.loads)

    Scarce.dumps = staticmethod(dumps)
    items = real([item_of(Query(text))[0] for text in "abc"])
    os.write(reader.tokens, tokens_of(1, 3))
    monkeypatch.setattr(child_host, "marshal", Scarce)
    reader.host._serve_batch(1, 3, JOBS, items)
    assert reader.said() == [(ANSWERS, [1]), (ERROR, 2), (ANSWERS, [3]), (DONE, [])]
    assert isinstance(reader.error, MemoryError)
