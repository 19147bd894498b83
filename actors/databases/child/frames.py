"""The format of frames, and the values that both ends of the pipes share.

A frame is a head (see `HEAD`) and a body. `requests_codec` makes the bodies of requests,
`results_codec` makes the bodies of results and errors, and `claims` makes tokens.
"""

import os
import struct
from typing import Final

__all__ = [
    "ANSWERS",
    "BESIDE",
    "COUNT",
    "DONE",
    "ERROR",
    "FAILED",
    "FEW",
    "FIRST_BYTE",
    "FLUSH",
    "HEAD",
    "JOBS",
    "LARGE",
    "LOST",
    "MAGIC",
    "OUT_OF_MEMORY",
    "PICKLED",
    "READY",
    "RESULT",
    "RETURNED",
    "ROWS",
    "RUNNING_JOB",
    "SPECIFICATION",
    "STEP",
    "TICKET",
    "WAITS",
    "frame",
    "write",
]

HEAD: Final = struct.Struct("<HQQBf")
"""The head of a frame: `MAGIC`; the length of the body in bytes; the ticket of the job, or of the
first of several jobs; the kind; the seconds that the job ran, or the number of jobs."""
MAGIC: Final = 0xC3B5
"""The first bytes of each frame. They show when foreign bytes are in the pipes."""
FIRST_BYTE: Final = MAGIC & 0xFF
"""The first byte of each frame."""

SPECIFICATION, JOBS, STEP = range(3)
"""Kinds of frames to a child: the specification of the database; jobs, with consecutive tickets,
each with a token; a step of a job that has begun. A step is never taken back, so it has no
token."""
ANSWERS, DONE, RESULT, ROWS, PICKLED, BESIDE, ERROR, LOST, READY, FAILED, WAITS, RETURNED = range(12)
"""Kinds of frames from a child:

* ANSWERS: small results of several jobs. DONE: the same, and no job of the frame is left.
* RESULT: a whole result, or its end. ROWS: rows that come before it. PICKLED: a pickled answer.
* BESIDE: a pickled answer, whose large buffers came another way. Its first bytes are their number.
* ERROR: the error of a statement. LOST: the error after which the connection is of no more use.
* READY: the connection is open. FAILED: why it could not be opened. WAITS: a job waits for a lock.
* RETURNED: tickets of jobs that were claimed here, and will not run here. They did nothing, or only
  read.
"""

COUNT: Final = struct.Struct("<I")
"""How many buffers of an answer came another way: the first bytes of BESIDE."""
TICKET: Final = struct.Struct("<Q")
"""The control pipe carries the ticket of the job to interrupt, or one of the next two values."""
RUNNING_JOB: Final = 0
"""Interrupt the job that runs now. No job has this ticket."""
FLUSH: Final = (1 << 64) - 1
"""Send the answers that are there."""
OUT_OF_MEMORY: Final = 70
"""The exit code of a child that found no memory to say so."""

LARGE: Final = 1 << 16
"""Bytes. A larger body is not copied on its way."""
FEW: Final = 256
"""Rows. A result with no more rows is not measured, and travels in one frame."""


def frame(kind: int, ticket: int, body: bytes, seconds: float = 0.0) -> bytes:
    """Return a frame."""
    return HEAD.pack(MAGIC, len(body), ticket, kind, seconds) + body


def write(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data` to a descriptor that blocks."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])
