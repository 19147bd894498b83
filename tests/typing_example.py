"""Checked by mypy only: what a user's own type checker infers."""
