"""Replies: what a caller waits for, and what it does with a worker that it has checked out."""
