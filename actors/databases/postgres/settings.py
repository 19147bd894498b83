"""DriverSettings: the function of a `Call` may change psycopg's connection object."""

from typing import Any, Final

import psycopg
from psycopg.adapt import AdaptersMap

__all__ = ["DriverSettings"]

_NAMES: Final = ("row_factory", "cursor_factory", "server_cursor_factory", "prepare_threshold", "prepared_max")
_HANDLERS: Final = ("_notice_handlers", "_notify_handlers")


class DriverSettings:
    """A connection object's settings before `on_connect`. `DISCARD ALL` resets none of them."""

    def __init__(self, driver: "psycopg.Connection[Any]") -> None:
        self._driver = driver
        self._values = {name: getattr(driver, name) for name in _NAMES}
        self._handlers = {name: list(getattr(driver, name)) for name in _HANDLERS}
        self._adapters = AdaptersMap(driver.adapters)

    def detached_adapters(self) -> AdaptersMap:
        """Return the adapters as they are now. The function of a later `Call` gets a copy."""
        adapters = self._driver.adapters
        self._driver._adapters = AdaptersMap(adapters)
        return adapters

    def restore(self) -> None:
        """Restore the settings, and drop the notifications that no one has read."""
        driver = self._driver
        for name, value in self._values.items():
            setattr(driver, name, value)
        for name, handlers in self._handlers.items():
            setattr(driver, name, list(handlers))
        driver._adapters = AdaptersMap(self._adapters)
        backlog = getattr(driver, "_notifies_backlog", None)  # the first releases of psycopg 3.2 lack it
        if backlog:
            backlog.clear()
