"""Connections in child processes: both ends of the pipes."""
