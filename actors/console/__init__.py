"""The command `querycrew`."""
