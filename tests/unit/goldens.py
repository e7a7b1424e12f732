"""The chart as it renders for named scenarios (`chart/ci`), kept in files: `make chart-files` writes them again.

The default rendering is kept whole, every other as what it changes in that: a review sees what values do, and no more.
"""

from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped] # comes without types

from tests.unit.rendering import CHART, ROOT, Object, render

GOLDENS = ROOT / "tests" / "golden" / "chart"
SCENARIOS = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}


def values(scenario: str) -> Object:
    """What a scenario sets."""
    return dict(yaml.safe_load(SCENARIOS[scenario].read_text()))


def texts(given: Object, program: str = "helm") -> dict[str, str]:
    """Each object's YAML, without what is another at every rendering, or with every version."""
    return {
        key: yaml.safe_dump(_normal(one), width=120, allow_unicode=True)
        for key, one in sorted(render(given, program).items())
    }


def _normal(one: Any) -> Any:
    if isinstance(one, list):
        return [_normal(part) for part in one]
    if not isinstance(one, dict):
        return "(files/test.py)" if isinstance(one, str) and one.startswith('"""`helm test`') else one
    changing = ("app.kubernetes.io/version", "helm.sh/chart")
    kept = {key: _normal(part) for key, part in one.items() if key not in changing and not key.startswith("checksum/")}
    if one.get("kind") == "Secret":
        kept["stringData"] = dict.fromkeys(one["stringData"], "...")
    return kept


def whole(given: dict[str, str]) -> str:
    """A rendering whole."""
    return "".join(f"--- # {key}\n{text}" for key, text in given.items())


def changes(before: dict[str, str], after: dict[str, str]) -> str:
    """What one rendering has otherwise than another, object by object."""
    return "".join(_changes(before, after))


def _changes(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    for key in sorted({*before, *after}):
        lines = list(
            unified_diff(before.get(key, "").splitlines(True), after.get(key, "").splitlines(True), n=2, lineterm="\n")
        )
        if lines:
            what = "made" if key not in before else "changed" if key in after else "not made"
            yield f"--- # {key}: {what}\n"
            if what != "not made":
                yield from (line for line in lines[2:] if what == "changed" or not line.startswith("@@"))


def goldens(program: str = "helm") -> dict[str, str]:
    """Every file's text, by its name."""
    usual = texts({}, program)
    made = {f"{one}.diff": changes(usual, texts(values(one), program)) for one in SCENARIOS}
    return {"default.yaml": whole(usual), **made}


def write(directory: Path = GOLDENS) -> None:
    """Write all of them again, and remove those of scenarios that are gone."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    for name, text in goldens().items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    write()
