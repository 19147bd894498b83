"""The isolation level of a transaction."""

import pytest

from supervisor import ChildProcess, Query, SQLite, Supervisor, Transaction

READ = Query("SELECT 1")


@pytest.mark.parametrize("wrong", ["dirty", "", "read  committed"])
def test_an_unknown_level_is_an_error_of_the_caller(wrong):
    with pytest.raises(ValueError, match="must be one of: read uncommitted"):
        Transaction([READ], isolation=wrong)
    with Supervisor.start(":memory:") as db, pytest.raises(ValueError, match="must be one of"):
        db.transaction(isolation=wrong)


def test_a_level_is_a_text():
    with pytest.raises(TypeError, match=r"Transaction\(isolation\) must be a str, not int"):
        Transaction([READ], isolation=1)


@pytest.mark.parametrize("make", [SQLite, ChildProcess], ids=["threads", "children"])
def test_sqlite_is_serializable_and_nothing_else(make, tmp_path):
    with Supervisor.start(make(tmp_path / "a.db")) as db:
        assert db.ask(Transaction([READ], isolation="SERIALIZABLE"))[0].scalar() == 1
        with db.transaction(isolation="serializable") as tx:
            assert tx.ask(READ).scalar() == 1
        with pytest.raises(ValueError, match="every transaction of SQLite is serializable"):
            db.ask(Transaction([READ], isolation="read committed"))
        with (
            pytest.raises(ValueError, match="every transaction of SQLite is serializable"),
            db.transaction(isolation="snapshot"),
        ):
            pytest.fail("the block was entered")
        assert db.ask(READ).scalar() == 1
