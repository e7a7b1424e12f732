"""Logs are JSON, one object a line, whatever is logged."""

import json
import logging

import pytest

from common.observe import configure_logging


@pytest.mark.parametrize("odd", [b"\xff", "\udcff", {"x": b"\xff"}], ids=["bytes", "a file's name", "inside"])
def test_what_is_no_utf8_is_logged_with_escapes(capsys: pytest.CaptureFixture[str], odd: object) -> None:
    """A record that could not be told would be lost, and in its place stood a traceback over many lines."""
    root = logging.getLogger()
    before = root.handlers, root.level
    try:
        configure_logging("INFO")
        logging.getLogger("test").warning("odd\nline", extra={"given": odd})
    finally:
        root.handlers, root.level = before
    [line] = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert (record["level"], record["event"]) == ("WARNING", "odd\nline")
    assert "ff" in json.dumps(record["given"])
