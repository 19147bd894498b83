"""Relay: one link in the gateway, between the pipes of a worker and its Ray actor.

A call of the actor carries up to `_MOST` jobs of a frame. The relay draws their tokens first. If
the call takes longer than `_PATIENCE`, the relay takes back the jobs that the actor has not begun:
they return to the queue, where other workers find them.
"""

import marshal
import os
import pickle
import re
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from actors.databases.child.claims import Claims
from actors.databases.child.frames import (
    DONE,
    FAILED,
    FLUSH,
    HEAD,
    LARGE,
    READY,
    RETURNED,
    STEP,
    TICKET,
    frame,
    write,
)
from actors.databases.child.requests import Requests
from actors.databases.child.results_codec import error_frame, lost_frame
from actors.databases.ray.hosted import CONTROL, Answer, HostedConnection, versions
from actors.databases.ray.messages import Placement
from actors.databases.ray.watchdog import first_line
from actors.values.errors import ChildProcessEnded, ConnectionLost

if TYPE_CHECKING:
    from actors.databases.child.requests_codec import Item
    from actors.databases.ray.driver import Gateway

__all__ = ["Relay"]

_MOST: Final = 32  # jobs in one call
_PATIENCE: Final = 0.01  # seconds; jobs that share a call are quick
_LOOK: Final = 0.1  # seconds between two looks whether the actor was given up
# Options of an actor by which Ray chooses the node.
_CHOOSING: Final = frozenset({"label_selector", "num_gpus", "resources", "scheduling_strategy"})
_CLOSING: Final = 1.5  # seconds that an actor has to close its connection
_ENDING: Final = 1.0  # seconds that Ray has to end the call of a killed actor


