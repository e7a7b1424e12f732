"""What operators see: structured logs and Prometheus metrics.

Logs are JSON, one object a line on standard error, with the id of the request they belong to.
No run id and no caller is a metric's label: the number of series must not grow with use.
"""

import logging
import sys
from contextvars import ContextVar
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

REQUESTS = Counter("nfc_http_requests_total", "Answered requests.", ["function", "method", "status"])
REQUEST_SECONDS = Histogram(
    "nfc_http_request_duration_seconds",
    "Time to the end of the answer; streams are not observed.",
    ["function"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30),
)
FOLLOWERS = Gauge("nfc_followers", "Open streams.", ["transport"])
TAILERS = Gauge("nfc_tailers", "Runs whose log this process reads.")
RUNS = Counter("nfc_run_requests_total", "Answers to POST /run.", ["outcome"])
LINES_RELAYED = Counter("nfc_log_lines_relayed_total", "Log lines appended to Redis.")
LINES_DUPLICATE = Counter("nfc_log_lines_duplicate_total", "Log lines that Redis had already.")
LINES_LOST = Counter("nfc_log_gaps_total", "Gaps told to followers: what nobody holds any more.")
REDIS_AWAY = Counter("nfc_redis_unavailable_total", "Times Redis did not answer.")


def configure_logging(level: str) -> None:
    """Send every log record of this process to standard error as JSON."""
    from pydantic_core import to_json
    from pythonjsonlogger.core import BaseJsonFormatter

    class Formatter(BaseJsonFormatter):
        def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
            if (current := request_id.get()) is not None:
                log_data["request_id"] = current
            return to_json(log_data, fallback=str).decode()

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
