"""A result shows a table at a prompt, and one line inside the `repr` of another object."""

import collections
import functools
import subprocess
import sys
import types
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from actors.system import nesting
from actors.values.result import Result
from supervisor import Outcome, Status
from tests.support.common import environment

PEOPLE = Result(("name", "age"), [("ann", 31), ("bob", 22)], 2)
TABLE = """\
name │ age
─────┼────
ann  │ 31
bob  │ 22
(2 rows)"""
LINE = "<Result: 2 rows (name, age)>"


@dataclass
class Data:
    value: Any


class Named(NamedTuple):
    value: Any


class Joined:
    """An object that shows its parts with its own generator and function."""

    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return "Joined(" + ", ".join(shown(part) for part in (self.value,)) + ")"


def shown(part):
    return f"{part!r}"


def test_a_result_shows_itself_as_a_table():
    assert repr(PEOPLE) == str(PEOPLE) == f"{PEOPLE!r}" == f"{PEOPLE}" == "%r" % PEOPLE == TABLE  # noqa: UP031


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython tells which object it is showing")
@pytest.mark.parametrize(
    ("hold", "text"),
    [
        (lambda it: [it], f"[{LINE}]"),
        (lambda it: [it, it], f"[{LINE}, {LINE}]"),
        (lambda it: (it,), f"({LINE},)"),
        (lambda it: {"a": it}, f"{{'a': {LINE}}}"),
        (lambda it: {"a": [(it,)]}, f"{{'a': [({LINE},)]}}"),
        (lambda it: {"a": it}.values(), f"dict_values([{LINE}])"),
        (lambda it: collections.deque([it]), f"deque([{LINE}])"),
        (lambda it: types.SimpleNamespace(a=it), f"namespace(a={LINE})"),
        (lambda it: types.MappingProxyType({"a": it}), f"mappingproxy({{'a': {LINE}}})"),
        (lambda it: functools.partial(len, it), f"functools.partial(<built-in function len>, {LINE})"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_a_result_in_a_container_of_the_interpreter_is_one_line(hold, text):
    assert repr(hold(PEOPLE)) == text
    assert repr(PEOPLE) == TABLE, "and a table again afterwards"


@pytest.mark.parametrize(
    ("hold", "text"),
    [
        (Data, f"Data(value={LINE})"),
        (Named, f"Named(value={LINE})"),
        (Joined, f"Joined({LINE})"),
        (collections.UserList, None),
        (lambda it: Outcome(it, None), f"Outcome(value={LINE}, error=None)"),
        (lambda it: Data(Outcome(it, None)), f"Data(value=Outcome(value={LINE}, error=None))"),
    ],
    ids=["data class", "named tuple", "generator", "list of Python", "Outcome", "data class of an Outcome"],
)
def test_a_result_in_an_object_of_a_class_of_python_is_one_line(hold, text):
    held = hold([PEOPLE]) if text is None else hold(PEOPLE)
    assert repr(held) == (text or f"[{LINE}]")
    assert repr(PEOPLE) == TABLE, "and a table again afterwards"


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (Result(("n",), [(1,)]), "<Result: 1 row (n)>"),
        (Result(("a", "b"), []), "<Result: 0 rows (a, b)>"),
        (Result(("n",), [(1,), (2,)], 2, None, True), "<Result: 2 rows (n), truncated>"),
        (Result(rowcount=3), "<Result: no rows, rowcount=3>"),
        (Result(rowcount=1, lastrowid=7), "<Result: no rows, rowcount=1, lastrowid=7>"),
        (Result(("two\nlines",), [(1,)]), "<Result: 1 row (two·lines)>"),
        (
            Result(tuple(f"column{n}" for n in range(2000)), []),
            "<Result: 0 rows (column0, column1, column2, column3, col…)>",
        ),
    ],
)
def test_the_line_of_a_result_is_short_and_printable(result, line):
    assert repr(Data(result)) == f"Data(value={line})"


def test_a_result_in_a_list_is_a_table_if_the_interpreter_keeps_no_notes(monkeypatch):
    monkeypatch.setattr(nesting, "_is_showing_a_container", lambda: False)
    assert repr([PEOPLE]) == f"[{TABLE}]"
    assert repr(Data(PEOPLE)) == f"Data(value={LINE})"


@pytest.mark.parametrize("missing", ["no ctypes", "another interpreter"])
def test_a_result_shows_itself_on_an_interpreter_that_keeps_no_notes(monkeypatch, missing):
    if missing == "no ctypes":
        monkeypatch.setitem(sys.modules, "ctypes", None)
    else:
        monkeypatch.setattr(sys, "implementation", types.SimpleNamespace(name="other"))
    assert repr(PEOPLE) == TABLE
    assert repr([PEOPLE]) == f"[{TABLE}]"


def test_a_repr_that_fails_leaves_no_trace_in_the_next_one():
    class Failing:
        def __repr__(self):
            raise ValueError

    with pytest.raises(ValueError):
        repr([PEOPLE, Failing()])
    assert repr(PEOPLE) == TABLE


def test_a_prompt_shows_a_table_and_a_list_of_lines():
    program = (
        "from actors.values.result import Result",
        "result = Result(('name', 'age'), [('ann', 31), ('bob', 22)], 2)",
        "result",
        "[result]",
        "print(result)",
    )
    done = subprocess.run(
        [sys.executable, "-q", "-i", "-c", ""],
        input="".join(f"{line}\n" for line in program),
        capture_output=True,
        encoding="utf-8",
        env={**environment(), "PYTHONIOENCODING": "utf-8"},
        timeout=60,
        check=True,
    )
    assert done.stdout == f"{TABLE}\n[{LINE}]\n{TABLE}\n"


# --- IPython ------------------------------------------------------------------------------


class Printer:
    """The part of IPython's printer that a `_repr_pretty_` uses."""

    def __init__(self, *stack):
        self.stack = stack
        self.told = ""

    def text(self, told):
        self.told += told


def test_ipython_shows_a_table_and_inside_another_object_one_line():
    for stack, text in (((1,), TABLE), ((1, 2), LINE)):
        printer = Printer(*stack)
        PEOPLE._repr_pretty_(printer, cycle=False)
        assert printer.told == text


def test_the_real_ipython_shows_a_table_and_inside_another_object_one_line():
    pretty = pytest.importorskip("IPython.lib.pretty").pretty
    assert pretty(PEOPLE) == TABLE
    assert pretty([PEOPLE]) == f"[{LINE}]"
    assert pretty(Data(PEOPLE)) == f"Data(value={LINE})"


# --- the status of a crew -----------------------------------------------------------------


def test_a_status_shows_itself_at_a_prompt_as_it_prints(start):
    status = start().ask(Status())
    assert repr(status) == str(status)
    assert repr(status).startswith("memory: up, ")


def test_a_status_in_another_object_is_one_line_with_every_field(start):
    status = start().ask(Status())
    for text in (repr([status]), repr(Data(status)), repr(Outcome(status, None))):
        assert "\n" not in text
        assert "CrewStatus(name='memory', database=" in text
        assert "run=Durations(count=0, " in text
