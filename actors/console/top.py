"""`querycrew top`: the live view of a crew of another program."""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from actors.console.failure import fail
from actors.console.visible import visible
from supervisor import OfferedCrew, offered_crews

__all__ = ["top"]

_HOW: Final = "a program offers its crew with Supervisor.start(…, monitor=True)"


def top(arguments: Sequence[str]) -> int:
    """Show the crew that the arguments name, or list the crews; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        crews = offered_crews(options.database)
    except (RuntimeError, TimeoutError) as error:
        return fail(str(error))
    if options.pid is not None:
        crews = [crew for crew in crews if crew.pid == options.pid]
    if not crews:
        what = "a crew" if options.database is None else f"a crew for {visible(options.database)}"
        process = "" if options.pid is None else f" as process {options.pid}"
        return fail(f"no program of yours offers {what}{process}: {_HOW}")
    if options.database is None and options.pid is None:
        _list(crews)
        return 0
    if len(crews) > 1:
        _list(crews)
        return fail(f"{len(crews)} crews fit: choose one with --pid, or by its name instead of the path")
    from actors.console.watching import OtherCrew, show_once, watch_source

    source = OtherCrew(crews[0])
    try:
        if options.once:
            show_once(source, sys.stdout)
        else:
            watch_source(source, sys.stdout, options.refresh)
    except TimeoutError as error:
        return fail(f"process {crews[0].pid}: {error}")
    return 0


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.05 <= value <= 3600:
        message = f"must be 0.05 to 3600 seconds, not {text!r}"
        raise argparse.ArgumentTypeError(message)
    return value


def _list(crews: list[OfferedCrew]) -> None:
    width = max(len(visible(crew.name)) for crew in crews)
    print(f"{'PID':>7}  {'NAME':<{width}}  DATABASE")
    for crew in crews:
        print(f"{crew.pid:>7}  {visible(crew.name):<{width}}  {visible(crew.database)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="querycrew top",
        allow_abbrev=False,
        description="Show the crew of another program, live: its workers, its queue, its times.",
        epilog=f"It shows crews of your own programs that offer themselves: {_HOW}.",
    )
    parser.add_argument(
        "database", nargs="?", metavar="DATABASE", help="the file, or the name of the crew (default: list all crews)"
    )
    parser.add_argument("--pid", type=int, metavar="N", help="the process, if several offer the database")
    parser.add_argument(
        "--refresh", type=_seconds, default=1.0, metavar="SECONDS", help="time between two looks (default: 1)"
    )
    parser.add_argument("--once", action="store_true", help="write the state once, as plain lines")
    return parser
