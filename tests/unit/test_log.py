"""Logging never harms a crew."""

import logging
import subprocess
import sys

import pytest

from actors.system.log import log
from tests.support.common import environment

MODULE = "actors.test_log"
NAME = "querycrew.test_log"


@pytest.fixture
def logger():
    logger = logging.getLogger(NAME)
    level = logger.level
    yield logger
    logger.setLevel(level)
    logger.filters.clear()
    logger.handlers.clear()


def test_an_event_is_one_line_of_keys_and_values(caplog, logger):
    with caplog.at_level(logging.DEBUG, NAME):
        log(MODULE, "info", "worker_lost", crew="app", worker=7, cause="OSError: no disk", after=None)
    assert caplog.record_tuples == [
        (NAME, logging.INFO, "worker_lost crew='app' worker=7 cause='OSError: no disk' after=None")
    ]


def test_an_error_is_logged_by_its_class_since_its_text_may_quote_a_parameter(caplog, logger):
    log(MODULE, "error", "told_request_failed", error=ValueError("malformed JSON: hunter2"))
    assert caplog.messages == ["told_request_failed error=ValueError"]


def test_the_line_that_raised_an_error_is_logged_with_it(caplog, logger):
    try:
        int("hunter2")
    except ValueError as error:
        line = error.__traceback__.tb_lineno
        log(MODULE, "error", "callback_failed", error=error)
    assert caplog.messages == [f"callback_failed error=ValueError(test_log.py:{line})"]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_an_event_has_its_level(caplog, logger, level):
    with caplog.at_level(logging.DEBUG, NAME):
        log(MODULE, level, "happened")
    assert [record.levelname for record in caplog.records] == [level.upper()]


class Explosive:
    def __str__(self):
        raise AssertionError("no handler wants the text")


def test_a_level_that_is_off_costs_no_text(caplog, logger):
    logger.setLevel(logging.ERROR)
    log(MODULE, "info", "happened", value=Explosive())
    assert caplog.records == []


def test_a_value_that_cannot_be_shown_does_no_harm(caplog, logger):
    with caplog.at_level(logging.DEBUG, NAME):
        log(MODULE, "info", "happened", value=Explosive())
    assert caplog.records == []


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_filter_that_raises_does_no_harm(caplog, logger, error):
    calls = []

    def refuse(record):
        calls.append(record)
        raise error

    logger.addFilter(refuse)
    log(MODULE, "error", "happened")
    assert len(calls) == 1


def test_a_handler_that_raises_does_no_harm(logger):
    class Broken(logging.Handler):
        calls = 0

        def emit(self, record):
            Broken.calls += 1
            raise OSError("the disk is full")

    logger.addHandler(Broken())
    log(MODULE, "error", "happened")
    assert Broken.calls == 1


def test_percent_signs_in_a_value_stay_as_they_are(caplog, logger):
    with caplog.at_level(logging.DEBUG, NAME):
        log(MODULE, "info", "happened", sql="LIKE '%s%d'")
    assert caplog.messages == ["""happened sql="LIKE '%s%d'\""""]


@pytest.mark.parametrize(
    ("asked_for", "wanted"),
    [("", []), ("logging.basicConfig(); ", ["worker_start_failed", "suspended", "told_request"])],
)
def test_nothing_is_written_to_the_screen_unless_the_program_asks_for_it(tmp_path, asked_for, wanted):
    program = (
        f"import logging; {asked_for}from supervisor import DatabaseUnavailable, Query, Supervisor\n"
        "with Supervisor.start('none/app.db') as db:\n"
        "    db.tell(Query('SELECT 1'))\n"
        "    try: db.ask(Query('SELECT 1'))\n"
        "    except DatabaseUnavailable as error: print(error)\n"
    )
    command, options = [sys.executable, "-c", program], {"cwd": tmp_path, "env": environment(), "timeout": 60}
    done = subprocess.run(command, capture_output=True, text=True, check=True, **options)
    assert "there is no directory" in done.stdout
    assert bool(done.stderr) is bool(asked_for)
    assert [text for text in wanted if text not in done.stderr] == []
