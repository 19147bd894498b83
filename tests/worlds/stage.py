"""The stage: tasks of which one runs at a time, a clock, and a scheduler that follows a seed."""

import builtins
from collections.abc import Callable
from math import log
from random import Random
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from actors.system.waiting import this_thread

_MOST = 300_000  # steps of a world that comes to rest


class Task:
    """A task in the place of a thread, of this process or of a child."""

    def __init__(self, name: str, run: Callable[[], object], process: object = None) -> None:
        self.name = name
        self.kind = name.partition(" ")[0]
        self.process = process
        """The child that it belongs to, if it does."""
        self.ready: Callable[[], object] | None = None
        """The condition that it waits for; `None` if it can go on."""
        self.wake_at: float | None = None
        """When it goes on without that."""
        self.pending: BaseException | None = None
        """The exception that it raises as soon as it goes on."""
        self.entry: object = None
        """The request that this task submits at this moment."""
        self.undisturbed = 0
        """Others run here only if it waits: it runs a finalizer."""
        self.kills = 0
        """How often it was killed."""
        self.is_defenceless = False
        """To be killed once more is not promised to be survived."""
        self.error: BaseException | None = None
        self.over = False
        self.crew: object = None
        self.number = 0
        self.greenlet = greenlet(self._run)
        self._body = run

    def _run(self) -> None:
        try:
            self._body()
        except GreenletExit:
            pass
        except BaseException as error:
            self.error = error
        self.over = True


