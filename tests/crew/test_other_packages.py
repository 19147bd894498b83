"""Files of the user with the names of our packages: an error names the file that hides ours."""

import subprocess
import sys

import pytest

from tests.support.common import environment

ASKS = """
from supervisor import Query, Supervisor
with Supervisor.start() as db:
    print(db.ask(Query('SELECT 42')).scalar())
"""
ACTOR = "import pykka\nclass Greeter(pykka.ThreadingActor): pass\n"


def run(folder, files, name="program.py"):
    """Write the files, run the file called `name`, and return the finished process."""
    for path, content in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(content)
    command = [sys.executable, "-W", "error", folder / name]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment())


@pytest.mark.parametrize(
    "files",
    [
        {"actors/__init__.py": ""},
        {"actors/__init__.py": ACTOR},
        {"actors/__init__.py": "", "actors/system/exit_and_fork.py": "", "actors/refusals.py": ""},
        {"actors/__init__.py": "from supervisor import Supervisor"},
        {"actors/__init__.py": "import nothing_of_that_name"},
        {"actors/__init__.py": "raise RuntimeError('not now')"},
        {"actors.py": "process = refusals = None"},
    ],
)
def test_the_error_names_a_users_package_that_hides_ours_and_the_remedy(tmp_path, files):
    done = run(tmp_path, {**files, "program.py": ASKS})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: `import actors` finds {tmp_path / next(iter(files))}, which is not querycrew's package of that "
        "name: rename it, or move it into a package of your own"
    )


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"actors/__init__.py": ACTOR, "program.py": f"from actors import Greeter\n{ASKS}"}, "program.py"),
        ({"actors/__init__.py": f"{ASKS}{ACTOR}", "program.py": "import actors"}, "program.py"),
        ({"actors.py": f"{ACTOR}{ASKS}"}, "actors.py"),
    ],
)
def test_a_program_that_uses_its_own_package_of_that_name_gets_the_same_error(tmp_path, files, name):
    done = run(tmp_path, files, name)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"ImportError: `import actors` finds {tmp_path / next(iter(files))}, which is not" in done.stderr


def test_a_folder_of_that_name_that_is_no_package_hides_nothing(tmp_path):
    done = run(tmp_path, {"actors/notes.txt": "", "program.py": ASKS})
    assert (done.returncode, done.stdout, done.stderr) == (0, "42\n", "")


@pytest.mark.parametrize(
    ("files", "name"),
    [({"supervisor.py": "", "program.py": ASKS}, "program.py"), ({"supervisor.py": ASKS}, "supervisor.py")],
)
def test_python_itself_names_a_users_supervisor(tmp_path, files, name):
    done = run(tmp_path, files, name)
    assert done.returncode == 1
    assert "ImportError: cannot import name 'Query' from " in done.stderr
    assert str(tmp_path / "supervisor.py") in done.stderr.splitlines()[-1]
