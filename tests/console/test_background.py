"""`&` behind a statement: it runs in the background, and the prompt goes on."""

import pytest

from actors.console.statements import for_background
from tests.console.test_prompt import SLOW

pytestmark = pytest.mark.usefixtures("plain_signals")


def test_the_prompt_goes_on_while_a_statement_runs_in_the_background(prompt, books):
    screen = prompt(books, "--size", "2")
    screen.enter(f"{SLOW} &")
    screen.wait_for("[1] runs in the background; `fg 1` shows its result")
    screen.enter("select 40 + 2 as answer")
    screen.wait_for("(1 row)")
    screen.enter("jobs")
    screen.wait_for("[1] runs since")
    screen.enter("cancel 1")
    screen.wait_for("[1] cancelled after")
    screen.enter("db.ask(Status()).running + 3000")
    screen.wait_for("3000")
    screen.enter("jobs")
    screen.wait_for("nothing runs in the background")


def test_the_end_is_announced_and_fg_shows_the_result(prompt, books):
    screen = prompt(books)
    screen.enter("select id, title as name from books &")
    screen.wait_for("[1] runs in the background")
    while "[1] done after" not in screen.text:
        screen.enter("timer off")  # the standard prompt says it before its next line
        screen.wait_for("timer off", times=screen.text.count("timer off") + 1)
    assert "2 rows: select id, title as name from books" in screen.text
    screen.enter("fg 1")
    screen.wait_for(" 2 │ Zwei\n(2 rows)")
    screen.enter("last.column('name')")
    screen.wait_for("['Eins', 'Zwei']")
    screen.enter("fg 1")
    screen.wait_for("no statement in the background has this number")


def test_an_error_in_the_background_is_shown_with_its_place(prompt, books):
    screen = prompt(books)
    screen.enter("select nope from books &")
    screen.wait_for("[1] runs in the background")
    screen.enter("fg")
    screen.wait_for("╰──")
    assert "│ select nope from books │\n│        ^               │" in screen.text


def test_ctrl_c_in_fg_cancels_the_statement(prompt, books):
    screen = prompt(books)
    screen.enter(f"{SLOW} &")
    screen.wait_for("[1] runs in the background")
    screen.enter("fg 1")
    screen.wait_for("Ctrl-C cancels")
    screen.interrupt_until("cancelled after")
    screen.enter("quit")
    assert screen.end() == 0


def test_a_transaction_keeps_its_statements_in_front(prompt, books):
    screen = prompt(books)
    screen.enter("begin")
    screen.wait_for("books*>")
    screen.enter("delete from books &")
    screen.wait_for("a transaction is open")
    screen.enter("rollback")
    screen.enter("begin &")
    screen.wait_for("`&` stands behind one statement")
    screen.enter("delete from books &")
    screen.wait_for("[1] runs in the background")
    screen.enter("fg 1")
    screen.wait_for("2 rows changed")


def test_quit_cancels_and_says_so(prompt):
    screen = prompt()
    screen.enter(f"{SLOW} &")
    screen.wait_for("the next statement waits for this one")
    screen.enter("quit")
    assert screen.end() == 0
    assert "1 statement in the background cancelled" in screen.text


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("select 1 &", "select 1"),
        ("select 1; & \n", "select 1;"),
        ("select 1 & 2", None),
        ("select '&", None),
        ("select 1 -- &", None),
        ("select 1 /* & */", None),
        ("select '&' &", "select '&'"),
    ],
)
def test_an_ampersand_at_the_end_is_no_part_of_the_statement(text, before):
    assert for_background(text) == before
