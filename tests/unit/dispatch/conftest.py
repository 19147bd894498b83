"""Fixtures of all tests of the dispatcher."""

import pytest

from actors.databases import executor


@pytest.fixture(autouse=True)
def _wait_for_no_thread_that_was_killed(monkeypatch):
    """Shorten the wait of a batch for interrupts, since these tests kill interrupting threads."""
    monkeypatch.setattr(executor, "_LONGEST_INTERRUPT", 0.02)
