"""The private parts of Pykka that the crew uses. No other module uses a private part.

`tests/facts/test_facts_pykka.py` pins their behaviour, and `pyproject.toml` bounds the version.
"""

from typing import Any

import pykka
from pykka._envelope import Envelope
from pykka.messages import _ActorStop as ActorStop

__all__ = ["ActorStop", "Envelope", "is_settled", "strike_off"]


def is_settled(future: pykka.Future[Any]) -> bool:
    """Say whether a `pykka.ThreadingFuture` has its answer. `False` for other kinds of futures."""
    return getattr(future, "_result", None) is not None


def strike_off(actor_urn: str) -> None:
    """Remove an actor from the registry without taking the registry's lock.

    After a fork, a thread of the parent may hold the lock for ever.
    """
    refs = pykka.ActorRegistry._actor_refs
    refs[:] = [ref for ref in refs if ref.actor_urn != actor_urn]
