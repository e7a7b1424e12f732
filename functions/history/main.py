"""GET /history: past and present runs, newest first."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from common import look
from common.models import RunHistory, Says
from common.phases import State
from common.store import HISTORY_CURSOR
from common.web.answer import answer
from common.web.call import Call, Nothing, json
from common.web.endpoint import endpoint

_STATE = f"({'|'.join(State)})"
_States = Annotated[
    str,
    StringConstraints(pattern=rf"^{_STATE}(,{_STATE})*$"),
    Says(f"use some of {', '.join(State)}, separated by commas without spaces"),
]
_Cursor = Annotated[
    str,
    StringConstraints(pattern=rf"^{HISTORY_CURSOR.pattern}$"),
    Says("not a cursor; pass next_cursor exactly as it was received"),
]


class HistoryQuery(BaseModel):
    """Query parameters of `GET /history`."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(20, ge=1, le=200, description="Runs a page.")
    cursor: _Cursor | None = Field(None, description="`next_cursor` of the page before.")
    state: _States | None = Field(None, description="Only runs in these states, comma separated.")


@endpoint("GET", "/history", query=HistoryQuery, answers={200: json(RunHistory, "A page of runs, newest first.")})
async def history(call: Call[HistoryQuery, Nothing]) -> Response:
    """Past and present runs, newest first."""
    asked = call.query
    states = [State(name) for name in asked.state.split(",")] if asked.state else []
    page = await look.history(call.platform, asked.limit, asked.cursor, states)
    return answer(RunHistory(runs=list(page.runs), next_cursor=page.next_cursor))
