"""The live view as lines: its columns, its selection and its keys, without a terminal."""

import os

import pytest

from supervisor import CrewStatus, Durations, JobStatus, WorkerStatus

pytest.importorskip("rich")

from actors.console.keyboard import Keyboard
from actors.console.view import Cancel, Kill, Quit, View

NONE = Durations(0, 0.0, 0.0, 0.0, 0.0)
SIZES = [(80, 24), (120, 40), (40, 24), (40, 10), (20, 6), (3, 2), (1, 1)]


def worker(number, job=None, **facts):
    given = {"id": number, "state": "busy" if job else "idle", "seconds": 1.5, "jobs": (job,) if job else ()}
    return WorkerStatus(**{**given, "job": f"Query('SELECT {job}')" if job else None, **facts})


def status(*workers, **facts):
    given = dict.fromkeys(CrewStatus._fields, 0)
    texts = {"name": "app", "database": "SQLite('app.db')", "state": "up", "cause": None, "writing": None}
    rest = {"writing_id": None, "waiting": (), "warnings": (), "wait_counts": (), "run_counts": ()}
    return CrewStatus(**{**given, **texts, **rest, "wait": NONE, "run": NONE, "workers": workers, **facts})


def view_of(*workers, **facts):
    view = View("app, process 7")
    view.take(status(*workers, **facts), 0.0)
    return view


def shown(view, width=80, height=24):
    return "\n".join(line.plain.rstrip() for line in view.lines(width, height))


def selected(view, height=24):
    [line] = [line.plain for line in view.lines(80, height) if any(span.style == "reverse" for span in line.spans)]
    return line.strip()


# --- lines --------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("helps", [False, True])
def test_it_fills_each_size_exactly(width, height, helps):
    workers = [worker(number, number + 10, role="reader", pid=4000, memory=10**9) for number in range(64)]
    view = view_of(*workers, waiting=tuple(JobStatus(number, "Query('日本語')", 1, "reader") for number in range(100)))
    if helps:
        view.press("?")
    lines = view.lines(width, height)
    assert len(lines) == height
    assert max(line.cell_len for line in lines) <= width
    assert all("\n" not in line.plain for line in lines)


def test_a_line_tells_all_of_a_worker():
    text = shown(view_of(worker(3, 17, role="writer", pid=4711, memory=12_345_678, seconds=61.26)), 120)
    assert "ID ROLE   STATE        FOR   MEMORY     PID    JOB STATEMENT" in text
    assert "3 writer busy      61.3 s  12.3 MB    4711     17 SELECT 17" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.00 ms"), (0.00123, "1.23 ms"), (0.5, "500 ms"), (59.94, "59.9 s"), (120, "2 min"), (7200, "2 h")],
)
def test_times_are_short(seconds, text):
    assert f" {text}" in shown(view_of(worker(1, seconds=seconds)))


def test_a_crew_of_threads_has_no_columns_for_processes():
    text = shown(view_of(worker(1)))
    assert "PID" not in text
    assert "MEMORY" not in text
    assert "ROLE" not in text


def test_a_narrow_terminal_shows_the_most_important_columns():
    text = shown(view_of(worker(1, 5, role="reader", pid=3, memory=4)), 40)
    assert "ID STATE        FOR    JOB STATEMENT" in text
    assert "1 busy       1.5 s      5 SELECT 5" in text
    assert text.endswith("? help")


def test_several_jobs_of_a_worker_are_counted():
    assert " 17+2 SELECT 17" in shown(view_of(worker(1, 17, jobs=(17, 18, 19))))


def test_waiting_jobs_stand_below_the_workers():
    lines = shown(view_of(worker(1, 5), waiting=(JobStatus(6, "Script('x')", 0.25, None),))).split("\n")
    at = next(number for number, line in enumerate(lines) if "SELECT 5" in line)
    assert lines[at + 1].split() == ["queued", "250", "ms", "6", "Script('x')"]


def test_the_write_lock_has_a_line():
    writer = worker(2, 9, role="writer")
    held = view_of(writer, writing="Query('UPDATE t')", writing_id=9)
    assert "write lock job 9 UPDATE t" in shown(held)
    waits = view_of(worker(2, 9, role="writer", waits_for_lock=True))
    assert "write lock another connection has it; worker 2, job 9, waits" in shown(waits)
    assert "waits for a lock: SELECT 9" in shown(waits)
    assert "write lock no job of this crew has it" in shown(view_of(worker(2, role="writer")))
    assert "write lock" not in shown(view_of(worker(2)))


def test_rates_and_times_count_the_last_seconds():
    view = view_of(submitted=1000, answered=1000, run=Durations(1000, 9, 9, 9, 9), run_counts=(1000,))
    assert "jobs -/s" in shown(view)
    view.take(status(submitted=1050, answered=1040, failed=10, run_counts=(1050,), run=NONE), 10.0)
    assert "jobs 5.0/s" in shown(view)
    assert "run p50 0.00 ms" in shown(view)
    assert "errors 10" in shown(view)
    for now in range(11, 40):
        view.take(status(submitted=1050, answered=1050, run_counts=(1050,)), now)
    assert "jobs 0.0/s" in shown(view)
    assert "run p50 - " in shown(view)


def test_a_suspended_crew_says_why():
    assert "suspended  no such file" in shown(view_of(state="suspended", cause="no such file"))


def test_a_program_that_does_not_answer_is_named_until_it_does():
    view = view_of(worker(1))
    view.trouble = "the program does not answer"
    assert shown(view).endswith("the program does not answer")
    view.take(status(worker(1)), 1.0)
    assert shown(view).endswith("? help")