class Relay:
    """One link. `lose` and `kill` may be called from any thread."""

    def __init__(self, gateway: "Gateway", number: int, pipes: Sequence[int]) -> None:
        """Make a link that is not served yet; `pipes` are jobs, answers, tokens and control."""
        self._gateway = gateway
        self._ray = gateway.ray
        self._number = number
        self._jobs, self._answers, self._tokens, self._control = pipes
        self._claims = Claims(self._tokens)
        self.actor: Any = None
        """The handle of the actor, once there is one."""
        self.node = ""
        """The number of the node on which the actor lives, as far as it is known."""
        self.crew = ""
        """See `Placement.crew`."""
        self._name = "a Ray actor"
        self._reads_only = False
        # Held to change the next two.
        self._lock = threading.Lock()
        self._is_busy = True
        # Why the actor is of no more use.
        self._lost: ChildProcessEnded | None = None
        # The ticket of the last interrupt that was sent, and its call.
        self._last_interrupt: tuple[int | None, Any] = (None, None)
        self._has_ended = threading.Event()

    def __str__(self) -> str:
        return self._name

    def start(self) -> None:
        """Serve the link in threads of its own."""
        for work in (self._main, self._listen):
            threading.Thread(target=work, name=f"querycrew-link-{self._number}", daemon=True).start()

    # --- from any thread ------------------------------------------------------------------

    def lose(self, error: ChildProcessEnded, *, is_silent: bool = False) -> None:
        """Take note that the actor is of no more use."""
        with self._lock:
            if self._lost is not None:
                return
            self._lost = error
            if is_silent:
                self._gateway.suspect(self.node)
            is_busy = self._is_busy
        if is_busy:
            # In a thread of its own, since Ray may be slow.
            threading.Thread(target=self._end, args=(error,), name="querycrew-kill", daemon=True).start()
        else:
            self._gateway.tell_end(self._number, error)

    def kill(self) -> None:
        """End the actor."""
        if self.actor is not None:
            with suppress(Exception):  # it is gone
                self._ray.kill(self.actor)

    def _end(self, error: ChildProcessEnded) -> None:
        """End the actor, and see to it that the program hears of the end.

        The call of the actor ends then. The thread of the link tells the program, with the truth
        about the jobs. But Ray may wait for an answer that lies on a node that is gone, until it
        declares the node dead: for a minute or longer.
        """
        self.kill()
        if not self._has_ended.wait(_ENDING):
            self._gateway.tell_end(self._number, error)

    # --- the thread for interrupts --------------------------------------------------------

    def _listen(self) -> None:
        """Interrupt the jobs that the program names, until it closes the pipe."""
        while len(data := os.read(self._control, TICKET.size)) == TICKET.size:
            with suppress(Exception):  # the actor is gone
                self._interrupt(*TICKET.unpack(data))
        os.close(self._control)

    def _interrupt(self, ticket: int) -> None:
        """Interrupt one job. The next interrupt of it is sent only after the last has arrived."""
        actor, (interrupted, last) = self.actor, self._last_interrupt
        if ticket == FLUSH or actor is None:  # answers that are there come by themselves
            return
        if interrupted != ticket or self._ray.wait([last], timeout=0)[0]:
            self._last_interrupt = ticket, actor.interrupt.options(concurrency_group=CONTROL).remote(ticket)

    # --- the thread of the link -----------------------------------------------------------

    def _main(self) -> None:
        ended: BaseException = ChildProcessEnded("its connection was closed")
        try:
            ended = self._serve() or ended
        except BrokenPipeError:
            pass  # the program has closed the pipes
        except BaseException as error:  # noqa: BLE001  # a fault of ours
            ended = error
        self._gateway.watchdog.remove(self)
        self.kill()
        self._gateway.forget(self._number)
        for end in (self._jobs, self._answers, self._tokens):
            os.close(end)
        self._has_ended.set()
        self._gateway.tell_end(self._number, ended)

    def _serve(self) -> BaseException | None:
        """Open the connection, and relay jobs. Return why that has ended, if not by the program."""
        wanted = pickle.loads(self._specification())  # from our own program
        if wanted is None:
            self._tell_nodes()
            return None
        packed, path, placement = wanted
        self.crew = placement.crew
        try:
            ready = self._open(packed, path, placement)
        except Exception as error:  # noqa: BLE001  # the program decides what it means
            write(self._answers, error_frame(FAILED, 0, error))
            return error
        if type(ready) is not tuple:
            write(self._answers, ready)
            return None
        body, pid, host, node = ready
        self.node = node
        self._name = f"Ray actor {pid} on {host}/{node[:8]}"
        warnings, self._reads_only = marshal.loads(body)
        self._gateway.watchdog.add(self)
        write(self._answers, frame(READY, 0, marshal.dumps((warnings, self._reads_only, pid, host, node))))
        os.set_blocking(self._jobs, False)
        requests = Requests(self._jobs)
        self._become(is_busy=False)
        while (sent := requests.next()) is not None:
            if not self._become(is_busy=True):
                return self._lost
            try:
                self._relay(*sent)
            except _Lost:
                return self._lost
            del sent
            if not self._become(is_busy=False):
                return self._lost
        self._close()
        return None

    def _tell_nodes(self) -> None:
        """Tell the program the nodes of the cluster, and wait until the program closes the link."""
        nodes = [
            tuple(node[name] for name in ("NodeID", "NodeManagerAddress", "NodeManagerHostname", "Resources", "Labels"))
            for node in self._gateway.alive()
        ]
        write(self._answers, frame(READY, 0, marshal.dumps(nodes)))
        os.read(self._jobs, 1)

    def _become(self, *, is_busy: bool) -> bool:
        """Note whether jobs are here. Say whether the actor is of use."""
        with self._lock:
            self._is_busy = is_busy or self._lost is not None
            return self._lost is None

    def _specification(self) -> bytes:
        _, length, _, _, _ = HEAD.unpack(self._exactly(HEAD.size))
        return self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = os.read(self._jobs, size - len(data))
            if not more:
                raise BrokenPipeError
            data += more
        return data

    def _open(self, packed: bytes, path: list[str], placement: Placement) -> Any:
        """Create the actor, let it open the connection, and return its facts or its `FAILED` frame.

        Raises:
            ConnectionError: the cluster has no room, or the actor ended.
            TimeoutError: the connection was not open in time.
        """
        ray, began = self._ray, time.monotonic()
        options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, **self._placed(placement)}
        hosted = ray.remote(concurrency_groups={CONTROL: 2})(HostedConnection)
        self.actor = hosted.options(**options).remote()
        opened = self.actor.open.remote(packed, path, versions())
        while not ray.wait([opened], timeout=_LOOK)[0]:
            if self._lost is not None:
                raise self._lost
            if time.monotonic() > placement.until:
                raise self._not_in_time(placement, time.monotonic() - began)
        try:
            return ray.get(opened)
        except Exception as error:  # noqa: BLE001  # of Ray
            reason = _whole(error)
            if missing := re.search(r"No module named '([\w.]+)'", str(error)):
                name = missing[1].partition(".")[0]
                name = "querycrew" if name in ("actors", "supervisor") else f"the module {name}"
                reason = f"{name} is not installed on its node"
            message = f"a Ray actor could not be started: {reason}"
            raise ConnectionError(message) from None

    def _not_in_time(self, placement: Placement, seconds: float) -> Exception:
        ray = self._ray
        wait = [self.actor.ping.options(concurrency_group=CONTROL).remote()]
        if ray.wait(wait, timeout=_LOOK)[0]:
            return TimeoutError(f"a Ray actor did not open its database within {seconds:.1f} seconds")
        wanted = {name: value for name, value in placement.options.items() if value} or {"num_cpus": 0}
        free = {name: value for name, value in ray.available_resources().items() if not name.startswith("node:")}
        return ConnectionError(
            f"the Ray cluster has no room for a worker: none was placed within {seconds:.1f} seconds. "
            f"A worker asks for {wanted}; {len(self._gateway.alive())} nodes have {free} free"
        )

    def _placed(self, placement: Placement) -> dict[str, Any]:
        """Return the options of the actor, with its node if one is wanted."""
        options = dict(placement.options)
        nodes = self._gateway.alive()
        if placement.node is not None:
            nodes = [node for node in nodes if _is_named(node, placement.node)]
            if not nodes:
                known = ", ".join(node["NodeName"] for node in self._gateway.alive())
                message = f"the Ray cluster has no node {placement.node!r}; its nodes are {known}"
                raise ConnectionError(message)
            if not any(self._gateway.reaches(node) for node in nodes):  # Ray notices that only after a while
                message = f"the node {placement.node!r} of the Ray cluster does not answer"
                raise ConnectionError(message)
        trusted = self._gateway.trusted(nodes)
        is_free = placement.node is None and not placement.each_node
        if is_free and (len(trusted) == len(nodes) or not _CHOOSING.isdisjoint(options)):
            return {"scheduling_strategy": "SPREAD", **options}
        self._gateway.settle(self, trusted)
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(self.node, soft=is_free), **options}

    # --- relaying -------------------------------------------------------------------------

    def _relay(self, ticket: int, count: int, kind: int, body: bytes | bytearray | None) -> None:
        """Relay the jobs of a frame, or a step, and their answers."""
        assert body is not None  # there was memory for it
        items: list[Item] = marshal.loads(body)
        data: bytes = b"\0"
        if kind == STEP:
            data = self._call(ticket, count, [0], items)
        else:
            while numbers := self._draw(ticket, count, items):
                write(self._answers, memoryview(data)[:-1])
                data = self._call(ticket, count, numbers, items)
        if len(data) > LARGE:
            write(self._answers, memoryview(data)[:-1])
            data = b"\0"
        write(self._answers, data[:-1] + frame(DONE, 0, _NOTHING))

    def _draw(self, ticket: int, count: int, items: "list[Item]") -> list[int]:
        """Draw the tokens of the jobs for the next call."""
        careful = self._gateway.careful.get(self.crew, 0)
        if careful:
            self._gateway.careful[self.crew] = careful - 1
        numbers: list[int] = []
        size = 0
        while len(numbers) < (1 if careful else _MOST) and size < LARGE:
            number = self._claims.draw(ticket, count)
            if number is None:
                break
            numbers.append(number)
            size += len(items[number])
        return numbers

    def _call(self, ticket: int, count: int, numbers: list[int], items: "list[Item]") -> bytes:
        """Let the actor run jobs; return the frames of their answers, and a byte.

        Raises:
            _Lost: the actor is of no more use. The program knows by then which jobs are lost.
        """
        ray, is_shared = self._ray, len(numbers) > 1
        try:
            chosen = {number: items[number] for number in numbers}
            call = self.actor.run.remote(marshal.dumps((ticket, count, numbers, chosen)))
            if is_shared and not ray.wait([call], timeout=_PATIENCE)[0]:
                seen = self._framed(ray.get(self.actor.look.options(concurrency_group=CONTROL).remote()))
                write(self._answers, memoryview(seen)[:-1])
                is_shared = False
            data = self._framed(ray.get(call))  # ends at once when `lose` kills the actor; a time limit costs 0.1 ms
        except Exception as error:  # noqa: BLE001  # of Ray
            with self._lock:
                reason = self._lost = self._lost or ChildProcessEnded(f"{self} ended: {first_line(error)}")
            self._tell_loss(reason, ticket, numbers, is_shared=is_shared)
            raise _Lost from None
        if data[-1]:  # the last frame says why
            write(self._answers, memoryview(data)[:-1])
            raise _Lost
        return data

    def _framed(self, answer: Answer) -> bytes:
        """Bring the program the large buffers of an answer; return the frames."""
        if isinstance(answer, bytes):
            return answer
        data, buffers = answer
        self._gateway.bring(self._number, buffers)
        return data

    def _tell_loss(self, error: ChildProcessEnded, ticket: int, numbers: list[int], *, is_shared: bool) -> None:
        """Tell the program which jobs are lost with the actor.

        One of the jobs of a shared call may have killed the actor. If they only read, they run
        again, each alone: so the guilty one is found.
        """
        told = b""
        if is_shared and self._reads_only:
            self._gateway.careful[self.crew] = len(numbers)
            told = frame(RETURNED, 0, marshal.dumps([ticket + number for number in numbers]))
        lost = ConnectionLost(blames=not is_shared)
        lost.__cause__ = error
        write(self._answers, told + lost_frame(lost))

    def _close(self) -> None:
        """Let the actor close its connection."""
        if self._lost is not None:
            return
        with suppress(Exception):  # it is gone, or does not answer
            self._ray.wait([self.actor.close.remote()], timeout=_CLOSING)


class _Lost(Exception):
    """The actor is of no more use, and the program knows it."""


_NOTHING: Final = marshal.dumps([])


_SHORTEST: Final = 6  # characters of the number of a node that are enough to name it


def _is_named(node: dict[str, Any], name: str) -> bool:
    """Say whether a text names a node of the cluster."""
    names = (node["NodeName"], node["NodeManagerAddress"], node["NodeManagerHostname"])
    number = name.rpartition("/")[2]  # as a `Status` shows it
    return name in names or (len(number) >= _SHORTEST and node["NodeID"].startswith(number))


def _whole(error: BaseException) -> str:
    """Return the text of an error of Ray, in one line and not longer than a screen."""
    return " ".join(str(error).split())[:1000]
