"""Streams over WebSocket: each event a message, and an end that always says what it is."""

import asyncio
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.callers import add
from common.events import Cursor
from common.metrics import REQUESTS
from common.web.app import App
from common.web.closing import Close, close
from common.web.endpoint import PREFIX
from common.web.transports import TOGETHER
from functions.stream.main import stream
from tests.redis_server import OwnRedis
from tests.unit import samples
from tests.unit.logs import World, eventually
from tests.unit.serving import NDJSON, OPEN, Served, counted, finish, given, read, recorded, serve, served, small_socket
from tests.unit.test_follow import hurry, texts

__all__ = ["given", "hurry", "served"]  # fixtures

pytestmark = pytest.mark.slow

COMPLETE = (1000, "complete")


def lines(events: list[dict[str, Any]]) -> list[bytes]:
    """The texts of the log events among some."""
    return [event["data"]["line"].encode() for event in events if event["type"] == "log"]


async def test_a_finished_run_as_messages(given: World, served: Served) -> None:
    """The same JSON as the lines of NDJSON, an event a message, and after `complete` the end."""
    finish(given)
    told = await served.told()
    recorded("finished.ndjson", "".join(message + "\n" for message in told.messages))
    assert told.end == COMPLETE


async def test_a_live_run_to_its_end(given: World, served: Served) -> None:
    """A snapshot, lines as they come, `complete`."""
    run_id = given.runner.start()
    async with served.socket() as client:
        first = await client.recv()
        assert '"type":"status"' in str(first)
        given.runner.write(run_id, b"one")
        assert '"line":"one"' in str(await client.recv())
        given.runner.write(run_id, b"two")
        given.runner.end(run_id)
        told = await read(client)
    assert (lines(told.events), told.events[-1]["type"], told.end) == ([b"two"], "complete", COMPLETE)


async def test_parameters_are_those_of_get(given: World, served: Served) -> None:
    """`run_id`, `after`, `tail`, `types` and `follow` choose the same events as over NDJSON."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(9))
    place = Cursor(run_id, 1, given.runner.runs[run_id].lines[4].id)
    for query, expected in (
        (f"run_id={run_id}&follow=false", texts(9)),
        (f"after={place}&follow=false", texts(4, 5)),
        ("tail=2&follow=false", texts(2, 7)),
        ("types=status&follow=false", []),
    ):
        told = await served.told(query)
        assert (lines(told.events), told.end) == (expected, COMPLETE), query
        answer = await served.http.get(f"/stream?{query}", headers=NDJSON)
        assert [line.partition(b',"timestamp"')[0] for line in answer.content.splitlines()] == [
            message.encode().partition(b',"timestamp"')[0] for message in told.messages
        ]
    again = await served.told("follow=false", additional_headers={"last-event-id": str(place)})
    assert lines(again.events) == texts(4, 5)


async def test_an_end_is_told_at_once(given: World, served: Served) -> None:
    """A cursor behind `complete`: nothing is sent, and 1000 says that nothing ever will be (over HTTP: 204)."""
    run_id = finish(given)
    told = await served.told(f"after={run_id}.1.end")
    assert (told.messages, told.end) == ([], (1000, "complete: there is nothing left to send"))


async def test_a_stopping_server_says_where_to_go_on(given: World) -> None:
    """1012 with a cursor; with it the next server sends exactly what followed."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3))
    parts = given.processes[0]
    async with serve(parts) as served, served.socket() as client:
        before = [await client.recv() for _ in range(4)]
        parts.shutdown.begin()
        told = await read(client)
    cursor = Cursor(run_id, 1, given.runner.runs[run_id].lines[-1].id)
    assert (told.messages, told.code) == ([], 1012)
    assert told.reason == f"the server is stopping; come back with after={cursor}"
    assert f'"id":"{cursor}"' in str(before[-1])
    assert counted() == {}
    given.runner.write(run_id, *texts(2, 3))
    given.runner.end(run_id)
    async with serve(given.process(**OPEN)) as served:
        rest = await served.told(told.reason.rpartition("come back with ")[2])
    assert (lines(rest.events), rest.end) == (texts(2, 3), COMPLETE)


