"""The application around endpoints: routing, request ids, and every error as a problem document."""

import gc
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from common import errors
from common.settings import Settings
from common.web.app import App
from common.web.call import Call, Endpoint, Nothing
from common.web.exchange import Exchange
from tests.unit.asking import JSON, PROBLEM, application, asking, endpoints, kind, settings, shaken, told

FAILURE: list[BaseException] = []


async def fail(call: Call[Nothing, Nothing]) -> Response:
    """Raise what the test says."""
    raise FAILURE[0]


@pytest.fixture
def app() -> App:
    """An application of four endpoints, one of which fails."""
    return application(settings(), *endpoints(), Endpoint("fail", "GET", "/fail", fail))


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it."""
    async with asking(app) as made:
        yield made


async def test_paths_and_methods(client: httpx.AsyncClient) -> None:
    """An unknown path is 404 and lists the paths there are; a wrong method is 405 with Allow."""
    assert told(await client.get("/other")) == {
        "type": PROBLEM + "not-found",
        "title": "No such path",
        "status": 404,
        "detail": "There is nothing at /other. Here are: /fail, /give, /hear, /take.",
    }
    wrong = await client.delete("/give")
    assert wrong.headers["allow"] == "GET, HEAD"
    assert told(wrong)["type"] == PROBLEM + "method"
    assert told(wrong)["detail"] == "/give takes GET, HEAD, not DELETE."
    assert (await client.get("/take")).headers["allow"] == "POST"
    assert (await client.head("/give")).status_code == 200


async def test_where_all_is_open_all_is_listed() -> None:
    """A function without endpoints for callers says what it has."""
    async with asking(application(settings(), *endpoints(role=None)[:1])) as client:
        listed = "/health, /healthz, /metrics, /readyz, /take"
        assert told(await client.get("/"))["detail"] == f"There is nothing at /. Here are: {listed}."


async def test_request_ids(client: httpx.AsyncClient) -> None:
    """A caller's id is kept if it is fit to be logged; otherwise there is a new one each time."""
    given = await client.get("/give", headers={"x-request-id": "trace-1.a:b"})
    assert given.headers["x-request-id"] == "trace-1.a:b"
    made = [
        (await client.get("/give", headers={"x-request-id": bad})).headers["x-request-id"] for bad in ("a b", "x" * 65)
    ]
    assert len({*made, "a b", "x" * 65}) == 4


@pytest.mark.parametrize(
    ("error", "expected", "headers"),
    [
        (
            errors.Invalid("after", "not a cursor"),
            {
                "status": 422,
                "type": "invalid",
                "detail": "after: not a cursor",
                "errors": [{"pointer": "after", "detail": "not a cursor"}],
            },
            {},
        ),
        (
            errors.NotAllowed("/pipeline", "from elsewhere"),
            {
                "status": 403,
                "type": "not-allowed",
                "detail": "/pipeline: from elsewhere",
                "errors": [{"pointer": "/pipeline", "detail": "from elsewhere"}],
            },
            {},
        ),
        (errors.RunNotFound("run-x"), {"status": 404, "type": "run-not-found", "run_id": "run-x"}, {}),
        (errors.NothingActive(), {"status": 404, "type": "nothing-active", "detail": "No run is active."}, {}),
        (
            errors.Busy("run-x", "busy", pipeline="p", triggered_by="me"),
            {"status": 409, "type": "busy", "run_id": "run-x", "pipeline": "p", "triggered_by": "me"},
            {},
        ),
        (
            errors.Busy("run-x", "ending", pipeline="p", triggered_by=None, retry_after_seconds=2),
            {"status": 409, "type": "busy", "run_id": "run-x", "pipeline": "p"},
            {"retry-after": "2"},
        ),
        (errors.KeyReused("run-x"), {"status": 422, "type": "key-reused", "run_id": "run-x"}, {}),
        (
            errors.Unavailable("runner", "away", retry_after_seconds=3),
            {"status": 503, "type": "unavailable", "dependency": "runner", "detail": "away"},
            {"retry-after": "3"},
        ),
        (
            errors.OutcomeUnknown("runner", "who knows", run_id="run-x"),
            {"status": 503, "type": "outcome-unknown", "run_id": "run-x", "detail": "who knows"},
            {"retry-after": "1"},
        ),
        (errors.ControllerError("secret"), {"status": 500, "type": "internal"}, {}),
        (RuntimeError("secret"), {"status": 500, "type": "internal"}, {}),
    ],
)
async def test_errors_are_problems(
    client: httpx.AsyncClient, error: Exception, expected: dict[str, Any], headers: dict[str, str]
) -> None:
    """Each error of the library has its status, its type and its facts; what is not one tells nothing."""
    FAILURE[:] = [error]
    response = await client.get("/fail")
    document = told(response)
    assert {name: document[name] for name in expected} == {**expected, "type": PROBLEM + expected["type"]}
    assert response.headers.get("retry-after") == headers.get("retry-after")
    assert "secret" not in response.text


