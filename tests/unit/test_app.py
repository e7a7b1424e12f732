"""The application around endpoints: routing, request ids, and every error as a problem document."""

import json
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from common import errors
from common.connection import Connection
from common.models import RunRequest
from common.platform import Platform
from common.runner import Runner
from common.settings import Settings
from common.web.answer import answer
from common.web.app import App, Endpoint
from common.web.input import body, idempotency_key, query

PROBLEM = "urn:nextflow-controller:problem:"


class Asked(BaseModel):
    """Query parameters of the test's endpoint."""

    model_config = ConfigDict(extra="forbid")

    limit: int = 1


async def take(request: Request, platform: Platform) -> Response:
    """Echo a RunRequest."""
    wanted = await body(request, RunRequest, platform.settings.max_body_bytes)
    return answer({"pipeline": wanted.pipeline, "key": idempotency_key(request)})


async def give(request: Request, platform: Platform) -> Response:
    """Echo the query."""
    return answer(query(request, Asked))


async def fail(request: Request, platform: Platform) -> Response:
    """Raise what the application's state says."""
    raise FAILURE[0]


FAILURE: list[BaseException] = []


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application with three endpoints."""
    monkeypatch.setattr("common.web.app.configure_logging", lambda level: None)
    monkeypatch.setattr("common.shutdown.Shutdown.listen", lambda self: None)
    settings = Settings()
    platform = Platform.assemble(settings, cast("Runner", object()), Connection.open(settings))
    endpoints = (
        Endpoint("take", "POST", "/take", take),
        Endpoint("give", "GET", "/give", give),
        Endpoint("fail", "GET", "/fail", fail),
    )
    transport = httpx.ASGITransport(App(*endpoints, open_platform=lambda: platform))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def told(response: httpx.Response) -> dict[str, Any]:
    """A problem document, without the request id, which must be the header's."""
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    document: dict[str, Any] = response.json()
    assert document.pop("request_id") == response.headers["x-request-id"]
    assert document["status"] == response.status_code
    return document


async def test_paths_and_methods(client: httpx.AsyncClient) -> None:
    """An unknown path is 404 and lists the paths there are; a wrong method is 405 with Allow."""
    assert told(await client.get("/other")) == {
        "type": PROBLEM + "not-found",
        "title": "No such path",
        "status": 404,
        "detail": "There is nothing at /other. Here are: /fail, /give, /take.",
    }
    wrong = await client.delete("/give")
    assert wrong.headers["allow"] == "GET"
    assert told(wrong)["type"] == PROBLEM + "method"
    assert (await client.head("/give")).status_code == 200


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
    assert {name: response.headers.get(name) for name in ("retry-after",)} == {
        "retry-after": headers.get("retry-after")
    }
    assert "secret" not in response.text


async def test_an_unexpected_error_is_logged_with_its_trace(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The trace goes to the log, never to the caller."""
    for error in (RuntimeError("the reason"), errors.ControllerError("another reason")):
        FAILURE[:] = [error]
        with caplog.at_level(logging.ERROR, logger="access"):
            assert "reason" not in (await client.get("/fail")).text
        assert str(error) in caplog.text


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("content", "headers", "status", "kind"),
    [
        (b'{"pipeline": "p"}', {"content-type": "text/plain"}, 415, "media-type"),
        (b'{"pipeline": "p"}', {}, 415, "media-type"),
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


async def test_every_misfit_of_a_body_is_pointed_at(client: httpx.AsyncClient) -> None:
    """All places at once, as JSON pointers."""
    response = await client.post("/take", json={"pipeline": "-x", "on_busy": "queue", "a/b": 1})
    assert {place["pointer"] for place in told(response)["errors"]} == {"/pipeline", "/on_busy", "/a~1b"}


async def test_queries_that_cannot_be_used(client: httpx.AsyncClient) -> None:
    """Unknown, double and ill-typed parameters are refused and pointed at."""
    for text in ("limit=x", "limit=1&limit=2", "limits=1"):
        response = await client.get(f"/give?{text}")
        assert response.status_code == 422
        assert [place["pointer"] for place in told(response)["errors"]] == ["/" + text.partition("=")[0]]


async def test_idempotency_keys(client: httpx.AsyncClient) -> None:
    """A key is 1 to 255 printable characters."""
    for key, status in (("k", 200), ("k" * 255, 200), ("k" * 256, 422), ("", 422), ("a\tb", 422)):
        response = await client.post("/take", json={"pipeline": "p"}, headers={"idempotency-key": key})
        assert response.status_code == status, key
    assert json.loads((await client.post("/take", json={"pipeline": "p"})).content)["key"] is None
