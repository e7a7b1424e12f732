"""Pages of other origins: what browsers are told they may do with this server's answers."""

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.responses import Response

from common.connection import Connection
from common.web.call import Call, Endpoint, Nothing
from tests.unit.asking import application, asking, endpoints, kind, settings

PAGE = "https://portal.example.org"
FROM_PAGE = {"origin": PAGE}


async def fail(call: Call[Nothing, Nothing]) -> Response:
    """Something goes wrong."""
    raise RuntimeError


ENDPOINTS = (*endpoints(), Endpoint("fail", "GET", "/fail", fail))


@pytest.fixture
async def client(connection: Connection) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that one page may call, a few times a day."""
    made = settings(cors_origins=(PAGE,), rate_limits=("give=2/day",))
    async with asking(application(made, *ENDPOINTS, connection=connection)) as client:
        yield client


def cors(response: httpx.Response) -> dict[str, str]:
    """What the answer says to a browser."""
    return {name: value for name, value in response.headers.items() if name.startswith(("access-control", "vary"))}


SHOWN = {
    "access-control-allow-origin": PAGE,
    "access-control-expose-headers": "Location, Retry-After, RateLimit, RateLimit-Policy, X-Request-Id",
    "vary": "Origin",
}


async def test_a_page_may_read_what_it_asked_for(client: httpx.AsyncClient) -> None:
    """And the headers that are of use to it; no cookie is asked for, so none may be sent."""
    answer = await client.get("/give", headers=FROM_PAGE)
    assert (answer.status_code, cors(answer)) == (200, SHOWN)
    assert {"ratelimit", "ratelimit-policy", "x-request-id"} <= set(answer.headers)


async def test_errors_can_be_read_as_well(client: httpx.AsyncClient) -> None:
    """A page that could not read why would call it a network error."""
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("DELETE", "/give", 405),
        ("GET", "/give?limit=x", 422),
        ("POST", "/take", 415),
        ("GET", "/fail", 500),
    ):
        answer = await client.request(method, path, headers=FROM_PAGE)
        assert (kind(answer)[0], cors(answer)) == (status, SHOWN), path
    await client.get("/give")
    over = await client.get("/give", headers=FROM_PAGE)
    assert (kind(over), cors(over)) == ((429, "too-many"), SHOWN)
    assert "retry-after" in over.headers


async def test_preflight(client: httpx.AsyncClient) -> None:
    """A browser that asks first is told what the functions take, and may remember it for ten minutes."""
    for method, headers in (("POST", "authorization, content-type, idempotency-key"), ("DELETE", "x-request-id")):
        asked = {"access-control-request-method": method, "access-control-request-headers": headers}
        answer = await client.options("/take", headers=FROM_PAGE | asked)
        assert answer.status_code == 200
        told = cors(answer)
        assert told.pop("access-control-allow-headers").split(", ") == [
            "Accept",
            "Accept-Language",
            "Authorization",
            "Content-Language",
            "Content-Type",
            "Idempotency-Key",
            "Last-Event-ID",
            "X-Request-Id",
        ]
        assert told.pop("vary").startswith("Origin")
        assert told == {
            "access-control-allow-origin": PAGE,
            "access-control-allow-methods": "GET, HEAD, POST, DELETE",
            "access-control-max-age": "600",
        }
        assert "ratelimit" not in answer.headers


@pytest.mark.parametrize(("method", "header"), [("PUT", "authorization"), ("POST", "x-other")])
async def test_a_preflight_for_what_is_not_taken(client: httpx.AsyncClient, method: str, header: str) -> None:
    """Is refused before the browser tries."""
    asked = {"access-control-request-method": method, "access-control-request-headers": header}
    assert (await client.options("/take", headers=FROM_PAGE | asked)).status_code == 400


@pytest.mark.parametrize("origin", ["https://evil.example", "null", PAGE + ":8443", PAGE + ".evil.example"])
async def test_other_pages(client: httpx.AsyncClient, origin: str) -> None:
    """May neither ask first, nor change anything, nor read."""
    asked = {"origin": origin, "access-control-request-method": "POST"}
    for refused in (
        await client.options("/take", headers=asked),
        await client.post("/take", json={"pipeline": "p"}, headers={"origin": origin}),
    ):
        assert kind(refused) == (403, "foreign-origin")
        assert "access-control-allow-origin" not in refused.headers
    read = await client.get("/give", headers={"origin": origin})
    assert (read.status_code, "access-control-allow-origin" in read.headers) == (200, False)


async def test_off_by_default() -> None:
    """Nothing is said to any page, and only pages of the same host may change anything."""
    async with asking(application(settings(), *ENDPOINTS)) as client:
        answer = await client.get("/give", headers=FROM_PAGE)
        assert (answer.status_code, cors(answer)) == (200, {})
        asked = {"access-control-request-method": "POST"}
        assert kind(await client.options("/take", headers=FROM_PAGE | asked)) == (403, "foreign-origin")
        assert kind(await client.options("/take", headers={"origin": "http://test", **asked})) == (405, "method")
        own = await client.post("/take", json={"pipeline": "p"}, headers={"origin": "http://test"})
        assert (own.status_code, cors(own)) == (200, {})


async def test_any_page() -> None:
    """A star is told as one: with it no browser sends what it keeps for the user."""
    async with asking(application(settings(cors_origins=("*",)), *ENDPOINTS)) as client:
        answer = await client.post("/take", json={"pipeline": "p"}, headers={"origin": "null"})
        assert answer.status_code == 200
        assert cors(answer)["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
