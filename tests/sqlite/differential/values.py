"""Values of all types, as parameters and as literals."""

import math
from typing import Any

SMALL: tuple[Any, ...] = (0, 1, 2, 3, 1, 2, "a", "b", None)
INTEGERS = (-1, 7, 100, 2**31, 2**53 + 1, 2**63 - 1, -(2**63))
FLOATS = (0.5, -0.0, 3.0, 1e308, math.inf, -math.inf, 5e-324, 0.1)
TEXTS = (
    *("", "A", "it's", "1", "1.0", " 2 ", "0x1F", "null", "a b one", "é", "e\u0301", "\U0001f600", "\U00010000"),
    *("a\0b", "\0", "\ufffd\ufeff", "\uffff", "\u2028;--", "'); DROP TABLE t; --", "x" * 300),
    *('{"a": 1, "b": [1, 2, {"c": null}]}', "[1, 2, 3]", '{"a": "\\ud83d"}', "{a"),
)
BLOBS = (b"", b"\0", b"a", b"\xff\xfe", b"\xf0\x9f", b"\xed\xa0\x80", bytes(range(64)))
WRONG: tuple[Any, ...] = ("\ud800", 2**63, 1j)
"""Values that the driver refuses."""

OF_TYPE = {
    "INTEGER": (*(1, 2, 3, 0, None), *INTEGERS),
    "INT": (*(1, 2, 3, 0, None), *INTEGERS),
    "REAL": (*(1, 0.5, None), *FLOATS),
    "TEXT": ("a", "b", None, *TEXTS),
    "BLOB": (b"a", None, *BLOBS),
}


def literal(value: Any) -> str:
    """Return a value as SQL has it."""
    match value:
        case None:
            return "NULL"
        case bool() | int():
            return str(value)
        case float():
            return ("-9e999" if value < 0 else "9e999") if math.isinf(value) else repr(value)
        case bytes():
            return f"x'{value.hex()}'"
        case str():
            if "\0" in value:
                return f"CAST(x'{value.encode().hex()}' AS TEXT)"
            return "'" + value.replace("'", "''") + "'"
    raise TypeError(value)
