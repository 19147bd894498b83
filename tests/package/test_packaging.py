"""The installed project: a wheel with a module, a package, types and few imports."""

import email
import importlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import apsw
import pykka
import pytest

from tests.support.common import environment

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*command, **options):
    """Run a program to its end, and return its output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def plain_environment():
    """Return the environment without a coverage tool, since such a tool imports many modules."""
    return {name: value for name, value in environment().items() if not name.startswith("COV")}


# --- importing ----------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["supervisor", "actors.console.main"])
def test_an_import_loads_no_module_that_the_crew_does_not_use(module):
    unwanted = "{'asyncio', 'concurrent.futures.thread', 'multiprocessing', 'sqlite3', 'html', 'ctypes'}"
    program = f"import sys, {module}; print(sorted({unwanted} & set(sys.modules)), 'supervisor' in sys.modules)"
    found, _, supervisor = run(sys.executable, "-c", program, env=plain_environment()).strip().rpartition(" ")
    assert found == "[]"
    assert supervisor == str(module == "supervisor")


def test_everything_public_is_importable_from_supervisor():
    import supervisor

    assert sorted(supervisor.__all__, key=lambda name: (not name.isupper(), name)) == supervisor.__all__
    assert all(hasattr(supervisor, name) for name in supervisor.__all__)
    assert {"Supervisor", "SupervisorRef", "Query", "Script", "Status", "Result", "Row"} <= set(supervisor.__all__)
    assert {"SQLite", "Reply", "RestartPolicy", "WorkerDied", "DatabaseUnavailable"} <= set(supervisor.__all__)


def test_completion_at_a_prompt_offers_public_names_only(start, path):
    import supervisor

    def offered(value, base=object):
        return {name for name in dir(value) if not name.startswith("_")} - set(dir(base))

    sequence = {"count", "index"}
    db = start(path, size=1)
    reply = db.ask(supervisor.Query("SELECT 1 AS one"), block=False)
    replies = {"add_done_callback", "as_future", "cancel", "cancelled", "done", "exception", "id", "pipe_to"}
    assert offered(supervisor) == set(supervisor.__all__)
    own = {"cancel", "errors", "shutdown", "transaction", "wait", "watch"}
    assert offered(db, pykka.ActorRef) - {"actor_class", "actor_inbox", "actor_stopped", "actor_urn"} == own
    assert offered(reply, pykka.Future) == offered(reply.map(len), pykka.Future) == replies
    result = reply.get()
    values = {"columns", "lastrowid", "rowcount", "rows", "truncated"}
    tables = {"of_table", "to_arrow", "to_pandas", "to_polars"}
    assert offered(result) == {*values, *sequence, *tables, "column", "dicts", "first", "keys", "one", "scalar"}
    assert offered(result[0]) == {*sequence, "asdict", "columns", "keys", "one"}
    with db.transaction() as session:
        assert offered(session) == {"ask", "begin", "commit", "rollback"}
    with db.ask(supervisor.Stream("SELECT 1")) as stream:
        assert offered(stream) == {"chunks", "close", "columns"}


def test_the_command_leads_to_a_function():
    module, _, name = PROJECT["project"]["scripts"]["querycrew"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_the_installed_versions_are_in_the_required_ranges():
    asked = {}
    for text in PROJECT["project"]["dependencies"]:
        name, _, versions = text.partition(">=")
        asked[name] = versions.partition(",<")[::2]
    found = {name: importlib.metadata.version(name) for name in ("apsw", "pykka")}
    assert asked.keys() == found.keys()
    for name, (first, beyond) in asked.items():
        assert numbers(first) <= numbers(found[name]), name
        assert not beyond or numbers(found[name]) < numbers(beyond), name
    assert asked["pykka"][1], "the next major version of Pykka may change the private parts that the crew uses"
    assert sys.version_info >= numbers(PROJECT["project"]["requires-python"].removeprefix(">="))


def numbers(version):
    return tuple(int(part) for part in version.split(".")[:2])


# --- the folder ---------------------------------------------------------------------------

AT_THE_TOP = {
    *{"actors", "benchmarks", "docs", "examples", "tests", ".ci"},
    *{"supervisor.py", "hatch_build.py", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", ".gitignore"},
}


def test_every_entry_of_the_top_level_is_part_of_the_project():
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no checkout, or there is no git")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if listed.returncode:
        pytest.skip("git cannot read this checkout")
    assert {name.partition("/")[0] for name in listed.stdout.splitlines()} == AT_THE_TOP


# --- the wheel ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    for needed in ("pip", "hatchling"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed here")
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--wheel-dir")
    run(sys.executable, "-m", "pip", "wheel", *options, folder, ROOT, env=plain_environment())
    [wheel] = folder.glob("querycrew-*.whl")
    return wheel


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed here")
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT, env=plain_environment())
    [sdist] = folder.glob("querycrew-*.tar.gz")
    return sdist


@pytest.fixture(scope="module")
def metadata(wheel):
    """Return the metadata of the wheel. Its payload is the long description."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Return an interpreter that has the wheel installed, and no path of this source tree."""
    folder = tmp_path_factory.mktemp("installed")
    venv.EnvBuilder(symlinks=os.name != "nt").create(folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    dependencies = {str(Path(module.__file__).parent.parent) for module in (apsw, pykka)}
    (site / "dependencies.pth").write_text("\n".join(dependencies))
    return python


def test_the_wheel_contains_the_module_the_package_and_its_py_typed(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "actors").rglob("*.py")}
    assert {"actors/dispatch/dispatcher.py", "actors/databases/sqlite/database.py", "actors/console/main.py"} <= sources
    assert sources | {"supervisor.py", "actors/py.typed"} <= names
    assert not [
        name for name in names if name.startswith(("tests", "docs", "benchmarks", "examples")) or "pycache" in name
    ]


