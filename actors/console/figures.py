"""The end of the demo: its figures, each beside the line of code that did it."""

from typing import Final

from actors.console.demo_crew import DemoCrew
from supervisor import Durations

__all__ = ["show_figures"]

_ENDINGS: Final = ("answered", "failed", "died", "rejected", "cancelled", "timed_out", "shed")
_LIVES: Final = ("restarts", "failed_starts", "stuck")


def show_figures(crew: DemoCrew) -> int:
    """Show the figures of all scenes and of the crews, and return the exit code of the demo."""
    stage, status = crew.stage, crew.status()
    stage.scene("The figures, and the code that made them")
    stage.numbers(crew.numbers)
    crews = [*crew.statuses, status]
    total = {name: sum(getattr(each, name) for each in crews) for name in (*_ENDINGS, *_LIVES, "submitted")}
    unanswered = total["submitted"] - sum(total[name] for name in _ENDINGS)
    stage.scene("The state of the crews", "db.ask(Status())")
    stage.say(_listed(total, _ENDINGS))
    stage.say(_listed(total, _LIVES))
    stage.say(f"waits of crew {status.name!r}: {_times(status.wait)}")
    stage.say(f"runs of crew {status.name!r}: {_times(status.run)}")
    done = f"{total['submitted']:,} requests, {unanswered:,} unanswered, in {crew.pace.passed:.1f} s"
    is_bad = bool(crew.failed or unanswered or total["failed"])
    stage.say(done, "bad" if is_bad else "good")
    return int(is_bad)


def _listed(total: dict[str, int], names: tuple[str, ...]) -> str:
    return ", ".join(f"{total[name]:,} {name.replace('_', ' ')}" for name in names)


def _times(times: Durations) -> str:
    parts = ((name, getattr(times, name)) for name in ("p50", "p95", "p99", "max"))
    return ", ".join(f"{name} {_readable(seconds)}" for name, seconds in parts)


def _readable(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
