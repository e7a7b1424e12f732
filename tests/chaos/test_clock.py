"""A server whose clock is wrong, beside one whose clock is right: nothing is decided by comparing the two."""

import os
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.chaos.conftest import Judge
from tests.chaos.midrun import followed
from tests.chaos.places import SITE, Local

pytestmark = pytest.mark.slow


def clock(file: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is as far off as the file says; its other clock goes right."""
    if not shutil.which("faketime"):
        pytest.skip("no faketime is on PATH (apt-get install faketime)")
    command = ["faketime", "-f", "+0", "printenv", "LD_PRELOAD"]
    library = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
        "PYTHONPATH": str(SITE),
    }


@pytest.mark.fault("a server's clock is an hour ahead, an hour behind, and jumps in the middle of a run")
def test_a_wrong_clock(directory: Path, judge: Judge) -> None:
    """Either starts and cancels the other's runs and attaches to them, whatever each holds for the time."""
    told = directory / "clock"
    with closing(Local(directory)) as local:
        audit = judge(local)
        told.write_text("+0")
        wrong = local.server(**clock(told))
        for before, after, servers in (
            ("+3600", "-3600", (wrong, audit.witness)),
            ("-3600", "+3600", (audit.witness, wrong)),
        ):
            _set(told, before)
            with followed(audit, *servers):
                _set(told, after)
            audit.gone(servers[1], audit.started(servers[0]))
        audit.finish()


def _set(told: Path, offset: str) -> None:
    fresh = told.with_suffix(".new")
    fresh.write_text(offset)
    os.replace(fresh, told)
