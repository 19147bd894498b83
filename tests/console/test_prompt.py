"""The prompt `querycrew [DATABASE]`, by IPython and by the standard library, on a terminal."""

import pytest

from tests.console.screens import WITHOUT, Screen

pytestmark = pytest.mark.usefixtures("plain_signals")

SLOW = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"


def test_it_says_where_it_is_and_ends(prompt, books):
    screen = prompt(books)
    assert "books.db" in screen.text
    assert " worker" in screen.text
    screen.enter("quit")
    assert screen.end() == 0


def test_without_a_database_it_says_that_it_is_in_memory(prompt):
    screen = prompt()
    assert "a database in memory, which ends with this program" in screen.text
    screen.type("\x04")
    assert screen.end() == 0


def test_an_error_of_python_shows_the_lines_of_the_user_alone(prompt):
    screen = prompt()
    screen.enter("ask(Call(lambda connection: 1 / 0))")
    screen.wait_for("querycrew: crew 'memory', Call(")
    assert "ZeroDivisionError" in screen.text
    assert "repl.py" not in screen.text


def test_a_dumb_terminal_gets_no_escape_sequence(tmp_path, books):
    with Screen(tmp_path, books, TERM="dumb") as screen:
        screen.wait_for("books>")
        screen.enter("select 40 + 2 as answer")
        screen.wait_for("(1 row)")
        screen.enter("quit")
        assert screen.end() == 0
    assert b"\x1b" not in screen.written
    assert "books> select 40 + 2 as answer\n" in screen.text


def test_sql_just_runs(prompt, books):
    screen = prompt(books)
    screen.enter("select * from books;")
    screen.wait_for("(2 rows)")
    assert " 1 │ Eins  │   1.5\n 2 │ Zwei  │  NULL" in screen.text
    screen.enter("insert into books values (3, 'Drei', 3)")
    screen.wait_for("1 row changed")
    screen.enter("last")
    screen.enter("WITH a AS (SELECT 42 AS answer) SELECT * FROM a")
    screen.wait_for("(1 row)")


def test_sql_goes_on_in_the_next_line_where_a_parenthesis_is_open(prompt):
    screen = prompt()
    screen.enter("select (40")
    screen.wait_for(".>" if not prompt.is_plain else "...>")
    screen.enter("+ 2) as answer")
    screen.wait_for("answer\n", times=2)
    screen.wait_for("42")


def paste(screen, text):
    """Paste a text as a terminal does, and press Enter once it is shown."""
    screen.type(f"\x1b[200~{text}\x1b[201~")
    screen.wait_for(text.split("\n")[-1].strip())
    screen.enter("")


def test_pasted_lines_are_one_statement(prompt):
    screen = prompt()
    screen.wait_until(lambda text: text.endswith("memory>"))
    paste(screen, "select 1000 + 234 as answer,\n  'it''s' as text\nwhere true")
    screen.wait_for("  1234 │ it's\n(1 row)")
    paste(screen, "select 1 as one;\nselect 2000 + 468\n  as two")
    screen.wait_for("2468\n(1 row)")
    paste(screen, "for n in range(2):\n    print(n + 7000)")
    screen.enter("")
    screen.wait_for("7000\n7001")


def test_a_temporary_table_lasts_as_long_as_its_transaction_and_a_line_says_so(prompt, books):
    screen = prompt(books)
    screen.enter("create temp table t as select 1000 + 234 as n")
    screen.wait_for("BEGIN and COMMIT keep statements on one connection")
    screen.enter("attach ':memory:' as other")
    screen.wait_for("on_connect")
    screen.enter("begin")
    screen.wait_for("books*>")
    screen.enter("create temp table t as select 1000 + 234 as n")
    screen.enter("select n from t")
    screen.wait_for("1234\n(1 row)")
    screen.enter("commit")


def test_python_runs_with_every_public_name(prompt, books):
    screen = prompt(books)
    screen.enter("db.ask(Query('select title from books where id = ?', (2,)))")
    screen.wait_for("(1 row)")
    screen.enter("ask('select 40 + ? as n', 2).one().n + 1000")
    screen.wait_for("1042")
    screen.enter("with db.transaction() as tx: print(tx.ask(Query('select 7 * 11')).scalar())")
    screen.enter("")
    screen.wait_for("77")
    screen.enter("select = 5")
    screen.enter("select - 1000")
    screen.wait_for("-995")


def test_await_works_at_the_top_level(prompt):
    screen = prompt()
    screen.enter("(await db.ask(Query('select 40 + 2'), block=False)).scalar() + 1000")
    screen.wait_for("1042")


