"""`python -m actors.console` is `querycrew`."""

import sys

from actors.console.main import run

sys.exit(run())