def _misfit() -> ValidationError:
    class Kept(BaseModel):
        the_reason: int

    with pytest.raises(ValidationError) as caught:
        Kept.model_validate({})
    return caught.value


async def test_an_unexpected_error_is_logged_with_its_trace(
    app: App, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The trace goes to the log, never to the caller; what is stored and misfits is our mistake, not theirs."""
    for error in (RuntimeError("the reason"), errors.ControllerError("another reason"), _misfit()):
        FAILURE[:] = [error]
        with caplog.at_level(logging.ERROR, logger="access"):
            response = await client.get("/fail")
        assert kind(response) == (500, "internal")
        assert "reason" not in response.text
        assert str(error) in caplog.text
        assert "Traceback" in caplog.text
        caplog.clear()


async def test_a_client_that_has_gone_is_no_error(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is answered, and it is written down as what it is."""
    FAILURE[:] = [ClientDisconnect()]
    with caplog.at_level(logging.INFO, logger="access"), pytest.raises(AssertionError):  # httpx: there is no answer
        await client.get("/fail")
    assert [(record.levelname, vars(record)["status"]) for record in caplog.records] == [("INFO", 499)]


async def test_an_unexpected_error_of_a_websocket_closes_it(app: App) -> None:
    """With a code and a reason, as every problem does."""
    FAILURE[:] = [RuntimeError("secret")]

    app = application(settings(), Endpoint("hear", "GET", "/hear", fail, socket=fail))
    sent = await shaken(app, {"host": "test"})
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert (sent[1]["code"], "secret" in sent[1]["reason"]) == (4500, False)


async def test_settings_that_cannot_be_used_are_an_error_of_ours() -> None:
    """Every call is answered with a problem until they are put right, and no text of theirs is shown."""
    tried: list[str] = []

    def opened() -> Any:
        tried.append("again")
        return Settings.read({"PORT": "secret"})

    async with asking(App(*endpoints(), open_platform=opened)) as client:
        for _ in range(2):
            response = await client.get("/give")
            assert (*kind(response), "secret" in response.text) == (500, "internal", False)
    assert len(tried) == 2


@pytest.mark.parametrize(
    ("content", "headers", "status", "kind"),
    [
        (b'{"pipeline": "p"}', {"content-type": "text/plain"}, 415, "media-type"),
        (b'{"pipeline": "p"}', {}, 415, "media-type"),
        (b'{"pipeline": "p"}', {**JSON, "content-encoding": "gzip"}, 415, "media-type"),
        (b"{", JSON, 400, "json"),
        (b"", JSON, 400, "json"),
        (b'{"pipeline": NaN}', JSON, 400, "json"),
        (b'{"pipeline": "\xff"}', JSON, 400, "json"),
        (b'{"parameters": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", JSON, 400, "json"),
        (b'{"pipeline": "' + b"p" * 200_000 + b'"}', JSON, 413, "too-long"),
        (b'["pipeline"]', JSON, 422, "invalid"),
    ],
)
async def test_bodies_that_cannot_be_used(
    client: httpx.AsyncClient, content: bytes, headers: dict[str, str], status: int, kind: str
) -> None:
    """Not JSON, not called JSON, too deep, too long, not an object: each refused for what it is."""
    document = told(await client.post("/take", content=content, headers=headers))
    assert (document["status"], document["type"]) == (status, PROBLEM + kind)


async def test_bodies_as_deep_as_it_says_are_taken(client: httpx.AsyncClient) -> None:
    """What the refusal of a deep one calls right is right."""
    for levels, status in ((197, 200), (198, 422), (200, 400)):  # two levels are the request's own
        nested = b"[" * levels + b"]" * levels
        content = b'{"pipeline": "p", "parameters": {"x": ' + nested + b"}}"
        assert (await client.post("/take", content=content, headers=JSON)).status_code == status


async def test_a_long_body_is_refused_as_it_comes(client: httpx.AsyncClient) -> None:
    """Without its length being told, no more of it is read than is needed to know."""
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield b"x" * 1024

    response = await client.post("/take", content=chunks(), headers=JSON)
    assert told(response)["limit_bytes"] == 128 * 1024
    assert read <= 130


async def test_every_misfit_of_a_body_is_pointed_at(client: httpx.AsyncClient) -> None:
    """All places at once, as JSON pointers, and what would be right there."""
    response = await client.post(
        "/take", json={"on_busy": "queue", "resume": "x", "parameters": {"": 1}, "workdir": "../x", "a/b": 1}
    )
    run_id = "a run's id as it was received: run- and 16 of the characters a-z and 2-7"
    assert {place["pointer"]: place["detail"] for place in told(response)["errors"]} == {
        "/pipeline": "is missing",
        "/workdir": "use a relative path of letters, digits and _ . - / in which each part begins with a letter, "
        "a digit or _ (no ..); at most 255 characters",
        "/parameters/": "use names of 1 to 256 characters",
        "/resume": f"use true, false, or {run_id}",
        "/on_busy": "use 'attach' or 'reject'",
        "/a~1b": "unknown; use pipeline, revision, profile, workdir, parameters, resume, triggered_by, on_busy",
    }


async def test_queries_that_cannot_be_used(client: httpx.AsyncClient) -> None:
    """Unknown, double and ill-typed parameters are refused and named."""
    for text, reason in (
        ("limit=x", "use a whole number"),
        ("limit=1&limit=2", "given more than once"),
        ("limits=1", "unknown; use limit, ticket"),
    ):
        response = await client.get(f"/give?{text}")
        name = text.partition("=")[0]
        assert told(response) == {
            "type": PROBLEM + "invalid",
            "title": "The request is not valid",
            "status": 422,
            "detail": f"{name}: {reason}",
            "errors": [{"pointer": name, "detail": reason}],
        }
    assert told(await client.post("/take?x=1", json={"pipeline": "p"}))["detail"] == "x: unknown; none is taken here"


async def test_idempotency_keys(client: httpx.AsyncClient) -> None:
    """A key is 1 to 255 printable characters."""
    good, bad = ("k", "a b", "~" * 255), ("k" * 256, "", " ", "a\tb", "\xe4")
    for key in (*good, *bad):
        response = await client.post(
            "/take", json={"pipeline": "p"}, headers={b"idempotency-key": key.encode("latin-1")}
        )
        assert response.status_code == (200 if key in good else 422), key
    twice = await client.post("/take", json={"pipeline": "p"}, headers=[("idempotency-key", "k")] * 2)
    assert told(twice)["errors"] == [{"pointer": "Idempotency-Key", "detail": "given more than once"}]
    assert json.loads((await client.post("/take", json={"pipeline": "p"})).content)["key"] is None


async def test_a_request_that_is_refused_at_the_door_reads_no_body(tmp_path: Path) -> None:
    """Nobody who may not come in makes the server take a body."""

    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    (tmp_path / "tokens").touch()
    locked = settings(auth="tokens", tokens_file=tmp_path / "tokens")
    async with asking(application(locked)) as client:
        response = await client.post("/take", content=unread(), headers=JSON)
        assert kind(response) == (401, "token")


async def test_a_request_leaves_nothing_to_be_collected(app: App) -> None:
    """No exchange is part of a circle: it is freed at once, not when somebody looks for garbage."""

    async def ask() -> None:
        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            pass

        scope = {"type": "http", "method": "GET", "path": "/give", "query_string": b"", "headers": [(b"host", b"test")]}
        await app(scope, receive, send)

    def exchanges() -> int:
        return sum(isinstance(one, Exchange) for one in gc.get_objects())

    await ask()
    gc.collect()
    gc.disable()
    try:
        before = exchanges()  # other tests' failures may hold some
        await ask()
        assert exchanges() == before
    finally:
        gc.enable()
