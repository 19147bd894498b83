"""RegisteredRef: what a supervisor and Pykka's registry hold of a crew."""

from typing import Any

from actors.log import log
from actors.messages import can_be_told
from actors.pykka_parts import ActorStop
from actors.ref import SupervisorRef

__all__ = ["RegisteredRef"]


class RegisteredRef(SupervisorRef):
    """A reference that keeps no crew running: who finds it in Pykka's registry can use it as the one of `start`.

    A broadcast is for all actors, so `tell` ignores what is no request.
    """

    def tell(self, message: Any) -> None:
        """Hand `message` to the crew, if it is a request, and forget it; an error is logged."""
        if can_be_told(message) or isinstance(message, ActorStop):
            super().tell(message)
        else:
            log(__name__, "debug", "message_ignored", crew=self._dispatcher.name, type=type(message).__name__)
