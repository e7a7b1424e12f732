"""POST /run: start a run, or be attached to the active one."""

from starlette.requests import Request
from starlette.responses import Response

from common import claim
from common.models import RunRequest, RunResponse
from common.observe import RUNS
from common.platform import Platform
from common.web.answer import answer
from common.web.endpoint import PREFIX, endpoint
from common.web.input import body, idempotency_key


@endpoint("POST", "/run")
async def run(request: Request, platform: Platform) -> Response:
    """201 for a run that was started, 200 for one that was active already; a retried key gets its first answer."""
    wanted = await body(request, RunRequest, platform.settings.max_body_bytes)
    claimed = await claim.start(platform, wanted, caller="anonymous", key=idempotency_key(request))
    RUNS.labels("attached" if claimed.attached else "started").inc()
    found = claimed.run
    status_url = f"{PREFIX}/status?run_id={found.run_id}"
    return answer(
        RunResponse(
            run_id=found.run_id,
            status=found.status,
            attached=claimed.attached,
            pipeline=found.pipeline,
            triggered_by=found.triggered_by,
            job_name=found.job_name,
            status_url=status_url,
            stream_url=f"{PREFIX}/stream?run_id={found.run_id}",
        ),
        200 if claimed.attached else 201,
        {"location": status_url},
    )
