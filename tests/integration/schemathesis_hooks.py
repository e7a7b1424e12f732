"""What test_schemathesis leaves out of its questions: no schema can say which runs there are, or were."""

import itertools
from typing import Any

import schemathesis
from hypothesis import strategies as st

from common.events import CURSOR
from common.web.input import KEY

PIPELINE = "params.nf"
_used = itertools.count()

schemathesis.openapi.format("cursor", st.from_regex(CURSOR, fullmatch=True))


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Of all pipelines there is one here, and of no run can it be said beforehand that there is one to resume."""
    request = raw_schema["components"]["schemas"]["RunRequest"]
    request["properties"]["pipeline"] = {"enum": [PIPELINE]}
    request["properties"]["resume"] = {"type": "boolean"}
    request["examples"] = [{"pipeline": PIPELINE}]
    stream = raw_schema["paths"]["/api/v1/pipeline/stream"]["get"]
    # It shows tickets that it was given together with a wrong token, and takes being let in for a hole.
    stream["security"] = [{"bearer": []}]
    # By itself it makes headers of letters and digits only; where a pattern asks for more, 0 counts as good.
    for parameter in stream["parameters"]:
        if parameter["name"] == "Last-Event-ID":
            parameter["schema"]["format"] = "cursor"


@schemathesis.hook
def filter_body(context: schemathesis.HookContext, body: object) -> bool:
    """No schema says of values of any kind that a whole number has to fit into 64 bits."""
    match body:
        case int():
            return -(2**63) <= body < 2**63
        case list():
            return all(filter_body(context, item) for item in body)
        case dict():
            return all(filter_body(context, item) for item in body.values())
    return True


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: "schemathesis.Case[Any]", kwargs: dict[str, Any]) -> None:
    """No key is used again with another body, which is refused; no stream is followed, which does not end."""
    key = str(case.headers.get("Idempotency-Key", ""))
    if KEY.fullmatch(key):
        case.headers["Idempotency-Key"] = f"{key[:200]}-{next(_used)}"
    if case.path.endswith("/stream") and case.query.get("follow", True) in (True, "true"):
        case.query["follow"] = "false"