@pytest.mark.parametrize("told", [True, False])
async def test_the_server_around_it_is_not_faster(given: World, told: bool) -> None:
    """uvicorn closes its connections at once: it has to leave that to whoever knows the cursor, but not for ever."""
    given.runner.start()
    parts = given.processes[0]
    async with serve(parts) as served, served.socket() as client:
        await client.recv()
        # Who is told is never overtaken here, however slow the machine; who is not has only a moment.
        served.server.config.timeout_graceful_shutdown = 600 if told else 1
        for connection in served.server.server_state.connections:
            connection.shutdown()
        if told:
            parts.shutdown.begin()
        end = (await read(client)).end
    assert (end[0], end[1].partition(";")[0]) == (1012, "the server is stopping" if told else "")
    await eventually(lambda: counted() == {}, counted)


@pytest.mark.parametrize("message", ["hello", b"hello", ""], ids=["text", "bytes", "empty"])
async def test_a_client_that_speaks_is_shown_out(given: World, served: Served, message: str | bytes) -> None:
    """1003, and its feed is let go of; others go on."""
    run_id = given.runner.start()
    async with served.socket() as other, served.socket() as client:
        await client.recv()
        await client.send(message)
        assert (await read(client)).end == (1003, "this WebSocket only sends")
        assert counted() == {"websocket": 1, "readers": 1}
        given.runner.end(run_id)
        assert (await read(other)).end == COMPLETE


async def test_a_client_that_says_too_much_is_shown_out(given: World, served: Served) -> None:
    """A message longer than what is ever read is not even collected: 1009."""
    given.runner.start()
    async with served.socket() as client:
        await client.recv()
        await client.send("x" * 2_000)
        assert (await read(client)).code == 1009


