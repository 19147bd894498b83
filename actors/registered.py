"""RegisteredRef: the reference to a crew that Pykka's registry holds."""

from typing import Any

from actors.ref import SupervisorRef
from actors.system.log import log
from actors.system.pykka_parts import ActorStop
from actors.values.requests import can_be_told

__all__ = ["RegisteredRef"]


class RegisteredRef(SupervisorRef):
    """The reference in Pykka's registry. Unlike others, it does not keep the crew running.

    `ActorRegistry.broadcast` tells every actor any message. So `tell` ignores all messages but
    requests.
    """

    def tell(self, message: Any) -> None:
        """Hand `message` to the crew if it is a request. Ignore other messages."""
        if can_be_told(message) or isinstance(message, ActorStop):
            super().tell(message)
        else:
            log(__name__, "debug", "message_ignored", crew=self._dispatcher.name, type=type(message).__name__)
