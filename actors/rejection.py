"""Rejection: the outcome of a reply that is no value."""

__all__ = ["Rejection"]


class Rejection:
    """The outcome of a reply that was rejected: the error, as it was when it came."""

    __slots__ = ("error", "traceback")

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.traceback = error.__traceback__
        """Each `get` raises from here; otherwise the error's own would grow with each."""
