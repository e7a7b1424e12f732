"""The table of faults, FAULTS.md: made by the tests that are marked as cases of one, with `make faults`.

`@pytest.mark.fault("what is done to what")` is all that a test has to say: its docstring is what holds all the same,
and what it counts (`record_property`) stands beside it. A case that cannot be tried where the table is made keeps the
row that it has.
"""

import ast
import re
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
Key = tuple[str, str]  # what is done to what, and where
FILE = Path(__file__).with_name("FAULTS.md")

_HEAD = """\
# Faults, and what holds all the same

Made by the tests, with `make faults`. Each case ends with: one run at most at all times, the slot free, each run in the
history with its right end, nothing of it left, and no line of its log lost without a `gap`.

| fault | where | what holds | tried |
| --- | --- | --- | --- |
"""
_ROW = r"^\| (.+?) \| (cluster|local) \| (.*?) \| (.*?) \|$"


@dataclass
class Row:
    """A fault at one place: what its cases say and have counted, and those that failed."""

    holds: list[str] = field(default_factory=list)
    cases: int = 0
    figures: Counter[str] = field(default_factory=Counter)
    broken: int = 0

    def cells(self) -> tuple[str, str]:
        """What holds, and what was tried."""
        counts = {"cases": self.cases, **self.figures}
        said = ((count, name.removesuffix("s") if count == 1 else name) for name, count in counts.items())
        figures = ", ".join(f"{count} {name}" for count, name in said if name != "case")
        return " ".join(self.holds), f"**{self.broken} broken**" if self.broken else figures or "once"


class Table:
    """A plugin that writes the table when all its tests have run."""

    def __init__(self) -> None:
        self._rows: dict[Key, Row] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note how a case went."""
        report = yield
        for mark in item.iter_markers("fault"):
            row = self._rows.setdefault((mark.args[0], _where(item)), Row())
            holds = " ".join((getattr(item, "function").__doc__ or "").split())  # noqa: B009  # of functions only
            if report.failed:
                row.broken += 1
            if report.when == "call" and report.passed:
                row.cases += 1
                row.holds += [] if holds in row.holds else [holds]
            if report.when == "teardown":
                row.figures.update({name: int(str(count)) for name, count in item.user_properties})
        return report

    def pytest_sessionfinish(self) -> None:
        """Write the table."""
        made = {key: row.cells() for key, row in self._rows.items() if row.cases or row.broken}
        FILE.write_text(text({**read(), **made}, faults()))


def _where(item: pytest.Item) -> str:
    return "cluster" if item.get_closest_marker("cluster") else "local"


def text(rows: dict[Key, tuple[str, str]], known: dict[str, str]) -> str:
    """The table, without the faults that are no more, and with those that were not tried yet."""
    tried = {fault for fault, _ in rows}
    kept = {key: cells for key, cells in rows.items() if key[0] in known}
    kept |= {(fault, where): ("", "not yet") for fault, where in known.items() if fault not in tried}
    lines = (f"| {' | '.join([*key, *cells])} |\n" for key, cells in sorted(kept.items()))
    return _HEAD + "".join(lines)


def read() -> dict[Key, tuple[str, str]]:
    """The rows of the file, as far as there is one."""
    rows = re.findall(_ROW, FILE.read_text(), re.MULTILINE) if FILE.exists() else []
    return {(fault, where): (holds, tried) for fault, where, holds, tried in rows}


def faults() -> dict[str, str]:
    """The faults that tests are marked with, and where at least they are tried."""
    found: dict[str, str] = {}
    for file in TESTS.rglob("test_*.py"):
        source = file.read_text("utf-8")
        if "mark.fault(" in source:
            where = "cluster" if "pytest.mark.cluster" in source else "local"
            calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
            marks = (call for call in calls if ast.unparse(call.func) == "pytest.mark.fault")
            found |= {ast.literal_eval(mark.args[0]): where for mark in marks}
    return found
