"""The scene `overload`: a program asks more than its crew can do, and the crew refuses the rest."""

import time
from typing import Final

from actors.console.demo_crew import DemoCrew
from actors.console.stage import Look, Row
from actors.console.visible import visible
from supervisor import CrewStatus, Overloaded, Query, Reply, Result, Status, Supervisor, SupervisorRef

__all__ = ["play"]

_WORKERS: Final = 2
_SHED_AFTER: Final = 0.1  # seconds
_LASTS: Final = 1.6  # seconds of the usual demo
_LONGEST: Final = 6.0  # seconds; an overload shows long before
_TOO_MUCH: Final = 3  # times as many queries as the crew can answer, as it seems at first
_MOST: Final = 1000  # queries in a group
_ROUND: Final = 0.05  # seconds from one group of queries to the next

_QUERY: Final = "SELECT count(*) FROM characters WHERE name LIKE '%' || ? || '%'"
_WORDS: Final = ("LETTER", "SIGN", "SMALL", "STAR", "CAT")
_CODE: Final = f'Supervisor.start("unicode.db", shed_after={_SHED_AFTER})'


def play(crew: DemoCrew) -> None:
    """Show an overload. The crew of this scene has threads, on the same file."""
    crew.stage.scene(f"Ask more than {_WORKERS} threads can do", _CODE)
    with Supervisor.start(crew.path, size=_WORKERS, shed_after=_SHED_AFTER, name="busy") as db:
        replies = _ask_too_much(crew, db)
        while not all(reply.done() for reply in replies):
            _draw(crew, db.ask(Status()))
            crew.tick()
        status = db.ask(Status())
    crew.statuses.append(status)
    crew.stage.keep(_rows(status, look="good"))
    errors = [error for reply in replies if isinstance(error := reply.exception(0), Overloaded)]
    if errors:
        crew.stage.say(f"Overloaded: {visible(str(errors[0]))}", "bad")
    crew.stage.note(f"{status.answered:,} of {status.submitted:,} queries are answered, {status.shed:,} are shed")
    crew.count(len(errors), f"of {status.submitted:,} shed in an overload", _CODE.replace('"unicode.db"', "…"))
    crew.rest(0.8)


def _ask_too_much(crew: DemoCrew, db: SupervisorRef) -> list[Reply[Result]]:
    """Ask more queries than the crew can answer, until it rejects some."""
    began = time.monotonic()
    for word in _WORDS:
        db.ask(Query(_QUERY, (word,)))
    one = (time.monotonic() - began) / len(_WORDS)
    each_round = min(max(1, round(_TOO_MUCH * _WORKERS * _ROUND / one)), _MOST)
    replies: list[Reply[Result]] = []
    began = time.monotonic()
    while True:
        replies += (db.ask(Query(_QUERY, (_WORDS[number % len(_WORDS)],)), block=False) for number in range(each_round))
        status = db.ask(Status())
        _draw(crew, status)
        passed = time.monotonic() - began
        if passed > _LONGEST or (passed > crew.pace.seconds(_LASTS) and status.shed):
            return replies
        if not status.shed and passed > crew.pace.seconds(_LASTS) / 2:
            # The machine was busier at first than it is now.
            each_round = min(2 * each_round, _MOST)
        crew.tick(_ROUND)


def _draw(crew: DemoCrew, status: CrewStatus) -> None:
    crew.stage.draw(_rows(status))


def _rows(status: CrewStatus, look: Look = "plain") -> list[Row]:
    asked = max(1, status.submitted)
    return [
        Row("answered", f"{status.answered:,} of {asked:,}", status.answered / asked, look),
        Row("rejected: Overloaded", f"{status.shed:,}", status.shed / asked, "bad"),
        *([Row("waiting", f"{status.queued:,}", status.queued / asked)] if look == "plain" else []),
    ]
