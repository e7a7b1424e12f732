"""What the chart makes for named scenarios is what is kept in files, so that every change of it is seen."""

import pytest

from tests.unit.goldens import GOLDENS, goldens
from tests.unit.rendering import HELMS, needs_helm

pytestmark = needs_helm


@pytest.mark.parametrize("program", HELMS)
def test_the_chart_renders_as_it_did(program: str) -> None:
    """By every helm alike; a change that is meant is written down with `make chart-files`."""
    assert goldens(program) == {path.name: path.read_text() for path in GOLDENS.iterdir()}
