"""Tickets: of use once, soon, to read one stream, and never written down."""

import hashlib
import logging
from pathlib import Path

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from common.callers import Caller, add
from common.connection import Connection
from common.errors import Unavailable
from common.tickets import TTL_SECONDS, Tickets
from common.web.app import App
from functions.stream.main import stream
from tests.unit.asking import application, asking, endpoints, kind, settings, shaken, told

TICKET_PATH = "/api/v1/pipeline/stream/ticket"


@pytest.fixture
def tickets(connection: Connection) -> Tickets:
    """The tickets of a deployment."""
    return Tickets(connection, "nfc")


async def test_a_ticket_is_of_use_once_and_to_read(tickets: Tickets) -> None:
    """Whoever it was issued to, and in whatever role."""
    ticket = await tickets.issue(Caller("ada", "run"))
    assert await tickets.redeem(ticket) == Caller("ada", "read")
    assert await tickets.redeem(ticket) is None
    for wrong in ("", ticket[:-1], ticket + "x", "*", "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")):
        assert await tickets.redeem(wrong) is None


async def test_redis_has_its_hash_only_and_not_for_long(tickets: Tickets, client: "Redis") -> None:
    """Whoever reads Redis can use no ticket."""
    ticket = await tickets.issue(Caller("ada", "run"))
    key = f"nfc:ticket:{hashlib.sha256(ticket.encode()).hexdigest()}"
    assert await client.keys("*") == [key.encode()]
    assert await client.get(key) == b"ada"
    assert 0 < await client.ttl(key) <= TTL_SECONDS == 30
    await client.pexpire(key, 0)
    assert await tickets.redeem(ticket) is None


async def test_two_at_once_are_not_both_let_in(tickets: Tickets) -> None:
    """It is taken and deleted in one step, in whichever process."""
    ticket = await tickets.issue(Caller("ada", "run"))
    assert [await tickets.redeem(ticket), await tickets.redeem(ticket)] == [Caller("ada", "read"), None]


async def test_other_deployments_tickets_are_none(connection: Connection, tickets: Tickets) -> None:
    """The prefix keeps them apart."""
    assert await Tickets(connection, "other").redeem(await tickets.issue(Caller("ada", "run"))) is None


async def test_without_redis_there_are_none() -> None:
    """Neither new ones nor old ones: it cannot be told, which is not the caller's mistake."""
    server = FakeServer()
    server.connected = False
    tickets = Tickets(Connection(FakeAsyncRedis(server=server)), "nfc")
    with pytest.raises(Unavailable):
        await tickets.issue(Caller("ada", "run"))
    with pytest.raises(Unavailable):
        await tickets.redeem("x")


# In URLs.


@pytest.fixture
def token(tmp_path: Path) -> str:
    """The token of a caller that may run."""
    return add(tmp_path / "tokens", "ada", "run")


@pytest.fixture
def app(tmp_path: Path, token: str, connection: Connection) -> App:
    """An application that asks for tokens and hands out tickets."""
    made = settings(auth="tokens", tokens_file=tmp_path / "tokens")
    return application(made, *endpoints(), *stream.app.endpoints, connection=connection)


async def _ticket(app: App, token: str) -> str:
    async with asking(app) as client:
        answer = await client.post(TICKET_PATH, headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    made: dict[str, str | int] = answer.json()
    assert made == {"ticket": made["ticket"], "expires_in_seconds": 30}
    return str(made["ticket"])


async def test_a_ticket_in_the_url_is_for_streams_alone(app: App, token: str) -> None:
    """Once; other paths do not look at it, and it neither runs anything nor makes another."""
    ticket = await _ticket(app, token)
    async with asking(app) as client:
        for method, path in (("GET", "/give"), ("POST", "/take"), ("POST", TICKET_PATH)):
            assert kind(await client.request(method, f"{path}?ticket={ticket}")) == (401, "token")
        heard = await client.get(f"/hear?ticket={ticket}")
        assert heard.json() == {"caller": "ada", "role": "read", "limit": 1}
        again = await client.get(f"/hear?ticket={ticket}")
        assert kind(again) == (401, "token")
        assert told(again)["detail"] == "This ticket was used, is too old or never was. Ask for a new one."
        assert again.headers["www-authenticate"] == 'Bearer realm="nextflow-controller", error="invalid_token"'
        assert ticket not in again.text


async def test_a_ticket_opens_a_websocket(app: App, token: str) -> None:
    """Once; after that 4401 and why."""
    query = f"ticket={await _ticket(app, token)}"
    sent = await shaken(app, {"host": "test"}, query=query)
    assert [message.get("text") for message in sent] == [None, "ada", None]
    sent = await shaken(app, {"host": "test"}, query=query)
    assert sent[-1] == {
        "type": "websocket.close",
        "code": 4401,
        "reason": "Who are you?: This ticket was used, is too old or never was. Ask for a new one.",
    }


async def test_a_good_token_goes_before_a_ticket(app: App, token: str) -> None:
    """Which is then still good."""
    ticket = await _ticket(app, token)
    async with asking(app) as client:
        path, shown = f"/hear?ticket={ticket}", {"authorization": f"Bearer {token}"}
        assert (await client.get(path, headers=shown)).json()["role"] == "run"
        assert (await client.get(path, headers={"authorization": "Bearer wrong"})).json()["role"] == "read"


async def test_tickets_and_tokens_are_never_logged(app: App, token: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither good nor bad ones, at any level."""
    with caplog.at_level(logging.DEBUG):
        ticket = await _ticket(app, token)
        async with asking(app) as client:
            for _ in range(2):
                await client.get(f"/hear?ticket={ticket}")
            await client.get("/hear?ticket=wr0ng", headers={"authorization": "Bearer wr0ng"})
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    written = " ".join(str(vars(record)) for record in ours)
    assert [vars(record)["caller"] for record in ours if record.name == "access"] == ["ada", "ada", None, None]
    assert not {secret for secret in (ticket, token, "wr0ng") if secret in written}


async def test_a_name_that_nobody_of_ours_has_written_is_still_a_reader_s(tickets: Tickets, client: "Redis") -> None:
    """Redis is believed that there is such a ticket, and it is of use to read, whatever stands there for a name."""
    key = f"nfc:ticket:{hashlib.sha256(b'ticket').hexdigest()}"
    await client.set(key, b"\xff")
    assert await tickets.redeem("ticket") == Caller("\ufffd", "read")
