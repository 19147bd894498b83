"""The parts of a querycrew: import the public names from `supervisor`."""

QUERYCREW = True
"""Tells this package from another one of the same name."""
