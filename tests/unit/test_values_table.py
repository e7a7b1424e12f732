"""The chart's README lists every value, as values.yaml has it and says it."""

import json
import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # comes without types

from tests.unit.rendering import CHART
from tests.unit.values_table import README, readme, table


def test_the_table_is_fresh() -> None:
    """`make chart-files` would change nothing."""
    assert README.read_text() == readme()


def test_every_value_is_in_it() -> None:
    """Under its path, with its default."""

    def leaves(value: Any, path: str = "") -> dict[str, Any]:
        if not isinstance(value, dict) or path in listed:
            return {path: value}
        found: dict[str, Any] = {}
        for key, one in value.items():
            found |= leaves(one, f"{path}.{key}" if path else key)
        return found

    listed = {path: json.loads(default) for path, default in re.findall(r"^\| `([^`]+)` \| `(.+?)` \|", table(), re.M)}
    assert listed == leaves(yaml.safe_load((CHART / "values.yaml").read_text()))


@pytest.mark.parametrize("path", ["stopDelaySeconds", "redis.maxmemory", "gateway.parentRefs"])
def test_what_is_said_of_a_value_is_in_it(path: str) -> None:
    """All lines of the comment above it."""
    (row,) = [line for line in table().splitlines() if line.startswith(f"| `{path}` |")]
    assert row.endswith(". |")
