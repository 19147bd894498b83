"""Functions for `Call` on a DuckDB connection."""

import duckdb
import pyarrow as pa


def say_who(connection):
    connection.execute("SET VARIABLE who = 'me'")


def fatal(connection):
    raise duckdb.FatalException("the instance is broken")


def internal(connection):
    raise duckdb.InternalException("the instance is broken")


def close_it(connection):
    connection.close()


def make_temporary(connection):
    connection.execute("CREATE TEMP TABLE own(n INTEGER)")


def register(connection):
    connection.register("frame", pa.table({"n": [1]}))


def read_own_variable(connection):
    own = pa.table({"n": [1, 2]})
    assert own.num_rows == 2
    return connection.execute("SELECT n FROM own").fetchall()


def insert_and_swallow(connection):
    connection.execute("INSERT INTO kept VALUES (3)")
    try:
        connection.execute("INSERT INTO kept VALUES (1)")
    except duckdb.ConstraintException:
        return "all is well"


def insert_and_commit(connection):
    connection.execute("INSERT INTO kept VALUES (3)")
    connection.execute("COMMIT")


def return_connection(connection):
    return connection


def return_relation(connection):
    return [connection.sql("SELECT 1")]
