"""The command line: its arguments, and how the process ends.

This module imports the few modules that `--help` needs. It imports the others when it uses them.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, Never

__all__ = ["run"]

_INTERRUPTED = 128 + 2  # the exit code in a shell of a program that SIGINT has ended
_BROKEN_PIPE = 128 + 13  # the same for SIGPIPE


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        arguments: without the command's name; `None` for the arguments of the process.

    Raises:
        SystemExit: for `--help`, `--version`, wrong arguments, and SIGTERM or SIGHUP.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        problem = _wrong_supervisor()
        if problem:
            return _fail(problem)
        if options.command is None:
            parser.print_help()
            return 0
        return _demo(options.seconds)
    except KeyboardInterrupt:
        print("querycrew: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader is gone. Python flushes the stream at exit, and that must not fail as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE


def _demo(seconds: float) -> int:
    from actors.console.demo import FAILURES, demo

    try:
        return demo(seconds)
    except BrokenPipeError:
        raise
    except FAILURES as error:
        return _fail("; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="querycrew",
        description="A supervised crew of database workers: queries never block a program, and never go unanswered.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    about = (
        "Load the Unicode character database into a temporary SQLite file, run slow searches over it side by side, "
        "and kill a worker in the middle of its query."
    )
    demo = commands.add_parser("demo", help="see a crew at work, and one of its workers die", description=about)
    demo.add_argument(
        "--seconds", type=_seconds, default=10.0, metavar="N", help="how long it may take at most (default: 10)"
    )
    return parser


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


def _fail(message: str) -> int:
    print(f"querycrew: error: {message}", file=sys.stderr)
    return 1
