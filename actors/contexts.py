"""Context variables: a caller's code runs in a copy of the context in which it was handed over."""

from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from actors.frozen import store
from actors.messages import Call

__all__ = ["InContext", "in_context"]

F = TypeVar("F", bound=Callable[..., Any])


class InContext:
    """A function that runs in a copy of the context in which this was made, as `asyncio.to_thread` has it.

    Once at a time. A context cannot be sent to another process: there the function arrives alone.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._run = copy_context().run

    def __call__(self, *args: Any) -> Any:
        """Call the function; it cannot call itself so."""
        return self._run(self._function, *args)

    def __getattr__(self, name: str) -> Any:
        if name != "__qualname__":
            raise AttributeError(name)
        function = self._function  # it is named in errors and logs
        return getattr(function, name, type(function).__qualname__)

    def __reduce__(self) -> tuple[Any, ...]:
        return _alone, (self._function,)


def _alone(function: F) -> F:
    return function


def in_context(request: Call[Any]) -> Call[Any]:
    """Return the same request, whose function runs in a copy of the present context."""
    function = InContext(request.function)
    store(function, "__module__", getattr(request.function, "__module__", None))
    copy = object.__new__(type(request))
    for name in request._fields:
        store(copy, name, getattr(request, name))
    store(copy, "function", function)
    return copy
