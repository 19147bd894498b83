"""Who may import whom: arrows point one way, and this is the table of them."""

import ast
import importlib
import re
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pykka
import pytest

ROOT = Path(__file__).parent.parent

VALUES = {"errors", "frozen", "log", "messages", "nesting", "parameters", "rejection", "result", "threads"}
"""What everybody may know."""

# The floors of the house, from the ground up. A module imports from its own floor and from those below it.
FLOORS = {
    "values": {
        "actors": set(),
        "actors.values.errors": set(),
        "actors.values.record": set(),
        "actors.system.log": set(),
        "actors.values.events": {"frozen"},
        "actors.values.requests": {"frozen", "parameters"},
        "actors.system.nesting": set(),
        "actors.values.parameters": set(),
        "actors.system.pykka_parts": set(),
        "actors.values.rejection": set(),
        "actors.values.restart": {"frozen"},
        "actors.values.result": {"nesting"},
        "actors.values.status": {"frozen", "nesting"},
        "actors.system.threads": set(),
    },
    "replies": {
        "actors.values.contexts": {"frozen", "messages"},
        "actors.system.event_loops": set(),
        "actors.system.waiting": {"event_loops"},
        "actors.system.exit_and_fork": {"waiting"},
        "actors.replies.outcome": {"errors", "frozen", "log"},
        "actors.replies.reply": {
            *{"contexts", "errors", "event_loops", "handing_on", "log", "process", "rejection", "waiting"},
        },
        "actors.replies.derived": {"contexts", "errors", "pykka_parts", "reply"},
    },
    "jobs on their way": {
        "actors.dispatch": set(),
        "actors.dispatch.job": {"messages", "rejection", "reply"},
        "actors.dispatch.counters": {"status"},
        "actors.dispatch.codel": set(),
        "actors.dispatch.quarantine": {"messages"},
        "actors.dispatch.rejections": {"errors"},
        "actors.dispatch.routing": {"messages"},
        "actors.dispatch.timers": {"dispatch.job"},
        "actors.dispatch.worker_handle": {"databases.base", "dispatch.counters"},
        "actors.dispatch.views": {"dispatch.counters", "dispatch.worker_handle", "status"},
        "actors.dispatch.batch": {"databases.executor", "dispatch.job", "messages", "rejection"},
        "actors.dispatch.lane": {
            *{"dispatch.batch", "dispatch.codel", "dispatch.counters", "dispatch.job", "dispatch.worker_handle"},
            "messages",
        },
        "actors.dispatch.admission": {
            *{"dispatch.counters", "dispatch.job", "dispatch.quarantine", "dispatch.rejections", "dispatch.routing"},
            "errors",
        },
        "actors.dispatch.dispatcher": {
            *{"dispatch.admission", "dispatch.batch", "dispatch.counters", "dispatch.job", "dispatch.lane"},
            *{"dispatch.quarantine", "dispatch.rejections", "dispatch.routing", "dispatch.timers", "dispatch.views"},
            *{"dispatch.worker_handle", "errors", "status"},
        },
    },
    "what a job and its caller say to each other": {
        "actors.replies.checkout": {
            *{"contexts", "databases.steps", "dispatch.job", "errors", "messages", "rejection", "reply", "result"},
            "waiting",
        },
        "actors.replies.interactive": {
            *{"contexts", "conversation", "databases.steps", "dispatch.job", "messages", "reply", "result", "stream"},
        },
        "actors.replies.session": {"errors", "event_loops", "interactive", "messages", "reply", "result", "stream"},
        "actors.replies.stream": {"conversation", "databases.steps", "errors", "messages", "reply", "result"},
    },
    "actors": {
        "actors.inbox": {"pykka_parts"},
        "actors.actor": {"inbox", "log", "pykka_parts", "reply", "threads", "waiting"},
        "actors.worker": {
            *VALUES,
            *{"actor", "databases.base", "databases.steps", "dispatch.batch", "dispatch.dispatcher", "dispatch.job"},
            *{"dispatch.rejections", "dispatch.worker_handle", "events", "rejection", "waiting"},
        },
        "actors.slot": {"databases.base", "worker"},
    },
    "what a program holds": {
        "actors.system.memory": {"status"},
        "actors.ref": {
            *VALUES,
            *{"contexts", "conversation", "derived", "dispatch.dispatcher", "dispatch.job", "interactive", "keeper"},
            *{"memory", "process", "pykka_parts", "reply", "session", "status", "stream", "waiting"},
        },
        "actors.keeper": {"dispatch.dispatcher", "inbox", "waiting"},
        "actors.registered": {"log", "messages", "pykka_parts", "ref"},
        "actors.options": {"databases.base"},
    },
}

MAY_IMPORT = {module: imported for floor in FLOORS.values() for module, imported in floor.items()}

# What each outside library is used for stands in one place.
OUTSIDE = {
    "apsw": {
        f"actors.databases.sqlite.database{part}"
        for part in (
            *("", "_backup", "_connection", "_file", "_opening", "_statement", "_steps"),
            *("_transactions", "_untrusted", "_upkeep", "_writer"),
        )
    },
    "asyncio": set(),
    "trio": set(),
}


@dataclass(frozen=True)
class Import:
    """One import statement's name, and when it is carried out."""

    name: str
    at_import_time: bool
    for_types_only: bool


