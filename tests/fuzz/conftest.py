"""One loop for all inputs of a module, and the table that `make fuzz` ends with."""

import asyncio
import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.fuzz import PLAYED


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """A loop that goes on from one input to the next."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Note how many inputs a test was given; the note comes with its report, from another process, too."""
    name = getattr(item, "originalname", item.name)
    before = PLAYED[name]
    try:
        return (yield)
    finally:
        item.user_properties.append(("inputs", PLAYED[name] - before))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was played, where somebody has said how much."""
    if "EXAMPLES" not in os.environ:
        return
    terminalreporter.section("fuzzers")
    terminalreporter.line(f"{'fuzzer':<72} {'inputs':>9} {'seconds':>8} {'found':>6}")
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    for report in sorted(reports, key=lambda report: report.nodeid):
        played = dict(report.user_properties).get("inputs")
        if report.when == "call" and played:
            name = report.nodeid.rpartition("tests/fuzz/test_")[2].replace(".py::test_", ": ").replace("_", " ")
            found = int(report.failed)
            terminalreporter.line(f"{name:<72} {played:>9} {report.duration:>8.1f} {found:>6}")
