"""DuckDB: a file, or memory, for analysis."""
