"""`querycrew [DATABASE]`: a prompt for Python and SQL."""

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import pykka

import supervisor
from actors.console import tables
from actors.console.arguments import Options, open_crew
from actors.console.commands import Commands
from actors.console.failure import fail
from actors.console.killing import Killer
from actors.console.problems import one_line
from actors.console.signals import Signals
from actors.console.visible import is_dumb_terminal, visible
from supervisor import Query, QuerycrewError, Supervisor, SupervisorRef

__all__ = ["best_prompt", "namespace_of", "repl"]


def repl(options: Options) -> int:
    """Open the database and a prompt; return the exit code after `quit` or the end of the input."""
    with Killer() as killer:
        try:
            db = open_crew(options)
        except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
            return fail(one_line(error))
        with Signals(), db:
            try:
                db.wait(timeout=30)
            except (QuerycrewError, pykka.Timeout) as error:
                return fail(one_line(error))
            namespace = namespace_of(db)
            commands = Commands(db, sys.stdout, killer, namespace, most=options.rows, kind=options.kind)
            try:
                best_prompt()(commands, namespace, _banner(options, db), _name(options))
            finally:
                commands.close()
                # A query that was sent to the background must not hold up the end.
                db.shutdown(cancel_pending=True, timeout=0)
    return 0


def best_prompt() -> Callable[[Commands, dict[str, Any], str, str], None]:
    """Return the prompt of IPython, or that of the standard library.

    IPython may be missing, and on a dumb terminal it repeats the last character of each line.
    """
    if not is_dumb_terminal():
        with suppress(ImportError):
            from actors.console import ipython_prompt

            return ipython_prompt.prompt
    from actors.console import plain_prompt

    return plain_prompt.prompt


def namespace_of(db: SupervisorRef) -> dict[str, Any]:
    """Return the names that a line of Python finds."""

    def ask(request: Any, *params: Any, **options: Any) -> Any:
        """Ask the crew: a request, or SQL with its parameters."""
        try:
            return db.ask(Query(request, params) if isinstance(request, str) else request, **options)
        except BaseException as error:
            # The error ends at the user's line, as an error of `db.ask` does.
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise

    public: Iterable[str] = supervisor.__all__
    names = {name: getattr(supervisor, name) for name in public}
    return {**names, "Supervisor": Supervisor, "db": db, "ask": ask, "__name__": "__console__", "__doc__": None}


def _banner(options: Options, db: SupervisorRef) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        name = f"querycrew {version('querycrew')}"
    except PackageNotFoundError:
        name = "querycrew"
    status = db.ask(supervisor.Status())
    where = visible(options.database or "")
    if options.kind.make is not None:
        where = visible(status.database)  # a URL may hold a password
    elif options.in_memory:
        where = "a database in memory, which ends with this program"
    crew = tables.in_words(status.size, "worker")
    mode = ", readonly" if options.readonly else ""
    lines = [f"{name}: {where}{mode}, {crew}", "SQL and Python run here; `help` tells more, `quit` ends."]
    lines += [f"warning: {warning}" for warning in status.warnings]
    if not tables.HAS_RICH:
        lines.append(tables.MISSING)
    return "\n".join(lines)


def _name(options: Options) -> str:
    """Return the word before the prompt."""
    if options.in_memory or options.database is None:
        return "memory"
    if options.kind.make is not None:
        return options.kind.name.lower()
    base = os.path.basename(options.database.partition("?")[0]) or "db"
    name = os.path.splitext(base)[0]
    return "".join(char for char in name if char.isprintable())[:24]
