"""Claims of the jobs that lie with a child: tokens in a pipe from which both processes read.

A token is four bytes. The parent writes the token of each job that it sends. The child draws a
token to begin the job; the parent draws a token to take the job back. **The process that draws the
token of a job has claimed the job.** The kernel decides between the two, even while the child is
stopped or dead. A step has no token: no thread may take a step back.
"""

import os
import struct
from typing import Final

__all__ = ["TOKEN", "Claims", "token_of", "tokens_in", "tokens_of"]

TOKEN: Final = struct.Struct("<I")
"""The last four bytes of a ticket: they claim the job."""


def token_of(ticket: int) -> int:
    """Return the token of the job with this ticket."""
    return ticket & 0xFFFFFFFF


def tokens_of(ticket: int, count: int) -> bytes:
    """Return the tokens of so many jobs, of which the first has this ticket."""
    return struct.pack(f"<{count}I", *(number & 0xFFFFFFFF for number in range(ticket, ticket + count)))


def tokens_in(drawn: bytes) -> list[int]:
    """Return the tokens that were drawn from the pipe, the oldest first."""
    return [token for (token,) in TOKEN.iter_unpack(drawn)]


class Claims:
    """The child's end of the pipe of tokens.

    The child draws one token at a time. So of the jobs that it has drawn, only the last job can be
    running. One thread uses it.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        # A token that was drawn and belongs to the next frame.
        self._drawn: int | None = None

    def grant(self, ticket: int) -> None:
        """Let the next draw return the step with this ticket, which has no token in the pipe."""
        self._drawn = token_of(ticket)

    def draw(self, first: int, count: int) -> int | None:
        """Draw a token of a frame, and return its number there; `None` if none is left.

        Args:
            first: the frame's first ticket.
            count: how many jobs it has.
        """
        if self._drawn is None:
            try:
                drawn = os.read(self._pipe, TOKEN.size)
            except BlockingIOError:
                return None
            if not drawn:
                return None
            (self._drawn,) = TOKEN.unpack(drawn)
        number: int = (self._drawn - first) & 0xFFFFFFFF
        if number >= count:
            return None  # it belongs to the next frame
        self._drawn = None
        return number
