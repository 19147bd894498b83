"""The crew against one plain connection: the same statements give the same answers and the same database."""
