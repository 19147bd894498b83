"""The whole crew on a real file: asking and being answered."""

from supervisor import Query, Script


def test_a_query_is_answered_with_its_rows(start, path):
    db = start(path, size=2)
    db.ask(Script("CREATE TABLE users(name, age); INSERT INTO users VALUES ('ann', 31), ('bob', 22)"))
    rows = db.ask(Query("SELECT name, age FROM users WHERE age > ?", (30,)))
    assert rows[0]["name"] == rows[0].name == rows[0][0] == "ann"
    assert rows.dicts() == [{"name": "ann", "age": 31}]