@pytest.mark.parametrize("line", ["select nope from books", "db.ask(Query('select nope from books'))"])
def test_an_error_is_a_block_with_the_place_in_the_sql(prompt, books, line):
    screen = prompt(books)
    screen.enter(line)
    screen.wait_for("╰──")
    assert "│ no such column: nope" in screen.text
    assert "│ select nope from books │\n│        ^               │" in screen.text
    assert "Traceback" not in screen.text


@pytest.mark.parametrize(
    "line",
    [SLOW, f"db.ask(Query('{SLOW}'))", f"await db.ask(Query('{SLOW}'), block=False)"],
    ids=["sql", "ask", "await"],
)
def test_ctrl_c_cancels_the_query_and_not_the_program(prompt, line):
    screen = prompt()
    screen.enter(line)
    if line == SLOW:
        screen.wait_for("Ctrl-C cancels")
    screen.interrupt_until("cancelled")
    screen.enter("ask(Query('select 40 + 2')).scalar() + 1000")
    screen.wait_for("1042")
    screen.enter("db.ask(Status()).running + 2000")
    screen.wait_for("2000")
    screen.enter("quit")
    assert screen.end() == 0


def test_begin_and_commit_hold_a_transaction_over_several_lines(prompt, books):
    screen = prompt(books)
    screen.enter("begin")
    screen.wait_for("books*>")
    screen.enter("delete from books")
    screen.wait_for("2 rows changed")
    screen.enter("rollback")
    screen.enter("select count(*) as n from books")
    screen.wait_for("(1 row)")
    assert "n\n─\n2\n" in screen.text


@pytest.mark.parametrize("options", [[], ["--processes"]])
def test_kill_kills_a_worker_and_another_one_takes_its_place(prompt, books, options):
    screen = prompt(books, "--size", "2", *options)
    screen.enter("status")
    screen.wait_for("reader 2")
    screen.enter("kill 2")
    screen.wait_for("has taken its place")
    screen.enter("status")
    screen.wait_for("restarts 1")
    screen.enter("kill 77")
    screen.wait_for("there is no worker 77")


def run_in_the_background(screen):
    """Ask a slow query without waiting for it, and see that it runs."""
    screen.enter(f"reply = db.ask(Query('{SLOW}'), block=False)")
    screen.enter("while not db.ask(Status()).running: pass")
    screen.enter("")
    screen.enter("db.ask(Status()).running + 3000")
    screen.wait_for("3001")


def test_kill_kills_a_thread_in_the_middle_of_its_statement(prompt):
    screen = prompt()
    run_in_the_background(screen)
    screen.enter("kill 1")
    screen.wait_for("has taken its place")
    screen.enter("type(reply.exception()).__name__ * 2")
    screen.wait_for("WorkerDiedWorkerDied")


def test_a_query_in_the_background_does_not_hold_up_the_end(prompt):
    screen = prompt()
    run_in_the_background(screen)
    screen.enter("quit")
    assert screen.end() == 0


def test_commands_look_at_the_database(prompt, books):
    screen = prompt(books)
    screen.enter("tables")
    screen.wait_for("books │ table │ id, title, price")
    screen.enter("schema books")
    screen.wait_for("CREATE TABLE books (id integer primary key, title text, price real);")
    screen.enter("explain select * from books where id = 1")
    screen.wait_for("└─ SEARCH books USING INTEGER PRIMARY KEY (rowid=?)")
    screen.enter("timer on")
    screen.enter("select 1")
    screen.wait_for("(1 row, 0.0")
    screen.enter("help")
    screen.wait_for("Tab completes")


def test_tab_completes_columns_and_tables(prompt, books):
    screen = prompt(books)
    screen.type("select * from books where pric\t")
    screen.wait_for("where price")
    screen.enter(" = 1.5")
    screen.wait_for("(1 row)")
    screen.type("schema boo\t")
    screen.wait_for("schema books")


def test_the_history_is_kept(prompt, books):
    screen = prompt(books)
    screen.enter("select 40 + 2 as kept")
    screen.wait_for("(1 row)")
    screen.enter("quit")
    assert screen.end() == 0
    screen = prompt(books)
    screen.type("\x1b[A\x1b[A")
    screen.wait_for("select 40 + 2 as kept")


def test_a_database_that_cannot_be_opened_is_an_error_without_a_prompt(tmp_path):
    with Screen(tmp_path, tmp_path / "no" / "x.db", command=WITHOUT("IPython")) as screen:
        assert screen.end() == 1
        assert "querycrew: error: the database cannot be opened" in screen.text
    assert not (tmp_path / "no").exists()
