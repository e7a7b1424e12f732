"""Prometheus metrics.

No run id and no caller is a label: the number of series must not grow with use. What is to be known of one
run, over all processes and its recorder, which serves no metrics, is in its status (common.models.Streaming).
Whoever answers short requests imports this when the answer is out: it is a tenth of a cold start, and no
caller waits for it.
"""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("nfc_http_requests_total", "Answered requests.", ["function", "method", "status"])
REQUEST_SECONDS = Histogram(
    "nfc_http_request_duration_seconds",
    "Time to the end of the answer; streams are not observed.",
    ["function"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30),
)
FOLLOWERS = Gauge("nfc_followers", "Open streams.", ["transport"])
TAILERS = Gauge("nfc_tailers", "Runs whose log this process reads.")
LINES_SEEN = Counter("nfc_log_lines_seen_total", "Log lines that this process has read to relay them.")
LINES_RELAYED = Counter("nfc_log_lines_relayed_total", "Log lines appended to Redis.")
LINES_DUPLICATE = Counter("nfc_log_lines_duplicate_total", "Log lines that Redis had already.")
LINES_LOST = Counter("nfc_log_gaps_total", "Gaps told to followers: what nobody holds any more.")
LAG_SECONDS = Histogram(
    "nfc_log_lag_seconds",
    "Age of a followed run's newest line when Redis had it, as its recorder says, by the clock that it shares with it.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
REDIS_AWAY = Counter("nfc_redis_unavailable_total", "Times Redis did not answer.")
