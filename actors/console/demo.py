"""The demo: a story in scenes, about a crew at work on real data.

load ─► crash (searches side by side) ─► deadline, cancel ─► overload ─► writes ─► actors
                                                                          the figures ◄─┘
"""

import logging
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Final

import apsw
import pykka

from actors.console import (
    scene_actors,
    scene_crash,
    scene_deadline,
    scene_loading,
    scene_overload,
    scene_writes,
)
from actors.console.demo_crew import DemoCrew, opened
from actors.console.figures import show_figures
from actors.console.killing import NoSuchWorker
from actors.console.pace import Pace
from actors.console.signals import Signals
from actors.console.stage import Stage
from actors.console.tables import HAS_RICH, in_words
from supervisor import QuerycrewError

__all__ = ["FAILURES", "demo"]

FAILURES: Final = (QuerycrewError, apsw.Error, pykka.Timeout, OSError, NoSuchWorker)
"""Errors, mostly of the temporary file, that the command shows without a traceback."""

_SCENES: Final[dict[str, tuple[ModuleType, float]]] = {
    "load": (scene_loading, 1.5),
    "crash": (scene_crash, 5.0),
    "deadline": (scene_deadline, 3.0),
    "overload": (scene_overload, 2.4),
    "writes": (scene_writes, 1.9),
    "actors": (scene_actors, 1.2),
}
"""The scenes in the order of the story, and the seconds that are planned for them."""

_MISSING: Final = "for the drawn demo: pip install 'querycrew[console]'"


def demo(seconds: float, scene: str | None = None, picture: str | None = None) -> int:
    """Run the demo on standard output, and return the exit code.

    The temporary file is removed and the crew is stopped, also after an error or a signal.

    Args:
        seconds: about how long it takes. No search is cut off: a slow machine searches less.
        scene: shows this scene alone, after the loading. `None` is the whole story.
        picture: a file for the picture of the demo, in SVG.

    Raises:
        OSError: a file cannot be written, or standard output is closed.
    """
    pace = Pace(seconds, time.monotonic())
    # The demo shows the crew's warnings in its own words.
    logging.basicConfig(handlers=[logging.NullHandler()])
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        stage = _stage()
        names = ["load", scene] if scene else list(_SCENES)
        planned = round(pace.scale * sum(_SCENES[name][1] for name in names))
        stage.say(f"This takes about {in_words(max(1, planned), 'second')}. Ctrl-C ends it.", "dim")
        recorder = None
        if picture is not None:
            from actors.console.recorder import Recorder

            stage = recorder = Recorder(stage, picture, " ".join(["querycrew demo", *([scene] if scene else [])]))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="querycrew-", ignore_cleanup_errors=True))
        crew = stack.enter_context(opened(Path(folder), stage, pace))
        # These two run first: from here on, a signal adds nothing.
        stack.callback(stage.close)
        stack.callback(signals.ignore)
        _play(crew, names)
        code = show_figures(crew)
        if recorder is not None:
            recorder.save()
        return code


def _play(crew: DemoCrew, names: list[str]) -> None:
    for name in names:
        scene, planned = _SCENES[name]
        crew.pace.plan(planned)
        scene.play(crew)


def _stage() -> Stage:
    """Return a stage that draws, if standard output is a terminal and rich is there."""
    if not HAS_RICH:
        stage = Stage(sys.stdout)
        if sys.stdout.isatty():
            stage.say(_MISSING)
        return stage
    from actors.console.screen import Screen, can_draw_on

    return Screen(sys.stdout) if can_draw_on(sys.stdout) else Stage(sys.stdout)
