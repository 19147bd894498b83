"""The relay of the gateway, with a scripted Ray: the jobs that are lost with an actor."""

import marshal
import os
import pickle
import threading
import time

import pytest

from actors.databases.child.claims import TOKEN, tokens_of
from actors.databases.child.frames import (
    DONE,
    FAILED,
    FLUSH,
    HEAD,
    JOBS,
    LOST,
    READY,
    RETURNED,
    SPECIFICATION,
    TICKET,
    frame,
)
from actors.databases.child.results_codec import load_error
from actors.databases.ray import relay
from actors.databases.ray.messages import Placement
from actors.databases.ray.relay import Relay
from actors.values.errors import ChildProcessEnded
from tests.conftest import eventually

NOTHING = b"\0"  # no answer, and the connection is good


class ActorDiedError(Exception):
    pass


class Remote:
    """A method of the scripted actor: a call is the pair of its name and its arguments."""

    def __init__(self, ray, name):
        self.ray, self.name = ray, name

    def options(self, **_):
        return self

    def remote(self, *args):
        self.ray.calls.append((self.name, args))
        return self.name, args


class ScriptedRay:
    """Plays the module `ray`. `answers` has, by the name of a method, how its calls end, in order.

    An answer of `None` does not come before `died` is set; then it is `ActorDiedError`.
    """

    def __init__(self, reads_only):
        self.calls = []
        self.killed = threading.Event()
        self.died = threading.Event()
        facts = (marshal.dumps(((), reads_only)), 4711, "host", "node")
        self.answers = {"open": [facts], "close": [None]}

    def remote(self, **_):
        return lambda _: self

    def options(self, **_):
        return self

    def __getattr__(self, name):
        return Remote(self, name)

    @property
    def actor(self):
        return self

    def wait(self, refs, timeout=None, **_):
        ready = [ref for ref in refs if self.answers[ref[0]][0] is not None]
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, ref):
        answer = self.answers[ref[0]][0]
        if answer is None:
            assert self.died.wait(10)
            raise ActorDiedError("killed")
        if isinstance(answer, Exception):
            raise answer
        return self.answers[ref[0]].pop(0)

    def kill(self, actor):
        self.killed.set()
        self.died.set()


class Actor(ScriptedRay):
    """Makes `hosted.options(…).remote()` return the scripted actor itself."""

    def options(self, **_):
        made = type("Made", (), {})()
        made.remote = lambda: self
        return made


class FakeGateway:
    def __init__(self, ray):
        self.ray = ray
        self.careful = {}
        self.ended = []
        self.has_ended = threading.Event()
        self.watchdog = type("Watchdog", (), {"add": lambda *_: None, "remove": lambda *_: None})()

    def alive(self):
        return [{"NodeID": "node"}]

    def trusted(self, nodes):
        return nodes

    def forget(self, number):
        pass

    def tell_end(self, number, error):
        self.ended.append(error)
        self.has_ended.set()

    def suspect(self, node):
        pass


class Link:
    """The program's end of the pipes."""

    def __init__(self, reads_only, opened=None):
        self.ray = Actor(reads_only)
        self.gateway = FakeGateway(self.ray)
        jobs, self.jobs = os.pipe()
        self.answers, answers = os.pipe()
        self.tokens_back, self.tokens = os.pipe()
        os.set_blocking(self.tokens_back, False)
        control, self.control = os.pipe()
        self.relay = Relay(self.gateway, 1, (jobs, answers, os.dup(self.tokens_back), control))
        placement = Placement(crew="crew", each_node=False, node=None, options={}, until=time.monotonic() + 60)
        os.write(self.jobs, frame(SPECIFICATION, 0, pickle.dumps((b"", [], placement))))
        if opened is not None:
            self.ray.answers["open"] = [opened]
        self.relay.start()
        if opened is None:
            assert self.frames(1)[0][0] == READY

    def send(self, ticket, count):
        items = [("SELECT 1", (), None)] * count
        os.write(self.tokens, tokens_of(ticket, count))
        os.write(self.jobs, frame(JOBS, ticket, marshal.dumps(items), count))

    def frames(self, count):
        """Read so many frames; return their kinds and bodies."""
        found = []
        with open(os.dup(self.answers), "rb", buffering=0) as answers:
            for _ in range(count):
                head = answers.read(HEAD.size)
                _, length, _, kind, _ = HEAD.unpack(head)
                found.append((kind, answers.read(length) if length else b""))
        return found

    def close(self):
        self.ray.died.set()
        for end in (self.jobs, self.tokens, self.control):
            os.close(end)
        assert self.gateway.has_ended.wait(10)
        os.close(self.answers)
        os.close(self.tokens_back)


@pytest.fixture(params=[True, False], ids=["reader", "writer"])
def link(request):
    link = Link(request.param)
    link.reads_only = request.param
    yield link
    link.close()


def lost(body):
    """Return whether a job was begun, and whether the statement is blamed."""
    return bool(body[0] & 1), bool(body[0] & 2)


def test_the_jobs_of_a_frame_travel_in_calls_of_32(link):
    link.ray.answers["run"] = [NOTHING] * 3
    link.send(1, 70)
    assert [kind for kind, _ in link.frames(1)] == [DONE]
    numbers = [marshal.loads(args[0])[2] for name, args in link.ray.calls if name == "run"]
    assert numbers == [list(range(32)), list(range(32, 64)), list(range(64, 70))]


