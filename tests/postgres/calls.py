"""Functions for a `Call`, which a child process can import."""

from typing import Any

__all__ = ["insert_by_call"]


def insert_by_call(driver: Any, number: int) -> int:
    """Insert a number into the ledger; return the number."""
    driver.execute("INSERT INTO ledger(number) VALUES (%s)", (number,))
    return number
