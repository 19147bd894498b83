"""KillSwitch: kills a worker of the demo."""

from typing import Any, Self

import apsw

__all__ = ["KillSwitch"]


class KillSwitch:
    """The SQL function `anagrams(a, b)`. Once the switch is on, it kills the thread that calls it.

    While the switch is entered, every connection that opens in this process has the function. No
    thread can be killed from outside in the middle of a statement. A `SystemExit` from inside is a
    real death: it also comes from a library that calls `sys.exit()`.
    """

    def __init__(self) -> None:
        self.is_on = False
        """Whether the next call kills its thread."""

    def __enter__(self) -> Self:
        apsw.connection_hooks.append(self._register)
        return self

    def __exit__(self, *_: object) -> None:
        apsw.connection_hooks.remove(self._register)

    def _register(self, connection: apsw.Connection) -> None:
        connection.create_scalar_function("anagrams", self._anagrams, 2, deterministic=True)

    def _anagrams(self, *names: Any) -> bool:
        if self.is_on:
            message = "killed by the demo"
            raise SystemExit(message)
        return sorted(names[0]) == sorted(names[1])
