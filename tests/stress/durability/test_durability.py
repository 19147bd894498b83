"""A short campaign of kill -9, and a proof that a long campaign would notice each kind of error."""

import apsw
import pytest

from tests.stress.durability.campaign import Findings, _look, run


def test_an_acknowledged_row_is_in_the_file_after_any_kill(tmp_path):
    findings = run(tmp_path, 40, 1)
    assert not findings.broken, findings.table()
    assert findings.children_killed >= 40
    assert findings.programs_killed > 0
    assert findings.told["acknowledged"] > 100
    assert findings.told["unknown"] > 0, "none was killed in the middle of a write"


def looked_at(folder, journal, *rows):
    """Return the findings for this journal and a file with these rows."""
    connection = apsw.Connection(str(folder / "campaign.db"))
    connection.execute("CREATE TABLE written(number INTEGER, part INTEGER)")
    connection.executemany("INSERT INTO written VALUES (?, ?)", rows)
    connection.close()
    (folder / "journal").write_text("".join(f"{line}\n" for line in journal))
    findings = Findings(1)
    _look(folder / "campaign.db", [folder / "journal"], findings)
    return findings


@pytest.mark.parametrize(
    ("journal", "rows", "broken"),
    [
        (["asked 1", "acknowledged 1", "asked 2", "denied 2", "asked 3", "unknown 3"], [(1, 0)], {}),
        (["asked 1", "acknowledged 1"], [], {"lost": [1]}),
        (["asked 1", "acknowledged 1"], [(1, 0), (1, 0)], {"twice": [1]}),
        (["asked 1", "denied 1"], [(1, 0)], {"not_undone": [1]}),
        (["asked 5", "unknown 5"], [(5, 1)], {"halves": [5]}),
        (["asked 5", "acknowledged 5", "killed 77"], [(5, 0), (5, 1)], {}),
    ],
)
def test_each_error_is_found(tmp_path, journal, rows, broken):
    assert looked_at(tmp_path, journal, *rows).broken == broken