class Stage:
    """The stage of all tasks. One runs at a time.

    A task runs until it waits, or until a step at which the seed lets another task go on.
    """

    def __init__(self, random: Random, steps_between: float) -> None:
        self.random = random
        self.now = 1000.0
        self.tasks: list[Task] = []
        self.current: Task | None = None
        self.steps_between = steps_between
        """Steps until another task may go on, on average."""
        self.steps = 0
        """How many were taken, up to the last pause."""
        self.say: Callable[[str], object] | None = None
        self.on_pause: Callable[[], object] = lambda: None
        """Called in the middle of a step, in the task that takes it."""
        self.on_time: Callable[[float, float], object] = lambda before, now: None
        self.on_still: Callable[[], object] = lambda: None
        """Called when all tasks wait."""
        self.is_over = False
        self.is_stuck = False
        """Whether the tasks never come to rest."""
        self._looks = False
        # The one task that may go on, if only one may.
        self._alone: Task | None = None
        self._buried: list[Task] = []
        self._main = getcurrent()
        self._left = 0
        self._drawn = 0

    def begin(self) -> None:
        """Let the crew's code be taken step by step."""
        self._deal()
        builtins.__step__ = self._stepper()  # type: ignore[attr-defined]

    def _deal(self) -> None:
        self.steps += self._drawn - self._left
        self.is_stuck = self.is_stuck or self.steps > _MOST
        self._left = self._drawn = 1 + int(-log(1.0 - self.random.random()) * self.steps_between)

    def _stepper(self) -> Callable[[Any], Any]:
        """Return the function that the crew's code calls at each step."""

        def step(value: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                self._pause()
            return value

        return step

    def _pause(self) -> None:
        task = self.current
        self._deal()
        if task is None or self.is_over or self._looks or task.undisturbed:
            return
        self.on_pause()
        if len(self.tasks) > 1 or self.is_stuck:
            self.yield_now()

    # --- tasks ----------------------------------------------------------------------------

    def spawn(self, name: str, run: Callable[[], object], process: object = None) -> Task:
        """Let a task begin when its turn comes."""
        task = Task(name, run, process)
        self.tasks.append(task)
        return task

    def yield_now(self) -> None:
        """Let another task go on, or this one."""
        task = self.current
        if task is None or self.is_over:
            return
        task.ready = task.wake_at = None
        self._switch_to(self._choose())

    def wait(self, ready: Callable[[], object], seconds: float | None = None) -> bool:
        """Let others go on until `ready()` is true or the time is over; say whether it is true."""
        task = self.current
        if self.is_over:
            raise GreenletExit
        if task is None:
            return bool(ready())
        if ready():
            return True
        if seconds is not None and seconds <= 0:
            return False
        task.ready = ready
        task.wake_at = None if seconds is None else self.now + seconds
        self._switch_to(self._choose())
        if task.pending is not None:
            error, task.pending = task.pending, None
            raise error
        return bool(ready())

    def throw(self, task: Task, error: BaseException) -> None:
        """Let a task that waits raise `error` instead of waiting on."""
        task.pending = error
        task.ready = task.wake_at = None

    def bury(self, tasks: list[Task]) -> None:
        """Let tasks never go on: their process is gone."""
        self._buried += tasks
        self.tasks = [task for task in self.tasks if task not in tasks]

    def leave(self) -> None:
        """Never go on: the process of this task is gone."""
        self._switch_to(self._choose())
        raise GreenletExit

    def run(self) -> None:
        """Let tasks go on until none of them can, and no time that passes would change that."""
        while (task := self._choose()) is not None:
            self._switch_to(task)
            self._reap()

    def run_one(self, task: Task) -> None:
        """Let this task alone go on until it waits."""
        self._alone = task
        try:
            while not task.over and not self.is_stuck and (task.ready is None or task.ready() or self._is_due(task)):
                self._switch_to(task)
        finally:
            self._alone = None
            self._reap()

    def _is_due(self, task: Task) -> bool:
        return task.wake_at is not None and task.wake_at <= self.now

    def _reap(self) -> None:
        self.tasks = [task for task in self.tasks if not task.over]

    def _choose(self) -> Task | None:
        """Choose whose turn it is; `None` if nobody can go on. Time passes if it has to."""
        while not self.is_stuck:
            now = self.now
            tasks = self.tasks if self._alone is None else [self._alone]
            ready = [
                task
                for task in tasks
                if not task.over
                and (task.ready is None or task.ready() or (task.wake_at is not None and task.wake_at <= now))
            ]
            if ready:
                return ready[int(self.random.random() * len(ready))] if len(ready) > 1 else ready[0]
            if self._alone is not None:
                return None
            self._look(self.on_still)
            times = [task.wake_at for task in self.tasks if task.wake_at is not None and not task.over]
            if not times:
                return None
            self.advance(min(times))
        return None

    def advance(self, now: float) -> None:
        """Let time pass."""
        if now > self.now:
            before, self.now = self.now, now
            self._look(lambda: self.on_time(before, now))

    def _look(self, check: Callable[[], object]) -> None:
        """Call a check of the crew between two steps."""
        self._looks = True
        try:
            check()
        finally:
            self._looks = False

    def _switch_to(self, task: Task | None) -> None:
        leaving = self.current
        if task is leaving:
            if task is not None:
                task.ready = task.wake_at = None
            return
        if leaving is not None:
            leaving.crew, leaving.number = this_thread.crew, this_thread.number
        self.current = task
        if task is None:
            this_thread.crew, this_thread.number = None, 0
            self._main.switch()
        else:
            task.ready = task.wake_at = None
            this_thread.crew, this_thread.number = task.crew, task.number
            if task.greenlet.parent is not self._main:
                task.greenlet.parent = self._main
            task.greenlet.switch()
        if getcurrent() is self._main:
            self.current = None  # a task has ended, or none can go on

    def clear(self) -> None:
        """End all tasks, wherever they are."""
        self.is_over = True
        for task in (*self.tasks, *self._buried):
            for _ in range(20):
                if task.greenlet.dead or not task.greenlet:
                    break
                try:
                    task.greenlet.throw(GreenletExit)
                except BaseException:
                    continue
        self.tasks.clear()
        this_thread.crew, this_thread.number = None, 0
