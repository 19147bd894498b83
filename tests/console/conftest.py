"""Fixtures of the prompt: the prompt itself, on a terminal, and a database with two rows."""

import apsw
import pytest

from tests.console.screens import COMMAND, WITHOUT, Screen


@pytest.fixture(params=["IPython", "the standard library"])
def prompt(request, tmp_path):
    """Open the prompt, and wait until it takes a line."""
    pytest.importorskip("rich")
    if request.param == "IPython":
        pytest.importorskip("IPython")
    screens = []

    def open_prompt(*arguments, **options):
        # IPython itself warns of its own and of its libraries' past.
        command = COMMAND[:1] + COMMAND[3:] if request.param == "IPython" else WITHOUT("IPython")
        screens.append(Screen(tmp_path, *arguments, command=command, **options))
        return screens[-1].wait_for(">")

    open_prompt.is_plain = request.param != "IPython"
    yield open_prompt
    for screen in screens:
        screen.__exit__()


@pytest.fixture
def books(tmp_path):
    path = tmp_path / "books.db"
    connection = apsw.Connection(str(path))
    connection.execute(
        "create table books (id integer primary key, title text, price real);"
        "insert into books values (1, 'Eins', 1.5), (2, 'Zwei', null)"
    )
    connection.close()
    return path
