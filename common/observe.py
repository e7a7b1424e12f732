"""Structured logs: JSON, one object a line on standard error, with the id of the request they belong to."""

import json
import logging
import sys
from contextvars import ContextVar
from typing import Any

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def configure_logging(level: str) -> None:
    """Send every log record of this process to standard error as JSON."""
    from pydantic_core import to_json
    from pythonjsonlogger.core import BaseJsonFormatter

    class Formatter(BaseJsonFormatter):
        def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
            if (current := request_id.get()) is not None:
                log_data["request_id"] = current
            try:
                return to_json(log_data, fallback=str).decode()
            except ValueError:  # bytes or a file's name that are no UTF-8: told with escapes, and not instead of it all
                return json.dumps(log_data, default=repr)

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        Formatter(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger", "message": "event"},
            timestamp=True,
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for noisy in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(noisy).handlers = []
        logging.getLogger(noisy).propagate = True
    logging.getLogger("uvicorn.access").disabled = True  # common.web writes its own, with the request id
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # below, it tells WebSockets' queries, with tickets
