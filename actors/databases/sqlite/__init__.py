"""SQLite: the embedded default, by APSW."""