async def test_a_client_that_speaks_while_it_is_sent_a_flood(
    given: World, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """The end is the last that is sent: nothing follows a close frame, and nothing fails for it."""
    run_id = given.runner.start()
    given.runner.write(run_id, *texts(3_000))
    async with served.socket() as client:
        await client.recv()
        await client.send("hello")
        told = await read(client)
    assert told.code == 1003
    assert lines(told.events) == texts(len(lines(told.events)))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_client_that_leaves_is_gone_at_once(given: World, served: Served) -> None:
    """With or without a word; its run's log is let go of, and the next one finds everything again."""
    run_id = given.runner.start()
    given.runner.write(run_id, b"one")
    for leave in ("close", "abort"):
        client = await served.socket()
        for _ in ("status", "one"):
            await client.recv()  # from now on there is nothing to send, and nothing that could fail
        assert counted() == {"websocket": 1, "readers": 1}
        if leave == "close":
            await client.close()
        else:
            client.transport.abort()
        await eventually(lambda: counted() == {}, counted)
    given.runner.end(run_id)
    assert lines((await served.told()).events) == [b"one"]


async def test_a_client_that_leaves_in_the_handshake(
    given: World, served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is gone before it is let in, be it to be served or refused: nobody's mistake, and nothing to be logged."""
    given.runner.start()
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def slow_limit(*_: Any) -> None:
        arrived.set()
        await gone.wait()

    monkeypatch.setattr("common.web.limits.Limiter.count", slow_limit)
    caplog.set_level(logging.INFO, "access")
    for query in ("", "?after=nonsense"):
        arrived.clear()
        gone.clear()
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(handshake(served.port, query))
        await arrived.wait()
        writer.transport.abort()
        await eventually(lambda: not served.server.server_state.connections)
        gone.set()
        await eventually(lambda: not served.server.server_state.tasks)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert [vars(record)["status"] for record in caplog.records if record.message == "answered"] == [None, None]


def handshake(port: int, query: str = "") -> bytes:
    """A client's part of the opening handshake."""
    lines = (
        f"GET {PREFIX}/stream{query} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
    )
    return "".join(line + "\r\n" for line in (*lines, "")).encode()


BAD = (
    "after=nonsense",
    "after=" + "x" * 200,
    "types=log,nonsense",
    "types=",
    "tail=-1",
    "tail=many",
    "follow=perhaps",
    "nonsense=1",
    "tail=1&tail=2",
)


async def test_what_cannot_be_used_is_named(given: World, served: Served) -> None:
    """4422, and what is wrong with which parameter, in the words of GET; not one message."""
    given.runner.start()
    told = {query: await served.told(query) for query in BAD}
    problems = {query: (await served.http.get(f"/stream?{query}")).json() for query in BAD}
    assert {query: found.end for query, found in told.items()} == {
        query: (4422, f"The request is not valid: {problem['detail']}"[:123]) for query, problem in problems.items()
    }
    assert [query for query, found in told.items() if query.partition("=")[0] not in found.reason] == []
    assert [found.messages for found in told.values() if found.messages] == []


async def test_no_run_is_4404(served: Served) -> None:
    """None at all, or none of this id."""
    assert (await served.told()).end == (4404, f"No such run: There is no run yet. POST {PREFIX}/run starts one.")
    unknown = await served.told(f"run_id={samples.run_id(7)}")
    assert (unknown.code, unknown.reason[:40]) == (4404, "No such run: No retained run has the id ")


async def test_other_paths_are_no_websockets(served: Served) -> None:
    """4404 for what serves no WebSocket, be it there or not."""
    for path, reason in (
        (f"{PREFIX}/stream/ticket", f"{PREFIX}/stream/ticket takes POST, not GET."),
        ("/healthz", "/healthz is no WebSocket."),
    ):
        async with served.socket(path=path) as client:
            assert (await read(client)).reason.endswith(reason)
    async with served.socket(path="/" + "ü" * 150) as client:
        told = await read(client)
    assert (told.code, told.reason) == (4404, "No such path: There is nothing at /" + "ü" * 44)
    assert len(told.reason.encode()) == 123


@pytest.mark.parametrize(
    ("headers", "code", "reason"),
    [
        ({}, 4401, "Who are you?: Send a token: `Authorization: Bearer TOKEN`. "),
        ({"authorization": "Bearer nobody"}, 4401, "Who are you?: This token is nobody's"),
        ({"host": "evil.test"}, 4421, "Not the server of this name: This is not the server of 'evil.test'. "),
    ],
)
async def test_who_may_not_come_in_is_told_why(
    given: World, tmp_path: Path, headers: dict[str, str], code: int, reason: str
) -> None:
    """The code is the status that GET has, the reason its title and detail, as far as there is room."""
    add(tmp_path / "tokens", "ada", "read")
    async with serve(given.process(tokens_file=tmp_path / "tokens")) as served:
        answer = await served.http.get("/stream", headers=headers)
        told = await raw_told(served, headers)
    problem = answer.json()
    assert told == (4000 + answer.status_code, f"{problem['title']}: {problem['detail']}"[:123])
    assert (told[0], told[1][: len(reason)]) == (code, reason)


async def test_pages_from_elsewhere_are_kept_out(given: World) -> None:
    """4403: no CORS holds a WebSocket, so its Origin is checked; the server's own pages and CORS_ORIGINS may."""
    finish(given)
    async with serve(given.process(**OPEN, cors_origins="https://portal.test")) as served:
        for origin in ("https://portal.test", f"http://127.0.0.1:{served.port}"):
            assert (await served.told(additional_headers={"origin": origin})).end == COMPLETE
        for origin in ("https://evil.test", "null", "https://portal.test.evil.test"):
            code, reason = await raw_told(served, {"origin": origin})
            assert (code, reason) == (
                4403,
                (
                    f"A page from elsewhere: A page from {origin} may not do this. "
                    "Origins that may are in the server's CORS_ORIGINS."
                )[:123],
            )


async def test_a_ticket_opens_one_stream(given: World, tmp_path: Path) -> None:
    """Over HTTP or as a WebSocket: the second that shows it is refused, whichever it is."""
    finish(given)
    token = add(tmp_path / "tokens", "ada", "read")
    used = "Who are you?: This ticket was used, is too old or never was."
    async with serve(given.process(tokens_file=tmp_path / "tokens")) as served:
        for first in ("http", "websocket"):
            answer = await served.http.post("/stream/ticket", headers={"authorization": f"Bearer {token}"})
            query = f"ticket={answer.json()['ticket']}"
            if first == "http":
                answer = await served.http.get(f"/stream?{query}", headers=NDJSON)
                assert '"type":"complete"' in answer.text
            else:
                assert (await served.told(query)).end == COMPLETE
            told = await served.told(query)
            assert (told.code, told.reason[: len(used)]) == (4401, used)
            assert (await served.http.get(f"/stream?{query}")).status_code == httpx.codes.UNAUTHORIZED


async def test_one_call_too_many_is_4429(given: World) -> None:
    """A WebSocket counts as a call, whoever it is that calls, and who is refused is told when to come back."""
    finish(given)
    async with serve(given.process(auth="off", rate_limits="2/day")) as served:
        for _ in range(2):
            assert (await served.told()).end == COMPLETE
        told = await served.told()
    assert told.code == 4429
    assert told.reason.startswith("Too many calls: At most 2 calls in 86400 s. Come back in ")
    assert len(told.reason.encode()) <= 123


async def raw_told(served: Served, headers: dict[str, str]) -> tuple[int, str]:
    """How a WebSocket with just these headers is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    shown = {"host": f"127.0.0.1:{served.port}", **headers}
    opening = handshake(served.port).replace(b"Host: 127.0.0.1:%d\r\n" % served.port, b"")
    head = "".join(f"{name}: {value}\r\n" for name, value in shown.items()).encode()
    writer.write(opening[:-2] + head + b"\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    opcode, length = await reader.readexactly(2)
    assert opcode == 0x88
    payload = await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()
    return int.from_bytes(payload[:2]), payload[2:].decode()


@pytest.mark.parametrize("cut", [0, 1])
async def test_reasons_are_cut_between_characters(cut: int) -> None:
    """At 123 bytes, as a control frame holds no more."""
    closed: list[tuple[int, str]] = []

    async def send(message: Any) -> None:
        closed.append((message["code"], message["reason"]))

    await close(send, Close(4422, "x" * cut + "é" * 100))
    assert closed == [(4422, "x" * cut + "é" * 61)]


@pytest.mark.parametrize(
    ("where", "end"),
    [
        ("common.follow.Followers.resolve", (4500, "Something is wrong on our side: The error was logged")),
        ("common.web.websocket.framed", (1011, "something is wrong on our side; go on behind your last id")),
    ],
)
async def test_what_nobody_foresaw_is_an_end_too(
    given: World,
    served: Served,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    end: tuple[int, str],
) -> None:
    """Before or after the handshake: a code and a reason, one trace in the log, and nobody is left counted."""
    given.runner.start()

    def fail(*_: Any) -> None:
        raise RuntimeError("the reason")

    monkeypatch.setattr(where, fail)
    told = await served.told()
    assert (told.code, told.reason[: len(end[1])]) == end
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == ["unexpected"]
    assert "the reason" not in told.reason
    await eventually(lambda: counted() == {}, counted)


async def test_what_is_written_down_of_it(given: World, served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """The access log and the metrics say 101 for who was let in, else what GET would have got; never a query."""
    finish(given)
    caplog.set_level(logging.INFO, "access")
    answered = REQUESTS.labels("stream", "WS", "101")._value.get(), REQUESTS.labels("stream", "WS", "422")._value.get()
    async with served.socket("tail=1", additional_headers={"x-request-id": "mine"}) as client:
        assert client.response is not None
        assert client.response.headers["x-request-id"] == "mine"
        await read(client)
    await served.told("tail=x")
    await eventually(lambda: not served.server.server_state.tasks)
    records = [vars(record) for record in caplog.records if record.name == "access"]
    assert [
        (record["function"], record["method"], record["path"], record["status"], record["caller"], record["client"])
        for record in records
    ] == [
        ("stream", "WS", PREFIX + "/stream", 101, "anonymous", "127.0.0.1"),
        ("stream", "WS", PREFIX + "/stream", 422, "anonymous", "127.0.0.1"),
    ]
    after = REQUESTS.labels("stream", "WS", "101")._value.get(), REQUESTS.labels("stream", "WS", "422")._value.get()
    assert after == (answered[0] + 1, answered[1] + 1)


async def test_redis_may_go_and_come_back(given: World, tmp_path: Path) -> None:
    """The same WebSocket goes on: lines of before, during and after the outage, each once."""
    own = OwnRedis(tmp_path / "r")
    apart = World(own.url)
    run_id = apart.runner.start()
    parts = apart.process(**OPEN)
    apart.runner.write(run_id, *texts(10))
    async with serve(parts) as served, served.socket("types=log") as client:
        found = [str(await client.recv()) for _ in range(11)]
        own.stop()
        apart.runner.write(run_id, *texts(10, 10))
        found += [str(await client.recv()) for _ in range(10)]
        own.start()
        apart.runner.write(run_id, *texts(10, 20))
        apart.runner.end(run_id)
        told = await read(client)
    assert [message.partition('"line":"')[2].partition('"')[0].encode() for message in found[1:]] == texts(20)
    assert (lines(told.events), told.end) == (texts(10, 20), COMPLETE)
    await apart.close()
    own.stop()


@pytest.mark.parametrize("together", [True, False])
async def test_a_fast_client_leaves_others_their_turn(
    given: World, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """Messages that never have to wait are no reason to let everybody else wait until the last one is sent."""
    monkeypatch.setattr("common.web.app.configure_logging", lambda level: None)
    monkeypatch.setattr("common.shutdown.Shutdown.listen", lambda self: None)
    run_id = given.runner.start()
    given.runner.batch = 500
    monkeypatch.setattr("common.reader.PAGE_LINES", 50)
    given.runner.write(run_id, *texts(500))
    given.runner.end(run_id)
    turns, sent = 0, Counter[int]()

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    opening = iter([{"type": "websocket.connect"}])

    async def receive() -> Any:
        for message in opening:
            return message
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent[turns] += message["type"] == "websocket.send"

    scope = {
        "type": "websocket",
        "path": f"{PREFIX}/stream",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "extensions": {TOGETHER: {}} if together else {},
    }
    other = asyncio.create_task(others())
    await App(*stream.app.endpoints, open_platform=lambda: given.processes[0])(scope, receive, send)
    other.cancel()
    if together:
        assert sent.total() >= 10 + 2  # batches, and two notices
        assert max(sent.values()) <= 2
    else:
        assert (sent.total(), max(sent.values())) == (500 + 2, 1)


@pytest.mark.parametrize("flooded", [False, True])
async def test_a_peer_that_does_not_answer_is_let_go(given: World, flooded: bool) -> None:
    """Half open, or stopped: without pongs it counts as gone, even where the kernel holds what was sent to it."""
    run_id = given.runner.start()
    async with serve(given.process(**OPEN, heartbeat_seconds=0.3), narrow=True) as served:
        with small_socket(served.port) as peer:  # it never reads
            await asyncio.get_running_loop().sock_sendall(peer, handshake(served.port))
            await eventually(lambda: counted() == {"websocket": 1, "readers": 1}, counted)
            if flooded:
                given.runner.write(run_id, *(b"x" * 1_000 for _ in range(1_000)))
            await eventually(lambda: counted() == {}, counted)
            await eventually(lambda: not served.server.server_state.connections)


async def test_a_client_that_answers_pings_stays(given: World) -> None:
    """Silence is not the end: pings keep the connection alive and do not show as messages."""
    run_id = given.runner.start()
    async with serve(given.process(**OPEN, heartbeat_seconds=0.05)) as served, served.socket() as client:
        await client.recv()
        beats = 0
        original = client.protocol.recv_frame

        def count(frame: Any) -> None:
            nonlocal beats
            beats += frame.opcode == 9
            original(frame)

        client.protocol.recv_frame = count  # type: ignore[method-assign] # to see what recv() hides
        await eventually(lambda: beats >= 3)
        given.runner.end(run_id)
        assert (await read(client)).end == COMPLETE


async def test_malformed_handshakes_are_refused(given: World, served: Served) -> None:
    """What is no WebSocket handshake is answered as HTTP, and the next request is served."""
    given.runner.start()
    good = handshake(served.port)
    for bad in (
        good.replace(b"Version: 13", b"Version: 12"),
        good.replace(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", b""),
        good.replace(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", b"Sec-WebSocket-Key: short"),
        good.replace(b"GET ", b"POST "),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(bad)
        answer = await reader.read()
        assert not answer or answer.split()[1] in (b"400", b"405", b"426"), answer
        writer.close()
        await writer.wait_closed()
    assert (await served.http.get("/stream?follow=false")).status_code == httpx.codes.OK
