"""No password appears in a repr, a log, an error or a status."""

import logging
import pickle
import traceback

import pytest

from supervisor import ChildProcess, DatabaseUnavailable, PostgreSQL, Query, Status
from tests.conftest import eventually
from tests.support.common import error_of

SECRET = "s3cr3t-Pass"


def everything(error):
    """Return all texts of an error and of the errors behind it, however they are linked."""
    found, seen = [], set()
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        found.append(repr(each) + str(each) + "".join(getattr(each, "__notes__", ())) + repr(each.args))
        waiting += [each.__cause__, each.__context__]
    return "".join(found) + "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://ann:{SECRET}%zz@host/db",
        f"postgresql://ann:{SECRET}@[host/db",
        f"postgresql://ann:{SECRET}@host:port:5/db?x",
        f"password={SECRET} nonsense",
        f"host=a password='{SECRET}",
        f"postgresql://ann@host/db?sslpassword={SECRET}&nonsense=1",
        f"mysql://ann:{SECRET}@host/db",
    ],
)
def test_a_malformed_uri_is_not_quoted(uri):
    with pytest.raises(ValueError, match="no URI of PostgreSQL") as caught:
        PostgreSQL(uri)
    assert SECRET not in everything(caught.value)


@pytest.mark.parametrize("options", [{"nonsense": SECRET}, {"password": SECRET, "nonsense": 1}])
def test_an_unknown_option_is_named_and_its_value_is_not(options):
    with pytest.raises(TypeError, match="nonsense") as caught:
        PostgreSQL(**options)
    assert SECRET not in everything(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://ann:my@{SECRET}@host/db",
        f"postgres://ann:my/{SECRET}@host/db",
        f"postgresql://ann:{SECRET}/my@host:1/db?user=ann",
        f"postgresql://ann:5432/@{SECRET}@host",
    ],
)
def test_a_password_that_libpq_would_cut_in_two_is_refused(uri):
    with pytest.raises(ValueError, match="%40 for @") as caught:
        PostgreSQL(uri)
    assert SECRET not in everything(caught.value)


def test_escaped_characters_belong_to_their_part():
    database = PostgreSQL("postgresql://an%40n:p%2F%40w@%2Ftmp/db%40x?application_name=a@b/c")
    assert database.options["password"] == "p/@w"
    assert str(database) == "PostgreSQL('db@x' on /tmp)"


def test_a_uri_in_the_place_of_a_name_is_refused():
    with pytest.raises(ValueError, match="dbname") as caught:
        PostgreSQL(dbname=f"postgresql://ann:{SECRET}@host/db")
    assert SECRET not in everything(caught.value)


def test_a_database_shows_no_password():
    for database in (
        PostgreSQL(f"postgresql://ann:{SECRET}@host:5433/app"),
        PostgreSQL("postgresql://ann@host/app", password=SECRET, sslpassword=SECRET),
        PostgreSQL(f"host=host dbname=app password={SECRET}"),
    ):
        for each in (database, ChildProcess(database)):
            assert SECRET not in f"{each} {each!r} {each.name}"
            assert "app" in str(each)
            assert pickle.loads(pickle.dumps(each)) == each
        assert database.conninfo()["password"] == SECRET


@pytest.fixture
def guarded(victim):
    """The URI of a role that has a password."""
    rules = victim.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    victim.run("DROP ROLE IF EXISTS guarded")
    victim.run(f"CREATE ROLE guarded LOGIN PASSWORD '{SECRET}'")
    rules.write_text("local all guarded scram-sha-256\n" + before)
    victim.run("SELECT pg_reload_conf()")
    yield victim.uri.replace("postgres:@", f"guarded:{SECRET}@")
    rules.write_text(before)
    victim.run("SELECT pg_reload_conf()")


@pytest.mark.parametrize("wrap", [lambda database: database, ChildProcess], ids=["plain", "child"])
def test_a_wrong_password_is_reported_and_not_shown(start, victim, guarded, caplog, wrap):
    caplog.set_level(logging.DEBUG)
    wrong = f"{SECRET}-wrong"
    db = start(wrap(PostgreSQL(guarded, password=wrong)), size=1)
    refused = "password authentication failed"
    assert eventually(
        lambda: refused in str(getattr(db.ask(Query("SELECT 1"), block=False).exception(10), "__cause__", ""))
    )
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert error.executed is False
    status = db.ask(Status())
    seen = everything(error) + f"{db!r} {db} {status!r} {status}" + caplog.text
    assert SECRET not in seen
    assert refused in caplog.text


def test_a_right_password_is_shown_nowhere_either(start, victim, guarded, caplog):
    caplog.set_level(logging.DEBUG)
    db = start(PostgreSQL(guarded), size=1)
    assert db.ask(Query("SELECT current_user")).scalar() == "guarded"
    error = error_of(db.ask(Query("SELECT %s::integer", (SECRET,)), block=False))
    assert SECRET not in repr(db.ask(Status()))
    assert SECRET not in caplog.text
    victim.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guarded'")
    lost = error_of(db.ask(Query("SELECT pg_terminate_backend(pg_backend_pid())"), block=False))
    assert SECRET not in everything(lost) + caplog.text + repr(db)
    assert error is not None


def test_the_tests_of_secrets_can_fail():
    error = ValueError("x")
    error.__context__ = KeyError(SECRET)
    assert SECRET in everything(error)
