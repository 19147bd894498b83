"""The command line: its arguments, and how the process ends.

This module imports the few modules that `--help` needs. It imports the others when it uses them.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Never

from actors.console.failure import fail

__all__ = ["run"]

_INTERRUPTED = 128 + 2  # the exit code in a shell of a program that SIGINT has ended
_USAGE = (
    "querycrew [options] [DATABASE] [SQL]",
    "querycrew [options] DATABASE < FILE.sql",
    "querycrew top [DATABASE]",
    "querycrew demo",
    "querycrew tour",
)
_SCENES = ("crash", "deadline", "overload", "writes", "actors")  # of the demo, by their names in demo.py
_BROKEN_PIPE = 128 + 13  # the same for SIGPIPE


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        arguments: without the command's name; `None` for the arguments of the process.

    Raises:
        SystemExit: for `--help`, `--version`, wrong arguments, and SIGTERM or SIGHUP.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["top"]:
        return _guarded(lambda: _top(arguments[1:]))
    if arguments[:1] == ["tour"]:
        _tour_parser().parse_args(arguments[1:])
        return _guarded(_tour)
    is_demo = arguments[:1] == ["demo"]
    parser = _demo_parser() if is_demo else _parser()
    # Options may stand between DATABASE and SQL.
    options = parser.parse_intermixed_args(arguments[1:] if is_demo else arguments)
    return _guarded(lambda: _demo(options) if is_demo else _console(parser, options))


def _guarded(command: Callable[[], int]) -> int:
    """Run a command; return its exit code, also after Ctrl-C and a closed pipe."""
    try:
        problem = _wrong_supervisor()
        if problem:
            return fail(problem)
        return command()
    except KeyboardInterrupt:
        print("querycrew: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader is gone. Python flushes the stream at exit, and that must not fail as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE


def _tour() -> int:
    from actors.console.tour import tour

    return tour()


def _top(arguments: Sequence[str]) -> int:
    from actors.console.top import top

    return top(arguments)


def _demo(options: argparse.Namespace) -> int:
    from actors.console.demo import FAILURES, demo
    from actors.console.tables import HAS_RICH

    if options.record is not None and not HAS_RICH:
        return fail("--record draws with rich: pip install 'querycrew[console]'")
    try:
        return demo(options.seconds, options.scene, options.record)
    except BrokenPipeError:
        raise
    except FAILURES as error:
        return fail("; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]))


def _console(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> int:
    """Run the SQL of the arguments or of standard input; without SQL, open a prompt."""
    from actors.console.arguments import options_of

    options = options_of(parsed)
    if options.sql is None and sys.stdin is not None and sys.stdin.isatty():
        from actors.console.repl import repl

        return repl(options)
    text = options.sql
    try:
        if text is None:
            text = "" if sys.stdin is None else sys.stdin.read()
        text.encode()
    except UnicodeError:
        return fail("the SQL is not valid UTF-8")
    if not text.strip():
        if options.database is None:
            parser.print_help()
        return 0
    from actors.console.shell import run_sql
    from actors.console.signals import Signals

    with Signals():
        return run_sql(options, text)


def _parser() -> argparse.ArgumentParser:
    from actors.console.arguments import add_arguments

    parser = argparse.ArgumentParser(
        prog="querycrew",
        allow_abbrev=False,
        description="A supervised crew of database workers: queries never block a program, and never go unanswered.",
        epilog="`querycrew demo` shows a crew at work, `querycrew tour` lets you try it, and `querycrew top` shows the "
        "crew of another program. A file with such a name is written ./demo.",
        usage="\n       ".join(_USAGE),
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, dest=argparse.SUPPRESS, help="print the version and exit"
    )
    add_arguments(parser)
    return parser


def _demo_parser() -> argparse.ArgumentParser:
    about = (
        "Load the Unicode character database into a temporary SQLite file, and show a crew at work on it: searches "
        "side by side, a worker that is killed, a deadline, a cancel, an overload, writes that share commits, actors."
    )
    demo = argparse.ArgumentParser(prog="querycrew demo", description=about, allow_abbrev=False)
    demo.add_argument("scene", nargs="?", choices=_SCENES, help="show one scene alone")
    demo.add_argument(
        "--seconds", type=_seconds, default=15.0, metavar="N", help="about how long it takes (default: 15)"
    )
    demo.add_argument("--record", metavar="FILE.svg", help="draw the demo into a file")
    return demo


def _tour_parser() -> argparse.ArgumentParser:
    about = "Open a prompt on a database of its own, and show the library step by step, for you to try."
    return argparse.ArgumentParser(prog="querycrew tour", description=about, allow_abbrev=False)


def _seconds(text: str) -> float:
    """Return the value of `--seconds`. Less than one second is too short to show anything."""
    try:
        seconds = float(text)
    except ValueError:
        message = f"{text!r} is not a number of seconds"
        raise argparse.ArgumentTypeError(message) from None
    if not 1 <= seconds < float("inf"):
        message = f"must be 1 or more seconds, not {text}"
        raise argparse.ArgumentTypeError(message)
    return seconds


class _Version(argparse.Action):
    """Like argparse's own action, but it looks the version up only when it prints the version."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> Never:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"querycrew {version('querycrew')}")
        except PackageNotFoundError:
            print("querycrew, run from its source without being installed")
        parser.exit()


def _wrong_supervisor() -> str | None:
    """Return the error text if `import supervisor` does not find querycrew's module."""
    try:
        import supervisor
    except Exception as error:  # noqa: BLE001  # another package's module may raise anything
        return f"`import supervisor` fails: {type(error).__name__}: {error}"
    if hasattr(supervisor, "Query"):
        return None
    where = getattr(supervisor, "__file__", None) or next(iter(getattr(supervisor, "__path__", ())), "somewhere")
    return (
        f"`import supervisor` finds {where}, which is not querycrew's module (supervisord installs a package of the "
        "same name); install querycrew into an environment of its own"
    )
