"""The table of values in the chart's README, out of `values.yaml`: `make chart-files` writes it again."""

import json
from collections.abc import Iterator
from typing import Any

import yaml  # type: ignore[import-untyped] # comes without types

from tests.unit.rendering import CHART

README = CHART / "README.md"
_BEGIN, _END = "<!-- Made of values.yaml by `make chart-files`. -->\n", "<!-- The end of what is made. -->\n"


def table() -> str:
    """All values: a row for each that can be set, and one for each group about which something is said."""
    text = (CHART / "values.yaml").read_text()
    rows = [f"| `{path}` | {default} | {meaning} |\n" for path, default, meaning in _rows(yaml.compose(text), text)]
    return "| value | default | meaning |\n| --- | --- | --- |\n" + "".join(rows)


def _rows(node: Any, text: str, above: str = "") -> Iterator[tuple[str, str, str]]:
    lines = text.splitlines()
    for key, value in node.value:
        path = above + key.value
        meaning = _comment(lines[: key.start_mark.line]).replace("|", "\\|")
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            if meaning:
                yield path, "", meaning
            yield from _rows(value, text, path + ".")
        else:
            default = yaml.safe_load(text[value.start_mark.index : value.end_mark.index])
            yield path, f"`{json.dumps(default, ensure_ascii=False)}`", meaning


def _comment(before: list[str]) -> str:
    said: list[str] = []
    for line in reversed(before):
        if not line.strip().startswith("# "):
            break
        said.insert(0, line.strip().removeprefix("# "))
    return " ".join(said)


def readme() -> str:
    """The README with the table as it should be."""
    before, _, rest = README.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + table() + _END + after


if __name__ == "__main__":
    README.write_text(readme())
