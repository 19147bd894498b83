"""Answers of a crew as JSON of the real FastAPI: rows become objects, or there is an error."""

import asyncio

import pytest

fastapi = pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
pydantic = pytest.importorskip("pydantic")

from supervisor import Query, Script, Supervisor  # noqa: E402  # the packages above may be missing

SETUP = "CREATE TABLE books (title TEXT, pages INTEGER); INSERT INTO books VALUES ('Emma', 474), ('Dracula', 418)"
BOOKS = "SELECT title, pages FROM books ORDER BY pages"
WANTED = [{"title": "Dracula", "pages": 418}, {"title": "Emma", "pages": 474}]


class Book(pydantic.BaseModel):
    title: str
    pages: int


def answer(sql, convert, **options):
    """Return the JSON of an endpoint that asks a crew and converts the result with `convert`."""
    app = fastapi.FastAPI()

    async def main():
        async with Supervisor.start() as db:
            await db.ask(Script(SETUP), block=False)

            @app.get("/", **options)
            async def endpoint():
                return convert(await db.ask(Query(sql), block=False))

            transport = httpx.ASGITransport(app=app)  # it passes on the exceptions of the app
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return (await client.get("/")).json()

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("convert", "wanted"),
    [
        (lambda result: result.dicts(), WANTED),
        (lambda result: [dict(row) for row in result], WANTED),
        (lambda result: {"books": result.dicts()}, {"books": WANTED}),
        (lambda result: dict(result[0]), WANTED[0]),
        (lambda result: result[0].asdict(), WANTED[0]),
        (lambda result: result.column("title"), ["Dracula", "Emma"]),
        (lambda result: dict(result.rows), {"Dracula": 418, "Emma": 474}),
    ],
)
def test_dictionaries_become_objects(convert, wanted):
    assert answer(BOOKS, convert) == wanted


@pytest.mark.parametrize("convert", [lambda result: result, list, lambda result: result.dicts()])
def test_a_model_takes_its_fields_from_the_rows_by_their_names(convert):
    assert answer(f"SELECT pages, title, 5 AS more FROM ({BOOKS})", convert, response_model=list[Book]) == WANTED


def test_a_model_takes_its_fields_from_one_row():
    assert answer(BOOKS, lambda result: result.first(), response_model=Book) == WANTED[0]


@pytest.mark.parametrize(
    "sql",
    [BOOKS, "SELECT 1, 2, 3", "SELECT title FROM books", f"{BOOKS} LIMIT 0", "DELETE FROM books"],
    ids=["two columns", "three columns", "one column", "no rows", "no columns"],
)
@pytest.mark.parametrize(
    "convert",
    [lambda result: result, lambda result: [result], lambda result: {"books": result}],
    ids=["itself", "in a list", "in a dictionary"],
)
def test_a_result_itself_is_an_error_that_names_the_remedy(sql, convert):
    with pytest.raises(ValueError, match=r"write result\.dicts\(\) for JSON"):
        answer(sql, convert)


def test_a_row_itself_is_an_array_like_every_tuple():
    assert answer(BOOKS, lambda result: result[0]) == ["Dracula", 418]
