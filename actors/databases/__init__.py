"""How to reach a database: one module for each kind."""
