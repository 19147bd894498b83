"""A failure of the command: one line on standard error, and the exit code."""

import sys

__all__ = ["fail"]


def fail(message: str) -> int:
    """Write why the command has failed, and return its exit code."""
    print(f"querycrew: error: {message}", file=sys.stderr)
    return 1
