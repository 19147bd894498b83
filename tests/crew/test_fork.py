"""After a fork, the crew refuses every request in the child, and goes on in the parent."""

import os

import pytest

from tests.support.common import run_program

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_with_jobs_pending_the_childs_replies_are_rejected_and_the_parents_go_on():
    done = run_program("forking", "pending")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["child 0"] * 21 + ["parent 101 False"]


def test_a_fork_at_any_moment_of_a_busy_crew_refuses_the_child_at_once():
    done = run_program("forking", "busy")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["child 0"] * 40


def test_locks_that_another_thread_holds_at_the_fork_do_not_hang_the_child():
    done = run_program("forking", "locked")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["child 0", "parent passed a"]


def test_the_child_does_not_touch_the_parents_connections_even_as_it_ends(path):
    done = run_program("forking", "file", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["child 0", "child 0", "check ok", "rows 3", "log left False"]


def test_a_fork_on_a_workers_own_thread_answers_in_the_parent():
    done = run_program("forking", "job")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["child 0", "answer passed"]
