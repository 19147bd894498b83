"""Context variables: a function of a caller runs in a copy of the caller's context."""

from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from actors.values.record import store
from actors.values.requests import Call, unbound

__all__ = ["InContext", "in_context"]

F = TypeVar("F", bound=Callable[..., Any])


class InContext:
    """A function, and a copy of the context in which this object was made.

    The function runs in that context, as a function of `asyncio.to_thread` does. Only one call may
    run at a time. A context cannot be sent to another process, so pickle sends the function alone.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._run = copy_context().run

    def __call__(self, *args: Any) -> Any:
        """Call the function in the context. The function must not call this object."""
        return self._run(self._function, *args)

    def __getattr__(self, name: str) -> Any:
        if name != "__qualname__":
            raise AttributeError(name)
        function = unbound(self._function)  # errors and logs show the name
        return getattr(function, name, type(function).__qualname__)

    def __reduce__(self) -> tuple[Any, ...]:
        return _alone, (self._function,)


def _alone(function: F) -> F:
    return function


def in_context(request: Call[Any]) -> Call[Any]:
    """Return a copy of `request` whose function runs in a copy of the current context."""
    function = InContext(request.function)
    store(function, "__module__", getattr(unbound(request.function), "__module__", None))
    copy = object.__new__(type(request))
    for name in request._fields:
        store(copy, name, getattr(request, name))
    store(copy, "function", function)
    return copy
