"""How Hypothesis plays inputs: for as long as it takes, as a busy machine breaks no promise.

With FAULTS set, the tests that are cases of a fault write the table of them (see `tests.chaos.table`).
"""

import os

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Have the table written where it is asked for."""
    if "FAULTS" in os.environ:
        from tests.chaos.table import Table

        config.pluginmanager.register(Table())
