"""The parts of a querycrew: import the public names from `supervisor`."""
