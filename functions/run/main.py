"""POST /run: start a run, or be attached to the active one."""

from starlette.responses import Response

from common import claim
from common.models import RunRequest, RunResponse
from common.web.answer import answer
from common.web.call import Call, Header, Nothing, json
from common.web.endpoint import PREFIX, endpoint
from common.web.input import KEY, idempotency_key

_KEY = Header("A retry with the same key gets the first answer.", rf"^{KEY.pattern}$", "nightly-2026-11-24")
_LOCATION = {"Location": "Where the run's status is."}


@endpoint(
    "POST",
    "/run",
    role="run",
    body=RunRequest,
    headers={"Idempotency-Key": _KEY},
    answers={
        201: json(RunResponse, "The run was started.", _LOCATION),
        200: json(RunResponse, "Another run was active: here is where to follow it.", _LOCATION),
    },
    problems={
        403: "The token is of role `read`, the page is from elsewhere, or the pipeline is not from an allowed source.",
        409: "Another run is active and `on_busy` is `reject`, or it is ending and takes too long.",
    },
)
async def run(call: Call[Nothing, RunRequest]) -> Response:
    """Start a run, or be attached to the active one.

    201 for a run that was started, 200 for one that was active already; a retried key gets its first answer.
    """
    key = idempotency_key(call.connection)
    claimed = await claim.start(call.platform, call.body, caller=call.caller.name, key=key)
    found = claimed.run
    status_url, stream_url = (f"{PREFIX}/{name}?run_id={found.run_id}" for name in ("status", "stream"))
    return answer(
        RunResponse(
            run_id=found.run_id,
            status=found.status,
            attached=claimed.attached,
            pipeline=found.pipeline,
            triggered_by=found.triggered_by,
            job_name=found.job_name,
            status_url=status_url,
            stream_url=stream_url,
            websocket_url=stream_url,
        ),
        200 if claimed.attached else 201,
        {"location": status_url},
    )
