"""The first scene: the named characters of Unicode are loaded, with a progress bar.

The loading also measures the machine. It ends early if the searches would take too long.
"""

import json
import time
from typing import Final

from actors.console import characters
from actors.console.demo_crew import DemoCrew
from actors.console.searches import MAKE_SLICES
from actors.console.stage import Row
from supervisor import Query, Reply, Result, Script

__all__ = ["play"]

_BATCH: Final = 2000  # characters that are loaded with one statement
_LINE_EACH: Final = 15  # batches; without a terminal, a line reports the loading after so many
_FULL: Final = 180_000  # a machine that loads so many characters in a second searches all in time
_MEASURED: Final = 0.25  # seconds of the usual demo after which the speed is known

_CODE: Final = 'db.ask(Query("INSERT INTO characters SELECT … FROM json_each(?)", (rows,)))'


def play(crew: DemoCrew) -> None:
    """Load as many characters as this machine can search in time."""
    stage, db = crew.stage, crew.db
    stage.scene("Load a SQLite file", _CODE)
    codes = characters.named_codes()
    db.ask(Query(characters.CREATE))
    began, loaded, wanted = time.monotonic(), 0, len(codes)
    batch: Reply[Result] | None = None
    for start in range(0, len(codes), _BATCH):
        rows = json.dumps([characters.row(code) for code in codes[start : start + _BATCH]])
        # The writer writes one batch while this thread makes the next one ready.
        loaded += _written(batch)
        batch = None
        if loaded and loaded >= (wanted := _affordable(crew, loaded, time.monotonic() - began, len(codes))):
            break
        text = f"{loaded:,} of {wanted:,} characters"
        stage.draw([Row("characters", text, loaded / wanted)])
        if loaded and loaded % (_BATCH * _LINE_EACH) == 0:
            stage.note(text)
        batch = db.ask(Query(characters.INSERT, (rows,)), block=False)
    loaded += _written(batch)
    db.ask(Script(MAKE_SLICES))
    took = time.monotonic() - began
    stage.keep([Row("characters", f"{loaded:,} in {took:.2f} s", 1.0, "good")])
    text = f"loaded {loaded:,} of the {len(codes):,} named characters of Unicode {characters.VERSION}"
    stage.note(f"{text} in {took:.2f} s")
    if loaded < len(codes):
        text = f"Of {len(codes):,} characters, {loaded:,} are enough: this machine searches them in time."
        stage.say(text, "dim")
    crew.count(loaded, f"characters loaded in {took:.2f} s", 'db.ask(Query("INSERT …", (rows,)))')
    crew.rest(0.5)


def _affordable(crew: DemoCrew, loaded: int, seconds: float, most: int) -> int:
    """Return how many characters the machine can search in time, as its loading shows.

    A busy machine slows the searches down more than the loading, since the loading often waits and
    the searches always compute. If the loading takes twice as long, the searches take about four
    times as long.
    """
    if seconds < crew.pace.seconds(_MEASURED):
        return most
    speed = loaded / seconds / _FULL
    return min(most, max(_BATCH, int(most * crew.pace.scale * speed * min(speed, 1.0))))


def _written(batch: Reply[Result] | None) -> int:
    """Wait for a statement, and return how many rows it wrote."""
    return 0 if batch is None else batch.get().rowcount