def test_a_job_that_was_recalled_is_not_sent(link):
    link.ray.answers["run"] = [NOTHING]
    os.write(link.tokens, tokens_of(1, 3))
    assert os.read(link.tokens_back, TOKEN.size) == TOKEN.pack(1)
    os.write(link.jobs, frame(JOBS, 1, marshal.dumps([("SELECT 1", (), None)] * 3), 3))
    link.frames(1)
    assert [marshal.loads(args[0])[2] for name, args in link.ray.calls if name == "run"] == [[1, 2]]


def test_a_call_that_takes_long_gives_back_the_jobs_that_have_not_begun(link):
    link.ray.answers["run"] = [None]
    link.ray.answers["look"] = [frame(RETURNED, 0, marshal.dumps([12, 13])) + NOTHING]
    link.send(10, 4)
    [(kind, body)] = link.frames(1)
    assert (kind, marshal.loads(body)) == (RETURNED, [12, 13])
    link.ray.died.set()
    [(kind, body)] = link.frames(1)
    assert (kind, *lost(body)) == (LOST, True, True)


def test_an_actor_that_dies_with_one_job_blames_it(link):
    link.ray.answers["run"] = [None]
    link.ray.died.set()
    link.send(10, 1)
    [(kind, body)] = link.frames(1)
    assert (kind, *lost(body)) == (LOST, True, True)


def test_an_actor_that_dies_with_several_jobs_blames_none_and_reads_run_again_alone(link):
    link.ray.answers.update(run=[None], look=[None])
    link.ray.died.set()
    link.send(10, 3)
    if link.reads_only:
        [(kind, body)] = link.frames(1)
        assert (kind, marshal.loads(body)) == (RETURNED, [10, 11, 12])
    [(kind, body)] = link.frames(1)
    assert (kind, *lost(body)) == (LOST, True, False)
    assert link.gateway.careful == ({"crew": 3} if link.reads_only else {})


def test_a_careful_crew_sends_its_jobs_one_by_one(link):
    link.gateway.careful["crew"] = 2
    link.ray.answers["run"] = [NOTHING] * 3
    link.send(1, 5)
    link.frames(1)
    assert [marshal.loads(args[0])[2] for name, args in link.ray.calls if name == "run"] == [[0], [1], [2, 3, 4]]


def test_a_loss_that_the_actor_tells_comes_last_and_its_other_jobs_go_back(link):
    told = frame(LOST, 0, bytes([3]) + b"why")
    link.ray.answers["run"] = [frame(RETURNED, 0, marshal.dumps([12])) + told + b"\1"]
    link.send(10, 3)
    assert [kind for kind, _ in link.frames(2)] == [RETURNED, LOST]
    assert link.gateway.has_ended.wait(10)


def test_an_idle_link_whose_actor_is_lost_tells_the_program_at_once(link):
    link.ray.answers["run"] = [NOTHING]
    link.send(1, 1)
    link.frames(1)

    def told():
        link.relay.lose(ChildProcessEnded("frozen"))
        return link.gateway.ended

    assert eventually(told)  # the link notes that it is idle just after its last frame
    assert str(link.gateway.ended[0]) == "frozen"


def test_a_busy_link_whose_actor_is_silent_tells_the_loss_itself(link):
    link.ray.answers["run"] = [None]
    link.send(1, 1)
    assert eventually(lambda: "run" in [name for name, _ in link.ray.calls])
    link.relay.lose(ChildProcessEnded("frozen"), is_silent=True)
    [(kind, body)] = link.frames(1)
    assert (kind, *lost(body)) == (LOST, True, True)
    assert link.gateway.has_ended.wait(10)
    assert link.ray.killed.is_set()


def test_the_program_hears_of_a_silent_actor_although_ray_waits_for_its_answer(link, monkeypatch):
    monkeypatch.setattr(relay, "_ENDING", 0.0, raising=False)
    monkeypatch.setattr(link.ray, "kill", lambda _: link.ray.killed.set())  # the call does not end
    link.ray.answers["run"] = [None]
    link.send(1, 1)
    while "run" not in [name for name, _ in link.ray.calls]:
        time.sleep(0)
    link.relay.lose(ChildProcessEnded("frozen"), is_silent=True)
    assert link.gateway.has_ended.wait(5)
    assert str(link.gateway.ended[0]) == "frozen"
    assert link.ray.killed.is_set()


def test_an_interrupt_names_its_job_and_is_not_repeated_before_it_has_arrived(link):
    link.ray.answers.update(run=[None], interrupt=[None])
    link.send(5, 1)
    for ticket in (5, FLUSH, 5, 5, 6):
        os.write(link.control, TICKET.pack(ticket))
    assert eventually(lambda: ("interrupt", (6,)) in link.ray.calls)
    assert [args for name, args in link.ray.calls if name == "interrupt"] == [(5,), (6,)]


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ("line one\nModuleNotFoundError: No module named 'actors'", "querycrew is not installed on its node"),
        ("the actor\ndied", "could not be started: the actor died"),
    ],
)
def test_an_actor_that_cannot_start_tells_the_reason(told, text):
    link = Link(True, opened=ActorDiedError(told))
    [(kind, body)] = link.frames(1)
    assert kind == FAILED
    error = load_error(body, Exception)
    assert isinstance(error, ConnectionError)
    assert text in str(error)
    link.close()
