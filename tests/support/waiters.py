"""Helpers for the tests of replies: threads that wait, and threads that belong to a crew."""

import threading
from contextlib import contextmanager

from actors.system.waiting import this_thread
from tests.conftest import eventually


@contextmanager
def waiter(function):
    """Run `function` in a thread.

    The list that is yielded holds the outcome of the function once the thread has ended.
    """
    outcome = []

    def run():
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield outcome
    thread.join(10)
    assert not thread.is_alive()


@contextmanager
def on_a_thread_of(crew):
    this_thread.crew = crew
    try:
        yield
    finally:
        this_thread.crew = None


def is_waited_for(reply, by=1):
    return eventually(lambda: len(reply._waiters) == by)
