"""The scene `deadline`: a query without an end meets its deadline, and another one is cancelled."""

from typing import Final

from actors.console.demo_crew import ENDLESS, DemoCrew, worker_rows
from actors.console.pace import Stopwatch
from actors.console.stage import Row
from supervisor import Query, Reply, Result

__all__ = ["play"]

_DEADLINE: Final = 1.0  # seconds of the usual demo
_CANCELLED: Final = 0.8  # seconds of the usual demo until the cancel


def play(crew: DemoCrew) -> None:
    """Show a deadline and a cancel. The workers survive both."""
    crew.name(ENDLESS, "counts without an end")
    restarts = crew.status().restarts
    _deadline(crew)
    _cancel(crew)
    answer = crew.db.ask(Query("SELECT 'The crew answers the next query.'")).scalar()
    lost = crew.status().restarts - restarts
    crew.stage.say(f"{answer} " + (f"Lost workers: {lost}." if lost else "No worker was lost."))
    crew.rest(0.8)


def _deadline(crew: DemoCrew) -> None:
    seconds = round(crew.pace.seconds(_DEADLINE), 2)
    code = f'Query("SELECT …", timeout={seconds:g})'
    crew.stage.scene("A query without an end meets its deadline", f"db.ask({code})")
    reply = crew.db.ask(Query(ENDLESS, timeout=seconds), block=False)
    watch = Stopwatch(reply)
    while not reply.done():
        _draw(crew, "deadline", watch.seconds, seconds)
        crew.tick()
    crew.stage.keep([])
    crew.stage.say(_ending(reply, f"after {watch.seconds:.3f} s"), "good")
    crew.count(f"{watch.seconds:.3f} s", f"for a query that had {seconds:g} s", code)
    crew.rest(0.8)


def _cancel(crew: DemoCrew) -> None:
    crew.stage.scene("A program changes its mind", "reply.cancel()")
    seconds = crew.pace.seconds(_CANCELLED)
    reply = crew.db.ask(Query(ENDLESS), block=False)
    watch = Stopwatch(reply)
    while watch.seconds < seconds:
        _draw(crew, "cancel", watch.seconds, seconds)
        crew.tick()
    cancelling = Stopwatch(reply)
    reply.cancel()
    reply.exception()
    text = _ending(reply, f"{cancelling.seconds * 1000:.1f} ms after the cancel")
    crew.stage.keep([])
    crew.stage.say(text, "good")
    crew.count(f"{cancelling.seconds * 1000:.1f} ms", "from a cancel to its end", "reply.cancel()")


def _draw(crew: DemoCrew, label: str, seconds: float, until: float) -> None:
    row = Row(label, f"{min(seconds, until):.1f} of {until:.1f} s", seconds / until)
    crew.stage.draw([row, *worker_rows(crew, crew.status())])


def _ending(reply: Reply[Result], when: str) -> str:
    error = reply.exception(0)
    return f"{type(error).__name__} {when}, executed={getattr(error, 'executed', None)}"
