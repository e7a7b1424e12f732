"""The gate: by which name the server may be called, and from which pages."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from starlette.requests import HTTPConnection

from common.settings import Settings
from common.web.gate import address
from tests.unit.asking import application, asking, kind, settings, shaken, told

HOSTS = ("localhost", "127.0.0.1", "[::1]", "Api.Example.org", "*.wild.example")
PAGE = "https://portal.example.org"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server with several names."""
    async with asking(application(settings(allowed_hosts=HOSTS, cors_origins=(PAGE + "/",)))) as made:
        yield made


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "LocalHost",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:8000",
        "api.example.org",
        "API.EXAMPLE.ORG:443",
        "a.wild.example",
        "a.b.wild.example:80",
        "localhost:",
    ],
)
async def test_names_the_server_has(client: httpx.AsyncClient, host: str) -> None:
    """Whatever their case and port."""
    assert (await client.get("/give", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "evil-localhost",
        "1",  # what `[::1]` means where it is taken for a pattern
        "::1",
        "[::1",
        "[::1]evil.example",
        "[::1]:80:90",
        "[::2]",
        "localhost:80:90",
        "localhost:80@evil.example",
        "user@localhost",
        "localhost/",
        "localhost:port",
        "localhost evil",
        "wild.example",
        ".wild.example.evil",
        "evilwild.example",
        "*",
        "127.0.0.11",
        "l\xf6calhost",
    ],
)
async def test_names_the_server_has_not(client: httpx.AsyncClient, host: str) -> None:
    """A page whose name was rebound to this address comes in under one of them."""
    headers: Any = {"host": host.encode("latin-1")}
    for refused in (await client.get("/give", headers=headers), await client.get("/other", headers=headers)):
        assert kind(refused) == (421, "foreign-host")
        assert told(refused)["detail"] == (
            f"This is not the server of {host!r}. Names it may be called by are in its ALLOWED_HOSTS."
        )


async def test_any_name_where_a_star_says_so() -> None:
    """But still one that is a name."""
    async with asking(application(settings(allowed_hosts=("*",)))) as client:
        assert (await client.get("/give", headers={"host": "whatever.example:1"})).status_code == 200
        for host in ("", "a b"):
            assert kind(await client.get("/give", headers={"host": host})) == (421, "foreign-host")


@pytest.mark.parametrize(
    ("hosts", "count"), [([], "no"), (["localhost", "localhost"], "2"), (["localhost", "evil.example"], "2")]
)
async def test_a_request_has_one_host(client: httpx.AsyncClient, hosts: list[str], count: str) -> None:
    """None or several is 400: who stands in between may have believed another one."""
    request = client.build_request("GET", "/give")
    request.headers = httpx.Headers([("host", host) for host in hosts])
    refused = await client.send(request)
    assert kind(refused) == (400, "host")
    assert told(refused)["detail"] == f"A request names the server once, in Host; this one has {count} such headers."


@pytest.mark.parametrize("path", ["/healthz", "/health", "/metrics"])
async def test_probes_call_by_any_name(client: httpx.AsyncClient, path: str) -> None:
    """They use a pod's address, which no setting knows; and say nothing about a run."""
    assert (await client.get(path, headers={"host": "10.1.2.3:8080"})).status_code == 200
    request = client.build_request("GET", path)
    request.headers = httpx.Headers()
    assert (await client.send(request)).status_code == 200
    assert kind(await client.get(path + "/", headers={"host": "10.1.2.3:8080"})) == (421, "foreign-host")


OPEN = ["http://localhost", "https://localhost", "HTTP://LOCALHOST", PAGE, PAGE.upper()]
CLOSED = [
    "http://localhost:9000",
    "https://evil.example",
    "https://localhost.evil.example",
    "https://portal.example.org.evil.example",
    "http://portal.example.org",
    PAGE + ":8443",
    PAGE + "/",
    "null",
    "",
    "localhost",
    "http://[",
    "file://",
    "://localhost@evil",
    "https://evil.example/://localhost",
]


@pytest.mark.parametrize("origin", OPEN)
async def test_pages_that_may_change_something(client: httpx.AsyncClient, origin: str) -> None:
    """Those of the same host (whatever the scheme: TLS may end before the server), and those in the settings."""
    headers = {"host": "localhost", "origin": origin}
    assert (await client.post("/take", json={"pipeline": "p"}, headers=headers)).status_code == 200


@pytest.mark.parametrize("origin", CLOSED)
async def test_pages_that_may_not(client: httpx.AsyncClient, origin: str) -> None:
    """403 names the page; what only reads is left to CORS, which keeps the answer from the page."""
    headers = {"host": "localhost", "origin": origin}
    for method, path in (("POST", "/take"), ("DELETE", "/take"), ("OPTIONS", "/take"), ("POST", "/nowhere")):
        refused = await client.request(method, path, json={"pipeline": "p"}, headers=headers)
        assert kind(refused) == (403, "foreign-origin")
        assert told(refused)["detail"].startswith(f"A page from {origin.lower()} may not do this.")
    for method in ("GET", "HEAD"):
        read = await client.request(method, "/give", headers=headers)
        assert (read.status_code, "access-control-allow-origin" in read.headers) == (200, False)


