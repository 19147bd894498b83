"""KillSwitch: the way in which the demo's worker dies."""

from typing import Any, Self

import apsw

__all__ = ["KillSwitch"]


class KillSwitch:
    """The SQL function `anagrams(a, b)`, which kills the thread that calls it once it is `told` to.

    While it is entered, every connection that opens in this process has the function. No thread can
    be killed from outside in the middle of a statement; a SystemExit from inside is a real death,
    and what a library does that calls `sys.exit()`.
    """

    def __init__(self) -> None:
        self.told = False

    def __enter__(self) -> Self:
        apsw.connection_hooks.append(self._register)
        return self

    def __exit__(self, *_: object) -> None:
        apsw.connection_hooks.remove(self._register)

    def _register(self, connection: apsw.Connection) -> None:
        connection.create_scalar_function("anagrams", self._anagrams, 2, deterministic=True)

    def _anagrams(self, *names: Any) -> bool:
        if self.told:
            message = "killed by the demo"
            raise SystemExit(message)
        return sorted(names[0]) == sorted(names[1])