def modules():
    """Return the path of every module, by its name."""
    paths = {"supervisor": ROOT / "supervisor.py"}
    for path in sorted((ROOT / "actors").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return paths


MODULES = modules()


def names_of(statement):
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    assert statement.level == 0, "a relative import hides what is imported"
    whole = statement.module
    return [f"{whole}.{alias.name}" if f"{whole}.{alias.name}" in MODULES else whole for alias in statement.names]


def imports_in(statements, *, at_import_time=True, for_types_only=False):
    for statement in statements:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            for name in names_of(statement):
                yield Import(name, at_import_time, for_types_only)
        typed = isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"
        later = isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef))
        for part in ("body", "orelse", "handlers", "finalbody", "cases"):
            yield from imports_in(
                getattr(statement, part, []),
                at_import_time=at_import_time and not later,
                for_types_only=for_types_only or (typed and part == "body"),
            )


IMPORTS = {name: list(imports_in(ast.parse(path.read_text("utf-8")).body)) for name, path in MODULES.items()}


def imported_at_run_time(module):
    """Return the names that `module` imports for more than types, sooner or later."""
    return {each.name for each in IMPORTS[module] if not each.for_types_only}


def ours(names):
    return {name for name in names if name.partition(".")[0] in ("actors", "supervisor")}


def below(package):
    return [name for name in MODULES if name.startswith(f"{package}.") or name == package]


def floor_of(module):
    """Return on which floor a module is, counted from the ground. Databases stand between values and replies."""
    if module in below("actors.databases"):
        return 0.5
    floors = [*FLOORS.values(), {"supervisor": set()}, dict.fromkeys(below("actors.console"))]
    return next(number for number, floor in enumerate(floors) if module in floor)


PARTS = [name for name in below("actors") if name not in {*below("actors.console"), *below("actors.databases")}]


def test_every_module_stands_in_the_table_and_nothing_else():
    assert set(PARTS) == set(MAY_IMPORT)


def test_the_page_of_the_architecture_names_every_module_and_no_other():
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = set(re.findall(r"^\| `((?:actors/|supervisor)\S*\.py)` \|", page, re.MULTILINE))
    files = {str(path.relative_to(ROOT)) for name, path in MODULES.items() if not name.startswith("actors.console")}
    assert named == {file for file in files if not file.endswith("__init__.py")}


@pytest.mark.parametrize("module", PARTS)
def test_a_module_imports_only_what_the_table_allows(module):
    allowed = {f"actors.{name}" for name in MAY_IMPORT.get(module, ())}
    assert ours(imported_at_run_time(module)) <= allowed


@pytest.mark.parametrize("module", PARTS)
def test_the_table_allows_no_more_than_is_needed(module):
    allowed = {f"actors.{name}" for name in MAY_IMPORT.get(module, ())}
    unused = allowed - ours(imported_at_run_time(module)) - {f"actors.{name}" for name in VALUES}
    assert not unused, "take them out of the table"


@pytest.mark.parametrize("module", below("actors.databases"))
def test_a_database_knows_values_and_other_databases_and_no_actor(module):
    allowed = {f"actors.{name}" for name in VALUES} | set(below("actors.databases"))
    assert ours(imported_at_run_time(module)) <= allowed


@pytest.mark.parametrize("module", [name for name in below("actors") if name not in below("actors.console")])
def test_nothing_but_the_console_imports_the_supervisor(module):
    assert "supervisor" not in imported_at_run_time(module)
    assert not any(name.startswith("actors.console") for name in imported_at_run_time(module))


@pytest.mark.parametrize("module", below("actors.console"))
def test_the_console_uses_what_every_program_may_use(module):
    assert ours(imported_at_run_time(module)) <= {"supervisor", *below("actors.console")}


@pytest.mark.parametrize(("library", "users"), OUTSIDE.items())
def test_an_outside_library_is_used_in_its_one_place(library, users):
    # The console is a program like any other.
    found = {
        module
        for module, imports in IMPORTS.items()
        if module not in below("actors.console")
        and any(each.name.partition(".")[0] == library and not each.for_types_only for each in imports)
    }
    assert found <= users


def private_names(path):
    """Return the private names that a file uses, and those that it defines."""
    used, defined = set(), set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.FunctionDef(name) | ast.ClassDef(name):
                defined.add(name)
            case ast.Attribute(attr=name) | ast.Name(id=name):
                used.add(name)
            case ast.Import(names) | ast.ImportFrom(names=names):
                used |= {part for alias in names for part in alias.name.split(".")}
                used |= set((getattr(node, "module", None) or "").split("."))
    return [{name for name in names if name.startswith("_") and not name.startswith("__")} for names in (used, defined)]


def test_one_module_names_the_private_parts_of_pykka():
    of_pykka = set()
    for path in Path(pykka.__file__).parent.glob("*.py"):
        used, defined = private_names(path)
        of_pykka |= used | defined | {path.stem}
    found = {}
    for module, path in MODULES.items():
        used, defined = private_names(path)
        if names := (used - defined) & of_pykka:  # what it defines itself, it calls
            found[module] = names
    assert found == {"actors.system.pykka_parts": {"_ActorStop", "_actor_refs", "_envelope"}}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module):
    upwards = [name for name in ours(imported_at_run_time(module)) if floor_of(name) > floor_of(module)]
    assert upwards == []


def test_no_module_needs_itself_neither_while_it_is_imported_nor_later():
    graph = {module: imported_at_run_time(module) & set(MODULES) for module in MODULES}
    in_order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle
    assert set(in_order) == set(MODULES)


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith("actors.console")])
def test_what_a_module_offers_is_there(module):
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", [])
    assert sorted(set(names)) == sorted(names)
    for name in names:
        assert hasattr(loaded, name)
