"""Commands of others come to an end, and so do their children."""

import os
import time
from pathlib import Path

import pytest

from common.local import commands
from common.local.commands import CommandError, run

ENVIRON = {"PATH": os.environ["PATH"]}


def test_both_outputs() -> None:
    """What it wrote comes back in the order of writing."""
    assert run(["sh", "-c", "echo one; echo two >&2; echo three"], ENVIRON, seconds=10) == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("echo fine; printf '\\033[31mERROR: no\\033[0m\\n'; echo more; exit 1", "ERROR: no"),
        ("echo first; echo last; echo; exit 1", "last"),
        ("exit 1", "it failed without a word"),
    ],
)
def test_one_line_of_a_failure(script: str, complaint: str) -> None:
    """The first that names an error, else the last."""
    with pytest.raises(CommandError) as caught:
        run(["sh", "-c", script], ENVIRON, seconds=10)
    assert str(caught.value) == complaint


def test_what_cannot_be_started(tmp_path: Path) -> None:
    """The system's own words."""
    with pytest.raises(CommandError) as caught:
        run([tmp_path / "none"], ENVIRON, seconds=10)
    assert str(caught.value) == "No such file or directory"


def test_patience_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command goes with its children; until then it is said that it goes on."""
    monkeypatch.setattr(commands, "_TURN_SECONDS", 0.05)
    monkeypatch.setattr(commands, "_REPORT_SECONDS", 0.1)
    said: list[str] = []
    with pytest.raises(CommandError, match="no answer within 1 s"):
        run(["sh", "-c", "sleep 60 & echo $! > child; wait"], ENVIRON, seconds=1, say=said.append, growing=tmp_path)
    assert "still at it (0 s)" in said
    assert _gone(int((tmp_path / "child").read_text()))


def test_a_download_that_stalls_is_given_up_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that goes on is not."""
    monkeypatch.setattr(commands, "_TURN_SECONDS", 0.05)
    monkeypatch.setattr(commands, "_STALLED_SECONDS", 1.0)
    growing = "for i in 1 2 3 4 5 6; do sleep 0.3; echo $i >> file; done; echo done"
    assert run(["sh", "-c", growing], ENVIRON, seconds=30, growing=tmp_path) == "done\n"
    began = time.monotonic()
    with pytest.raises(CommandError):
        run(["sh", "-c", "echo 1 >> file; sleep 60"], ENVIRON, seconds=30, growing=tmp_path)
    assert time.monotonic() - began < 10


def _gone(pid: int) -> bool:
    """Not there, or only waiting to be collected by whoever adopted it."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False
