"""Dispatch: the jobs that wait, the workers that are idle, and how they meet."""