def test_no_text_of_a_crew_reaches_the_terminal_as_it_is():
    hostile = "a\x1b[31mb\nc\x07d\u202ee\x9b"
    facts = {"writing": hostile, "cause": hostile, "state": hostile, "database": hostile}
    hostile_worker = WorkerStatus(1, hostile, hostile, 1.0, role=hostile, jobs=(5,))
    view = View(hostile)
    view.take(status(hostile_worker, waiting=(JobStatus(6, hostile, 1, hostile),), **facts), 0.0)
    view.message = hostile
    for width in (40, 120):
        assert all(line.plain.isprintable() for line in view.lines(width, 24))
    view.message, view.trouble = "", hostile
    assert all(line.plain.isprintable() for line in view.lines(80, 24))


# --- selecting ----------------------------------------------------------------------------


def test_the_selection_moves_and_stops_at_both_ends():
    view = view_of(*(worker(number) for number in range(1, 4)))
    assert selected(view).startswith("1 ")
    for key, number in (("up", 1), ("down", 2), ("down", 3), ("down", 3), ("home", 1), ("end", 3), ("page up", 1)):
        view.press(key)
        assert selected(view).startswith(f"{number} ")


def test_many_workers_scroll_with_the_selection():
    view = view_of(*(worker(number) for number in range(1, 65)))
    assert "0 lines above" in shown(view)
    for number in range(1, 65):
        assert selected(view).startswith(f"{number} ")
        view.press("down")
    assert "0 below" in shown(view)
    view.press("page up")
    assert selected(view).startswith("48 ")
    view.press("home")
    assert selected(view).startswith("1 ")
    assert selected(view, height=8).startswith("1 ")


def test_the_selection_follows_its_worker():
    view = view_of(worker(1), worker(2), worker(3))
    view.press("down")
    view.take(status(worker(2), worker(3), worker(4)), 1.0)
    assert selected(view).startswith("2 ")
    view.take(status(worker(3), worker(4)), 2.0)
    assert selected(view).startswith("3 ")
    view.take(status(), 3.0)
    assert "STATEMENT" in shown(view)
    view.press("down")
    assert view.press("c") is None
    view.take(status(worker(9)), 4.0)
    assert selected(view).startswith("9 ")


# --- keys ---------------------------------------------------------------------------------


def test_c_cancels_the_job_that_is_shown():
    view = view_of(worker(1, 17), worker(2), waiting=(JobStatus(21, "Query('x')", 1, None),))
    assert view.press("c") == Cancel(17)
    view.press("down")
    assert view.press("c") is None
    assert shown(view).endswith("the selected worker has no job")
    view.press("down")
    assert view.press("c") == Cancel(21)


@pytest.mark.parametrize("key", ["n", "q", "escape", "c", "k", "down"])
def test_k_kills_only_after_a_yes(key):
    view = view_of(worker(1, 17, pid=4711))
    assert view.press("k") is None
    assert shown(view).endswith("kill worker 1? y / n  process 4711  its job is 17")
    assert shown(view, 40).split("\n")[-1].startswith("kill worker 1? y / n")
    assert view.press(key) is None
    assert shown(view).endswith("worker 1 lives on")
    view.press("k")
    assert view.press("y") == Kill(1)


def test_the_question_is_about_the_worker_that_was_selected():
    view = view_of(worker(1), worker(2))
    view.press("k")
    view.take(status(worker(2)), 1.0)
    assert view.press("y") == Kill(1)


def test_a_waiting_job_has_no_worker_to_kill():
    view = view_of(waiting=(JobStatus(21, "Query('x')", 1, None),))
    assert view.press("k") is None
    assert "has no worker" in shown(view)
    assert view.press("y") is None


def test_quit_works_from_everywhere():
    for before in ("", "k", "?"):
        view = view_of(worker(1))
        if before:
            view.press(before)
        assert view.press("quit") == Quit()
    assert view_of().press("q") == Quit()


def test_help_names_every_key_and_goes_at_the_next_key():
    view = view_of(worker(1))
    view.press("?")
    text = shown(view)
    assert all(word in text for word in ("cancel the job", "kill the worker", "quit", "select a line"))
    assert view.press("c") is None
    assert "STATEMENT" in shown(view)


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        ("\x1b[Bc\x1b[A\x1bOBq", ["down", "c", "up", "down", "q"]),
        ("\x1b[5~\x1b[6~\x1b[H\x1b[F", ["page up", "page down", "home", "end"]),
        ("\x1b", ["escape"]),
        ("\x1b[1;5Ck\x03", ["", "k", "quit"]),
        ("\x1bxq", ["", "q"]),
        ("ä?", ["Ã", "¤", "?"]),
    ],
)
def test_keys_come_one_by_one(typed, keys):
    reader, writer = os.pipe()
    with open(reader, "rb", 0), open(writer, "wb", 0) as keyboard:
        keyboard.write(typed.encode())
        assert [Keyboard(reader).key(0.0) for _ in keys] == keys
        assert Keyboard(reader).key(0.0) is None


def test_a_key_takes_no_byte_behind_it():
    reader, writer = os.pipe()
    with open(reader, "rb", 0) as terminal, open(writer, "wb", 0) as keyboard:
        keyboard.write(b"qselect 1")
        assert Keyboard(reader).key(0.0) == "q"
        assert terminal.read(100) == b"select 1"


def test_a_terminal_that_is_gone_has_no_keys():
    reader, writer = os.pipe()
    os.close(writer)
    with open(reader, "rb", 0), pytest.raises(EOFError):
        Keyboard(reader).key(0.0)
