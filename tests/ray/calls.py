"""Functions for `Call`: they run in the actor."""

from typing import Any


def free_in_store(connection: Any) -> float:
    """Return how many bytes the object store of the cluster has free."""
    del connection
    import ray

    return ray.available_resources()["object_store_memory"]


class Kept:
    """Values that stay in the actor between two jobs."""

    numbers = bytearray(200_000)


def count_up(connection: Any) -> bytearray:
    """Change a value of the actor, and return it."""
    del connection
    Kept.numbers[:] = bytes([Kept.numbers[0] + 1]) * len(Kept.numbers)
    return Kept.numbers
