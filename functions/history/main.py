"""GET /history: past and present runs, newest first."""

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from common import look
from common.errors import Invalid
from common.models import RunHistory
from common.phases import State
from common.platform import Platform
from common.store import is_history_cursor
from common.web.answer import answer
from common.web.endpoint import endpoint
from common.web.input import query


class HistoryQuery(BaseModel):
    """Query parameters of `GET /history`."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(20, ge=1, le=200, description="Runs a page.")
    cursor: str | None = Field(None, description="`next_cursor` of the page before.")
    state: str | None = Field(None, description="Only runs in these states, comma separated.")


@endpoint("GET", "/history")
async def history(request: Request, platform: Platform) -> Response:
    """A page of runs, and the cursor of the next."""
    asked = query(request, HistoryQuery)
    if asked.cursor is not None and not is_history_cursor(asked.cursor):
        raise Invalid("cursor", "not a cursor; pass next_cursor exactly as it was received")
    page = await look.history(platform, asked.limit, asked.cursor, _states(asked.state))
    return answer(RunHistory(runs=list(page.runs), next_cursor=page.next_cursor))


def _states(text: str | None) -> list[State]:
    try:
        return [State(part.strip()) for part in text.split(",")] if text else []
    except ValueError:
        raise Invalid("state", f"use some of {', '.join(State)}, separated by commas") from None
