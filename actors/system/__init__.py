"""What the crew leans on: Python's threads and event loops, the end and the fork of a process, Pykka."""
