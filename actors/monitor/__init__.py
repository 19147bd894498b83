"""A crew offers itself to other processes of the same user, by a Unix socket."""
