"""Strikes at every moment of a step: another act, or an exception that cuts the step off."""

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import count
from types import FrameType
from typing import Any, TypeVar

S = TypeVar("S")


class Moments:
    """Run acts at numbered moments of a step.

    CPython changes threads, and looks for signals and for asynchronous exceptions, at three places:
    as a function begins, after each call and as a loop repeats. These places are the moments. The
    beginning of each line is a moment too."""

    def __init__(self, acts: dict[int, Callable[[], object]], within: Collection[str] = ()) -> None:
        self.acts = acts
        self.within = within
        """The functions whose moments count. An empty set stands for all functions of the crew."""
        self.count = 0
        self.where = ""

    def run(self, step: Callable[[], object]) -> None:
        sys.setprofile(self._profile)
        sys.settrace(self._trace)
        try:
            step()
        finally:
            sys.settrace(None)
            sys.setprofile(None)

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if not self._counts(frame):
            return None
        if event == "line":
            self._moment(frame, event)
        return self._trace

    def _profile(self, frame: FrameType, event: str, arg: object) -> None:
        if event in ("call", "return", "c_return") and self._counts(frame):
            self._moment(frame, event)

    def _counts(self, frame: FrameType) -> bool:
        name, function = str(frame.f_globals.get("__name__")), frame.f_code.co_name
        if self.within:
            return function in self.within
        # A generator that is discarded swallows an exception that hits it.
        return name.startswith("actors.") and function not in ("<genexpr>", "__repr__")

    def _moment(self, frame: FrameType, event: str) -> None:
        self.count += 1
        act = self.acts.pop(self.count, None)
        if act is not None:
            self.where += f"{event} {frame.f_code.co_name}:{frame.f_lineno} "
            act()


def _interrupt() -> None:
    raise KeyboardInterrupt


def cut_off(prepare: Callable[[], tuple[S, Callable[[], object]]]) -> Iterator[tuple[S, str]]:
    """Cut a step off at each of its moments, with a state of its own for each.

    Yields:
        The state that `prepare` returned with the step, and the place of the cut.
    """
    for at in count(1):
        state, step = prepare()
        moments = Moments({at: _interrupt})
        with suppress(KeyboardInterrupt):
            moments.run(step)
        if not moments.where:
            assert at > 1, "the step had no moment"
            return
        yield state, moments.where


def in_the_middle(
    prepare: Callable[[], tuple[S, Callable[[], object], list[Callable[[], object]]]],
    within: Collection[str] = (),
) -> Iterator[tuple[S, str]]:
    """Run acts in their order at moments of a step; yield the state for each choice of moments."""
    state, step, acts = prepare()
    probe = Moments({}, within)
    probe.run(step)
    for places in _places(probe.count, len(acts)):
        state, step, acts = prepare()
        moments = Moments(dict(zip(places, acts, strict=True)), within)
        moments.run(step)
        yield state, moments.where


def _places(number: int, acts: int, first: int = 1) -> Iterator[list[int]]:
    if acts == 0:
        yield []
        return
    for place in range(first, number + 1):
        for rest in _places(number, acts - 1, place + 1):
            yield [place, *rest]
