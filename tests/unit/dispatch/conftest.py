"""For all tests of the dispatcher."""

import pytest

from actors.databases import executor


@pytest.fixture(autouse=True)
def _wait_for_no_thread_that_was_killed(monkeypatch):
    """Let a batch wait for a short time only for interrupts whose threads these tests kill."""
    monkeypatch.setattr(executor, "_LONGEST_INTERRUPT", 0.02)
