"""Replies: a caller waits for them, or uses a worker that it has checked out."""
