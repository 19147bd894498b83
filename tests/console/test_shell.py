"""`querycrew DATABASE "SQL"`, piped and on a terminal."""

import json
import os
import signal
import subprocess

import apsw
import pytest

from tests.console.screens import COMMAND, WITHOUT, Screen, environment

pytestmark = pytest.mark.usefixtures("plain_signals")

SLOW = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
MANY = "with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) select i, 'text ' || i as t from n"


def querycrew(folder, *arguments, stdin="", command=COMMAND):
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=environment(folder),
        cwd=folder,
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@pytest.fixture
def books(tmp_path):
    path = tmp_path / "books.db"
    connection = apsw.Connection(str(path))
    connection.execute(
        "create table books (id integer primary key, title text, price real, cover blob);"
        "insert into books values (1, 'Über', 1.5, x'00ff'), (2, '日本', null, zeroblob(100))"
    )
    connection.close()
    return path


# --- pipes --------------------------------------------------------------------------------


def test_rows_are_csv_where_standard_output_is_no_terminal(tmp_path, books):
    done = querycrew(tmp_path, books, "select id, title, cover from books limit 1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "id,title,cover\n1,Über,00ff\n", "")


@pytest.mark.parametrize("stdin", ["select 1 as a", "select 1 as a;\n", "-- comment\nselect 1 as a;;"])
def test_sql_comes_from_standard_input(tmp_path, stdin):
    assert querycrew(tmp_path, "x.db", "--jsonl", stdin="create table t (a); " + stdin).stdout == '{"a": 1}\n'


def test_without_a_database_it_is_in_memory(tmp_path):
    assert querycrew(tmp_path, stdin="select 1 as a").stdout == "a\n1\n"
    assert os.listdir(tmp_path) == []


def test_options_may_stand_anywhere(tmp_path, books):
    expected = [{"id": 1}]
    sql = "select id from books limit 1"
    for arguments in (["--json", books, sql], [books, "--json", sql], [books, sql, "--json"]):
        assert json.loads(querycrew(tmp_path, *arguments).stdout) == expected


def test_a_million_rows_go_through_a_pipe_in_order(tmp_path):
    done = querycrew(tmp_path, "", MANY.format(300_000), "--no-header")
    assert done.stdout == "".join(f"{i},text {i}\n" for i in range(1, 300_001))


def test_a_pipe_that_is_closed_is_quiet(tmp_path):
    with subprocess.Popen(
        [*COMMAND, "", MANY.format(10_000_000)],
        env=environment(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"i,t\n"
        process.stdout.close()
        assert process.wait(30) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""


def test_a_table_is_written_to_a_pipe_if_asked(tmp_path, books):
    pytest.importorskip("rich")
    done = querycrew(tmp_path, books, "select id, title from books", "--table")
    assert [line.rstrip() for line in done.stdout.splitlines()][:4] == [
        "id │ title",
        "───┼──────",
        " 1 │ Über",
        " 2 │ 日本",
    ]


# --- scripts ------------------------------------------------------------------------------


def test_a_script_prints_the_rows_of_each_select(tmp_path):
    script = "create table t (a);\ninsert into t values (1), (2);\nselect a from t;\nselect count(*) as n from t;"
    assert querycrew(tmp_path, "x.db", stdin=script).stdout == "a\n1\n2\n\nn\n2\n"


def test_a_transaction_in_a_script_is_one(tmp_path):
    script = (
        "create table t (a); begin; insert into t values (1); select count(*) as n from t; rollback; select * from t;"
    )
    assert querycrew(tmp_path, "x.db", stdin=script).stdout == "n\n1\n\na\n"


def test_a_transaction_that_is_left_open_is_rolled_back_and_told(tmp_path):
    script = "create table t (a); begin; insert into t values (1); select 1 as one;"
    done = querycrew(tmp_path, "x.db", stdin=script)
    assert (done.returncode, done.stdout) == (1, "one\n1\n")
    assert "COMMIT is missing" in done.stderr
    assert querycrew(tmp_path, "x.db", "select count(*) as n from t").stdout == "n\n0\n"


def test_the_dump_of_another_database_is_loaded_with_its_own_settings(tmp_path):
    dump = (
        "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n"
        "CREATE TABLE a (b REFERENCES c (d));\nINSERT INTO a VALUES (1);\n"
        "CREATE TABLE c (d PRIMARY KEY);\nINSERT INTO c VALUES (1);\nCOMMIT;\n"
    )
    done = querycrew(tmp_path, "new.db", stdin=dump)
    assert (done.returncode, done.stderr) == (0, "")
    assert querycrew(tmp_path, "new.db", "select * from a, c").stdout == "b,d\n1,1\n"


def test_a_setting_that_ends_with_its_statement_is_noted(tmp_path):
    done = querycrew(tmp_path, "x.db", stdin="create temp table t (a); select 1 as a;")
    assert done.stdout == "a\n1\n"
    assert "clean connection" in done.stderr


# --- errors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["select nope\nfrom books"], "", "no such column: nope (line 1, column 8: nope)"),
        (["selec 1"], "", 'near "selec": syntax error (line 1, column 1: selec 1)'),
        ([], "select 1 as a;\n\n  selec 1;", 'near "selec": syntax error (line 3, column 3: selec 1;)'),
        ([], "create table t (a);\ninsert into t valuez (1);", "syntax error (line 2, column 15: valuez (1);)"),
        (["--readonly", "delete from books"], "", "attempt to write a readonly database"),
        (["select cast(x'ff' as text)"], "", "not valid UTF-8"),
        (["--timeout", "0.2", SLOW], "", "had 0.2 seconds"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(tmp_path, books, arguments, stdin, message):
    done = querycrew(tmp_path, books, *arguments, stdin=stdin)
    assert done.returncode == 1
    assert done.stderr.startswith("querycrew: error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_database_that_is_not_there_is_created_by_a_statement_that_writes_and_no_other(tmp_path):
    done = querycrew(tmp_path, "x.db", "select 1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no database x.db" in done.stderr
    assert os.listdir(tmp_path) == []
    assert querycrew(tmp_path, "x.db", "create table t (a)").returncode == 0
    assert querycrew(tmp_path, "x.db", "select * from t").returncode == 0


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_journal_mode_of_a_file_is_left_alone(tmp_path, mode):
    path = tmp_path / "x.db"
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", mode)
    connection.execute("create table t (a)")
    connection.close()
    assert querycrew(tmp_path, path, "insert into t values (1)").returncode == 0
    assert apsw.Connection(str(path)).pragma("journal_mode") == mode


def test_a_file_that_is_no_database_is_an_error(tmp_path):
    (tmp_path / "x.db").write_text("nothing of SQLite, and long enough to be seen as that" * 20)
    done = querycrew(tmp_path, "x.db", "select 1")
    assert done.returncode == 1
    assert "file is not a database" in done.stderr


def test_sql_that_is_no_text_is_an_error(tmp_path):
    done = subprocess.run(
        [*COMMAND, "x.db"],
        env=environment(tmp_path),
        cwd=tmp_path,
        input=b"select \xff",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, b"querycrew: error: the SQL is not valid UTF-8\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a full device")
def test_a_full_disk_is_one_line(tmp_path):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [*COMMAND, "", "select 1"],
            env=environment(tmp_path),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"querycrew: error: No space left on device\n")


def test_the_url_of_another_kind_of_database_is_an_error_that_says_so(tmp_path):
    done = querycrew(tmp_path, "mysql://me:secret@host/db", "select 1")
    assert done.returncode == 1
    assert "file:" in done.stderr
    assert "secret" not in done.stderr


def test_a_server_that_is_not_there_is_one_clear_line(tmp_path):
    pytest.importorskip("psycopg")
    done = querycrew(tmp_path, "postgresql://me:secret@127.0.0.1:1/db", "select 1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("querycrew: error: the database cannot be opened: connection failed")
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


def test_a_pragma_is_refused_for_another_kind_of_database(tmp_path):
    pytest.importorskip("psycopg")
    done = querycrew(tmp_path, "--pragma", "cache_size=1", "postgresql://host/db", "select 1")
    assert (done.returncode, done.stderr) == (
        1,
        "querycrew: error: --pragma is a setting of SQLite, and not of PostgreSQL\n",
    )


@pytest.mark.parametrize(
    "arguments",
    [["--size", "0"], ["--timeout", "no"], ["--pragma", "x"], ["--rows", "-1"], ["--csv", "--json"], ["--no"]],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, arguments):
    assert querycrew(tmp_path, "x.db", "select 1", *arguments).returncode == 2


def test_options_reach_the_crew(tmp_path, books):
    done = querycrew(tmp_path, books, "--processes", "--pragma", "cache_size=-123", "--size", "2", "pragma cache_size")
    assert done.stdout == "cache_size\n-123\n"


def test_ctrl_c_cancels_and_ends_with_130(tmp_path, books):
    with Screen(tmp_path, books, SLOW) as screen:
        screen.wait_for("Ctrl-C cancels")
        screen.type("\x03")
        assert screen.end() == 130
        assert screen.text.endswith("querycrew: interrupted")
        assert "Traceback" not in screen.text


# --- terminals ----------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (120, 40)])
def test_a_terminal_gets_an_aligned_table(tmp_path, books, columns, lines):
    pytest.importorskip("rich")
    with Screen(tmp_path, books, "select * from books", columns=columns, lines=lines) as screen:
        assert screen.end() == 0
        # pyte leaves an empty cell behind each wide character, as a terminal does.
        shown = screen.text.splitlines()
    assert shown[0].split() == ["id", "│", "title", "│", "price", "│", "cover"]
    assert shown[2] == " 1 │ Über  │   1.5 │ x'00ff'"
    assert "NULL │ <100 bytes>" in shown[3]
    assert shown[4].startswith("(2 rows, ")


def test_a_long_result_is_cut_and_counted(tmp_path):
    pytest.importorskip("rich")
    with Screen(tmp_path, "", MANY.format(5000), "--rows", "3") as screen:
        assert screen.end() == 0
        assert "3 │ text 3" in screen.text
        assert "text 4" not in screen.text
        assert "(5,000 rows, the first 3 shown, " in screen.text


def test_a_table_never_is_wider_than_the_terminal(tmp_path):
    pytest.importorskip("rich")
    with Screen(tmp_path, "", "select 1 as n, 'long ' || hex(zeroblob(100000)) as text, '日本' as name") as screen:
        assert screen.end() == 0
        assert len(screen.text.splitlines()) == 4
        assert "…" in screen.text


def test_many_columns_are_shown_as_a_list(tmp_path):
    pytest.importorskip("rich")
    columns = ", ".join(f"'value {at}' as column{at}" for at in range(30))
    with Screen(tmp_path, "", f"select {columns}") as screen:
        assert screen.end() == 0
        assert "── row 1 ───" in screen.text
        assert "column29 │ value 29" in screen.text


@pytest.mark.parametrize("option", ["--table", "--csv", "--jsonl", "--json", "--markdown"])
def test_a_hostile_database_writes_nothing_but_visible_text_to_a_terminal(tmp_path, option):
    pytest.importorskip("rich")
    evil = "'\x1b]0;title\x07\x1b[31m' || char(27, 155, 7, 8, 13, 10, 8238, 65279) || '[b]x[/b]'"
    sql = f'select {evil} as "a\x1b[31m\x9b\x07"'
    with Screen(tmp_path, "", sql, option, columns=120, NO_COLOR="1") as screen:
        assert screen.end() == 0
    text = screen.written.decode()
    assert not set(text) & {"\x9b", "\x07", "\x08", "\u202e", "\ufeff"}
    assert "\x1b]" not in text
    assert "\x1b[31m" not in text
    assert "[b]x[/b]" in text
    assert option == "--table" or "\x1b" not in text


def test_an_error_on_a_terminal_is_a_block_with_a_mark(tmp_path, books):
    pytest.importorskip("rich")
    with Screen(tmp_path, books, "select id, nope from books") as screen:
        assert screen.end() == 1
        assert "│ select id, nope from books │\n│            ^               │" in screen.text


def test_long_work_shows_how_long_it_takes_and_clears_that(tmp_path):
    pytest.importorskip("rich")
    with Screen(tmp_path, "", MANY.format(4_000_000)) as screen:
        assert screen.end(60) == 0
        assert b" rows   Ctrl-C cancels" in screen.written
        assert "Ctrl-C" not in screen.text
        assert screen.text.rpartition("\n")[2].startswith("(4,000,000 rows, the first 100 shown, ")


def test_without_rich_the_library_makes_a_table_and_a_sentence_names_it(tmp_path, books):
    with Screen(tmp_path, books, "select id, title from books", command=WITHOUT("rich")) as screen:
        assert screen.end() == 0
        assert "pip install 'querycrew[console]'" in screen.text
        assert "1  │ Über" in screen.text
        assert "(2 rows, " in screen.text
