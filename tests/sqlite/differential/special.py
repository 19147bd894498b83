"""Statements with errors, statements that do nothing, and statements that the crew treats apart."""

from dataclasses import replace

from tests.sqlite.differential.drawing import Draw, lines_of
from tests.sqlite.differential.statements import Statement
from tests.sqlite.differential.values import WRONG

_WRONG = lines_of("""
    SELEC 1  SELECT  SELECT (  SELECT 1 WHERE  CREATE TABLE  EXPLAIN  PRAGMA  SELECT 'and no end  SELECT "and no end
    SELECT * FROM missing  INSERT INTO missing VALUES (1)  SELECT missing FROM log  SELECT missing()  SELECT "missing"
    UPDATE log SET missing = 1  INSERT INTO log(id) VALUES ('a')  DROP TABLE sqlite_schema  SELECT id FROM log, log
    SELECT abs(-9223372036854775808)  SELECT json('{')  SELECT zeroblob(2000000000)
    SELECT CAST(x'ff' AS TEXT)  SELECT CAST(x'ff' AS TEXT), * FROM log
    INSERT INTO log(what) VALUES (1), (2) RETURNING CAST(x'ff' AS TEXT)
""")
_NOTHING = ("-- nothing", "/* nothing */", ";", " ; -- nothing\n;", "/* and no end")
_CONTROL = {
    "begin": ("BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE TRANSACTION"),
    "commit": ("COMMIT", "END", "COMMIT TRANSACTION"),
    "rollback": ("ROLLBACK", "ROLLBACK TRANSACTION"),
    "savepoint": ("SAVEPOINT s", "SAVEPOINT querycrew", "RELEASE s", "RELEASE querycrew", "ROLLBACK TO s"),
}
_AROUND = ("/* before */ {}", "-- before\n{}", "{};", "{} ; -- behind", "{} /* behind; */", "\ufeff{}", "\n\t {} \n;;")


def wrong(d: Draw) -> Statement:
    text = d.one(*_WRONG)
    return Statement(text, changes=text.startswith(("INSERT", "UPDATE")))


def nothing(d: Draw) -> Statement:
    return Statement(d.one(*_NOTHING))


def several(d: Draw) -> Statement:
    first = d.one("SELECT 1", "INSERT INTO log(what) VALUES (1)", "CREATE TABLE z(a)", "SELECT * FROM missing")
    return Statement(f"{first}; {d.one('SELECT 2', 'DELETE FROM log', 'x', 'COMMIT')}", several=True)


def control(d: Draw) -> Statement:
    kind = d.one(*_CONTROL, "savepoint")
    return Statement(d.one(*_CONTROL[kind]), control=kind)


def of_the_connection(d: Draw) -> Statement:
    """Ask the connection about the statements before."""
    if d.chance(40):
        sql = "INSERT INTO log(what, at) VALUES ('last', last_insert_rowid())"
        return Statement(sql, changes=True, target="log", into="log", sees_rowid=True)
    asked = ["last_insert_rowid()", "changes()", "changes(), last_insert_rowid()"]
    # A search index may write when a savepoint is released, and SQLite counts that.
    return Statement(f"SELECT {asked[0] if d.schema.has_virtual else d.one(*asked)}", sees_rowid=True)


def with_wrong_params(d: Draw, statement: Statement) -> Statement:
    """Give a statement too many parameters, too few, or one of a wrong type."""
    params = statement.params
    if isinstance(params, dict):
        fewer = {name: params[name] for name in list(params)[1:]}
        return replace(statement, params=fewer | d.one({}, {"other": 1}) or {"other": 1})  # none at all fits a script
    return replace(statement, params=d.one(params[1:], (*params, 1), (*params[:-1], d.one(*WRONG))))


def explained(d: Draw, statement: Statement) -> Statement:
    """Let a statement be explained instead of run."""
    sql = f"{d.one('EXPLAIN', 'EXPLAIN QUERY PLAN')} {statement.sql}"
    return Statement(sql, statement.params, kind=statement.kind, varies=True)


def decorated(d: Draw, statement: Statement) -> Statement:
    """Put comments and semicolons around a statement."""
    return replace(statement, sql=d.one(*_AROUND).replace("{}", statement.sql))
