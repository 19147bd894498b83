"""The ground of the crew: threads, event loops, the end and the fork of a process, and Pykka."""
