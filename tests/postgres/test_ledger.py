"""The ledger in short; see `ledger.py`."""

import pytest

from tests.postgres.cancels import KINDS
from tests.postgres.ledger import Ledger


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_agree_with_the_outcomes(victim, kind):
    uri = victim.new_database()
    ends = Ledger(victim, KINDS[kind](uri), uri).run(400)
    assert ends["answered"] > 0
    assert not [name for name in ends if name.startswith(("InvalidSqlStatementName", "FeatureNotSupported"))]
