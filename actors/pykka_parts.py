"""The private parts of Pykka on which the crew is built. No other module names one.

`tests/test_facts_pykka.py` holds how they behave, and `pyproject.toml` bounds the version.
"""

from typing import Any

import pykka
from pykka._envelope import Envelope
from pykka.messages import _ActorStop as ActorStop

__all__ = ["ActorStop", "Envelope", "is_settled", "strike_off"]


def is_settled(future: pykka.Future[Any]) -> bool:
    """Say whether a future of Pykka's own has its answer; `False` where only waiting can tell."""
    return getattr(future, "_result", None) is not None


def strike_off(actor_urn: str) -> None:
    """Take an actor out of the registry, without the lock: after a fork nobody may be there to release it."""
    refs = pykka.ActorRegistry._actor_refs
    refs[:] = [ref for ref in refs if ref.actor_urn != actor_urn]