def test_the_licence_is_shipped(wheel, sdist, metadata):
    licence = (ROOT / "LICENSE").read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("LICENSE")]
        assert archive.read(name) == licence
    with tarfile.open(sdist) as archive:
        [name] = [name for name in archive.getnames() if name.endswith("/LICENSE")]
        assert archive.extractfile(name).read() == licence
    assert (metadata["License-Expression"], metadata["License-File"]) == ("MIT", "LICENSE")


def test_the_source_distribution_contains_the_files_that_the_tests_need(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2].partition("/")[0] for name in archive.getnames()}
    assert names - {"PKG-INFO", ""} == AT_THE_TOP - {".ci"}


def test_the_long_description_is_the_readme_with_links_that_work_on_an_index(metadata):
    text = metadata.get_payload(decode=True).decode()
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []
    for line in ("# querycrew", "| Architecture | how it is built", "<!-- demo -->"):
        assert line in text
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_an_installed_wheel_answers_a_query_from_any_folder(installed, tmp_path):
    program = (
        "from supervisor import Query, Supervisor; import supervisor\n"
        "with Supervisor.start('app.db') as db: print(db.ask(Query('SELECT 1 + 1')).scalar(), supervisor.__file__)"
    )
    answer, _, file = run(installed, "-W", "error", "-c", program, cwd=tmp_path, env=bare()).strip().partition(" ")
    assert answer == "2"
    assert Path(file).is_relative_to(installed.parent.parent)


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed here")
def test_a_users_type_checker_infers_the_answers_of_an_installed_crew(installed, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from supervisor import Call, Query, Status, Supervisor\n"
        "def count(connection: object, table: str) -> int: return len(table)\n"
        "db = Supervisor.start('app.db')\n"
        "reveal_type(db.ask(Query('SELECT 1')))\n"
        "reveal_type(db.ask(Query('SELECT 1'), block=False))\n"
        "reveal_type(db.ask(Status()))\n"
        "reveal_type(db.ask(Call(count, 'books')))\n"
        "Call(count, 5)  # type: ignore[arg-type]\n"
    )
    command = (sys.executable, "-m", "mypy", "--strict", "--python-executable", installed, "--no-incremental", program)
    told = run(*command, cwd=tmp_path, env=bare())
    for revealed in (
        "actors.values.result.Result",
        "actors.replies.reply.Reply[actors.values.result.Result]",
        "actors.values.status.CrewStatus",
    ):
        assert f'"{revealed}"' in told
    assert 'int"' in told


def bare():
    """Return the environment without a path to this source tree."""
    return {name: value for name, value in plain_environment().items() if name not in ("PYTHONPATH", "MYPYPATH")}