async def test_one_of_two_origins_is_enough_to_refuse(client: httpx.AsyncClient) -> None:
    """No browser sends two."""
    headers = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "https://evil.example")]
    assert kind(await client.post("/take", json={"pipeline": "p"}, headers=headers)) == (403, "foreign-origin")


@pytest.mark.parametrize("origin", [*OPEN, *CLOSED])
async def test_any_page_where_a_star_says_so(origin: str) -> None:
    """`null` as well, which is what a file or a sandboxed frame sends."""
    async with asking(application(settings(cors_origins=("*",)))) as client:
        assert (await client.post("/take", json={"pipeline": "p"}, headers={"origin": origin})).status_code == 200


@pytest.mark.parametrize("origin", [*OPEN, None])
async def test_websockets_of_pages_that_may(origin: str | None) -> None:
    """And of programs, which send no origin."""
    app = application(settings(allowed_hosts=HOSTS, cors_origins=(PAGE,)))
    sent = await shaken(app, {"host": "localhost", **({"origin": origin} if origin is not None else {})})
    assert [message.get("text") for message in sent] == [None, "anonymous", None]


@pytest.mark.parametrize(
    ("headers", "code", "reason"),
    [
        *(({"host": "localhost", "origin": origin}, 4403, "A page from elsewhere: A page from ") for origin in CLOSED),
        ({"host": "evil.example"}, 4421, "Not the server of this name: This is not the server of 'evil.example'."),
        ({}, 4400, "Not one Host: A request names the server once, in Host; this one has no such headers."),
    ],
)
async def test_websockets_of_others(headers: dict[str, str], code: int, reason: str) -> None:
    """No CORS holds a WebSocket back, so its origin is checked; browsers hide why a handshake fails, so it is told."""
    app = application(settings(allowed_hosts=HOSTS, cors_origins=(PAGE,)))
    sent = await shaken(app, headers)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert sent[1]["code"] == code
    assert sent[1]["reason"].startswith(reason)


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (("192.0.2.1", 1), "ip:192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 1), "ip:2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::1", 1), "ip:2001:db8:1:2::/64"),
        (("2001:db8:1:3::1", 1), "ip:2001:db8:1:3::/64"),
        (("fe80::1%eth0", 1), "ip:fe80::/64"),
        (("::ffff:192.0.2.1", 1), "ip:192.0.2.1"),
        (("unix", 0), "ip:unknown"),
        (("1.2.3.4.5, <script>", 0), "ip:unknown"),
        (None, "ip:unknown"),
    ],
)
def test_where_a_caller_without_a_name_calls_from(client: tuple[str, int] | None, expected: str) -> None:
    """An IPv4 address, an IPv6 network; what is neither is one place, so that names made up gain nothing."""
    assert address(HTTPConnection({"type": "http", "client": client})) == expected


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ALLOWED_HOSTS", "a,b:80", "'b:80' is neither a name without scheme and port nor *.NAME nor *"),
        ("ALLOWED_HOSTS", "https://a", "'https://a' is neither a name without scheme and port nor *.NAME nor *"),
        ("ALLOWED_HOSTS", "a*", "'a*' is neither"),
        ("CORS_ORIGINS", "portal.example.org", "'portal.example.org' is neither SCHEME://HOST nor"),
        ("CORS_ORIGINS", "https://a/path", "'https://a/path' is neither"),
        ("CORS_ORIGINS", "null", "'null' is neither"),
        ("TRUSTED_PROXIES", "proxy", "'proxy' is no address and no network: "),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "'10.0.0.1/8' is no address and no network: 10.0.0.1/8 has host bits set"),
        ("TRUSTED_PROXIES", "*", "'*' is no address"),
    ],
)
def test_settings_that_could_never_fit_are_refused(name: str, value: str, said: str) -> None:
    """Rather than believed to protect."""
    with pytest.raises(Exception, match=f"{name}=.*: ") as caught:
        Settings.read({name: value})
    assert said in str(caught.value)


def test_settings_of_the_gate() -> None:
    """Origins are compared as browsers send them."""
    made = Settings.read(
        {"CORS_ORIGINS": "HTTPS://Portal.Example.org/, *", "TRUSTED_PROXIES": "10.0.0.0/8, ::1", "ALLOWED_HOSTS": "*.x"}
    )
    assert (made.cors_origins, made.trusted_proxies) == ((PAGE, "*"), ("10.0.0.0/8", "::1"))
    with pytest.raises(ValidationError):
        Settings(allowed_hosts=("a b",))
