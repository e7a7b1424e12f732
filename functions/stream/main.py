"""GET /stream: the live log, status and progress of a run, for any number of followers."""

from starlette.responses import Response
from starlette.types import ASGIApp

from common.events import CURSOR
from common.models import TicketResponse
from common.tickets import TTL_SECONDS, Tickets
from common.web import websocket
from common.web.answer import answer
from common.web.call import Answer, Call, Header, Nothing, json
from common.web.endpoint import endpoint
from common.web.messages import Event
from common.web.stream import NDJSON, SSE, TEXT, StreamQuery, respond
from functions.stream.notes import NOTES

_SEEN = Header("An event's id: go on behind it.", rf"^{CURSOR.pattern}$", "run-aaaaaaaaaaaaaaaa.1.1795549059326-0")


@endpoint(
    "POST",
    "/stream/ticket",
    answers={201: json(TicketResponse, "A ticket for one stream.")},
)
async def ticket(call: Call[Nothing, Nothing]) -> Response:
    """A ticket to put into a stream's URL.

    For a browser's `EventSource` or `WebSocket`, which cannot send a token; of use once, and soon.
    """
    tickets = Tickets(call.platform.connection, call.platform.settings.redis_prefix)
    return answer(TicketResponse(ticket=await tickets.issue(call.caller), expires_in_seconds=TTL_SECONDS), 201)


@endpoint(
    "GET",
    "/stream",
    query=StreamQuery,
    tickets=True,
    headers={"Last-Event-ID": _SEEN},
    answers={
        200: Answer("The run's events, as they come.", {SSE: Event, NDJSON: Event, TEXT: None}),
        204: Answer("The cursor is an end: there is nothing left to send. An EventSource comes back no more."),
    },
    problems={404: "No run of this id is retained, or there is none yet.", 406: "No such transport."},
    socket=websocket.respond,
    messages=Event,
    closes=websocket.CLOSES,
    notes=NOTES,
    beside=ticket,
)
async def stream(call: Call[StreamQuery, Nothing]) -> ASGIApp:
    """The live log, status and progress of a run.

    As Server-Sent Events, NDJSON or plain text, by `Accept`, or as a WebSocket.
    """
    return await respond(call)
