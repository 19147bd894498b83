"""The rules of imports: packages import downwards only, and one table names the order."""

import ast
import importlib
import re
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pykka
import pytest

ROOT = Path(__file__).parents[2]

FLOORS = (
    "actors.system",
    "actors.values",
    "actors.databases",
    "actors.databases.sqlite",
    "actors.databases.postgres",
    "actors.databases.duckdb",
    "actors.databases.dbapi",
    "actors.databases.child",
    "actors.databases.ray",
    "actors.replies",
    "actors.dispatch",
    "actors",
    "actors.monitor",
    "supervisor",
    "actors.console",
)
"""The packages, from the ground up. A module imports from its own package and from the packages
below it. The rule holds also for imports of types."""

# The only package that may import a library at run time. With None, no package may.
OUTSIDE = {
    "apsw": "actors.databases.sqlite",
    "asyncio": None,
    "duckdb": "actors.databases.duckdb",
    "psycopg": "actors.databases.postgres",
    "pyarrow": "actors.values",
    "ray": "actors.databases.ray",
    "trio": None,
}


@dataclass(frozen=True)
class Import:
    """A name that a statement imports, and when the statement runs."""

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
    assert statement.level == 0, "a relative import hides the name of the module"
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
    """Return the names that `module` imports at run time, at any moment."""
    return {each.name for each in IMPORTS[module] if not each.for_types_only}


def ours(names):
    return {name for name in names if name.partition(".")[0] in ("actors", "supervisor")}


def below(package):
    return [name for name in MODULES if name.startswith(f"{package}.") or name == package]


def package_of(module):
    """Return the package of a module. The package of a package is the package itself."""
    return module if module in FLOORS else module.rpartition(".")[0]


def floor_of(module):
    """Return the number of the floor of a module, counted from the ground."""
    return FLOORS.index(package_of(module))


def test_the_page_of_the_architecture_names_every_module_and_no_other():
    page = (ROOT / "docs" / "modules.md").read_text("utf-8")
    named = set(re.findall(r"^\| `((?:actors/|supervisor)\S*\.py)` \|", page, re.MULTILINE))
    files = {str(path.relative_to(ROOT)) for name, path in MODULES.items() if not name.startswith("actors.console")}
    assert named == {file for file in files if not file.endswith("__init__.py")}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_belongs_to_one_of_the_packages(module):
    assert package_of(module) in FLOORS


@pytest.mark.parametrize("module", below("actors.console"))
def test_the_console_imports_only_the_public_module(module):
    assert ours(imported_at_run_time(module)) <= {"supervisor", *below("actors.console")}


@pytest.mark.parametrize(("library", "package"), OUTSIDE.items())
def test_one_package_uses_an_outside_library(library, package):
    # The console is a program, so the rule does not hold for it.
    found = {
        package_of(module)
        for module, imports in IMPORTS.items()
        if module not in below("actors.console")
        and any(each.name.partition(".")[0] == library and not each.for_types_only for each in imports)
    }
    assert found <= {package}


def private_names(path):
    """Return the private names that a file uses, and the private names that it defines."""
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
        if names := (used - defined) & of_pykka:  # a file may use a name that it defines
            found[module] = names
    assert found == {"actors.system.pykka_parts": {"_ActorStop", "_actor_refs", "_envelope"}}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module):
    """The rule holds also for imports of types, so a reader needs no package above."""
    imported = ours({each.name for each in IMPORTS[module]})
    assert [name for name in imported if floor_of(name) > floor_of(module)] == []


def test_no_module_imports_itself_through_others():
    graph = {module: imported_at_run_time(module) & set(MODULES) for module in MODULES}
    in_order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle
    assert set(in_order) == set(MODULES)


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith("actors.console")])
def test_every_name_in_all_exists(module):
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", [])
    assert sorted(set(names)) == sorted(names)
    for name in names:
        assert hasattr(loaded, name)
