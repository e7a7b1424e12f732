"""Redis as it is met in real life: users with few rights, TLS, Sentinels, servers that hang or fail over, Valkey."""

import asyncio
import re
import shlex
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from common.connection import Connection
from common.errors import Unavailable
from common.events import ZERO, Line, LineId
from common.lock import Lock
from common.models import FollowerCounts, Progress, Relay, Streaming
from common.phases import State
from common.settings import Settings
from common.store import Store
from common.streams import Streams, Told
from tests.integration.redis_servers import EXECUTABLES, Authority, Server, executable, executable_with_tls
from tests.integration.server import ROOT, poll
from tests.unit.samples import run

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 60.0
PASSWORD = "c0rrect-horse"
LOG = b"a line"

Start = Callable[..., Server]
Open = Callable[..., Connection]


@pytest.fixture(params=EXECUTABLES)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of server."""
    return str(request.param)


@pytest.fixture
def start(tmp_path: Path, kind: str) -> Iterator[Start]:
    """Starts servers of that kind; all are gone in the end."""
    servers: list[Server] = []

    def make(*options: str, tls: bool = False) -> Server:
        found = executable_with_tls(kind) if tls else executable(kind)
        servers.append(Server(found, tmp_path / f"server-{len(servers)}", options, tls=tls))
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Opens connections by settings; all are closed in the end."""
    connections: list[Connection] = []

    def make(**settings: Any) -> Connection:
        connections.append(Connection.open(Settings(**settings)))
        return connections[-1]

    yield make
    for connection in connections:
        await connection.close()


async def refusal(connection: Connection) -> str:
    """Why Redis is of no use."""
    with pytest.raises(Unavailable) as caught:
        await connection.check()
    return str(caught.value).removeprefix("Redis cannot be used: ")


async def answers(connection: Connection) -> None:
    """Ask until Redis is of use."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                return await connection.check()
            except Unavailable:
                await asyncio.sleep(0.02)


async def everything(connection: Connection, prefix: str = "nfc") -> None:
    """Every operation of the library on Redis, on each of its paths."""
    from common.callers import Caller
    from common.tickets import Tickets
    from common.web.limits import Limiter

    settings = Settings(redis_prefix=prefix, history_max_runs=1, redis_log_lines=10)
    store, streams = Store(connection, settings), Streams(connection, settings)
    lock, tickets = Lock(connection, prefix), Tickets(connection, prefix)
    await connection.check()
    long_ago = run(1, created_at=datetime.now(UTC) - timedelta(days=20))
    assert await store.record(long_ago, await store.now_ms())
    assert await store.run(long_ago.run_id) == long_ago
    verdict = await lock.ask(run().run_id)
    assert await store.record(run(), await store.now_ms())
    assert await store.run(long_ago.run_id) is None, "one more than the history keeps"
    assert await lock.settle(verdict, run().run_id)
    assert (await lock.ask()).run == run()
    stale = await lock.ask(fresh_ms=0)
    assert await lock.give_up(stale)
    assert await store.record(run(status=State.SUCCEEDED), await store.now_ms())
    assert (await store.page(5)).runs == [run(status=State.SUCCEEDED)]
    assert await store.without_end([run().run_id, long_ago.run_id]) == [long_ago.run_id]
    await store.mark_listed(store.losses)
    assert await store.listed()
    assert await store.keep_answer("run-a", b"{}")
    assert await store.answer("run-a") == b"{}"
    line = Line(id=LineId.of_time(1_000_000), at_ns=1_000_000, stream="stdout", text=LOG)
    assert (await streams.append("run-a", 0, ZERO, [line], end=True))[0]
    assert [found.text for found in (await streams.read("run-a", 0, ZERO, 5)).lines] == [LOG]
    assert [found.text for found in (await streams.read("run-a", 0, ZERO, 5, block_ms=5)).lines] == [LOG]
    assert await streams.tail("run-a", 0, 1) == (ZERO, 0)
    more = [Line(id=LineId.of_time(ns), at_ns=ns, stream="stdout", text=LOG) for ns in range(12)]
    assert (await streams.append("run-a", 1, ZERO, more[1:]))[0]
    assert (await streams.read("run-a", 1, ZERO, 5)).trimmed == more[1].id, "one more than Redis holds"
    await streams.write_progress("run-a", Progress())
    await streams.write_relay("run-a", Relay(seen=1))
    assert await streams.relay("run-a") == Relay(seen=1)
    await streams.say_followers("run-a", "gone", FollowerCounts(text=1))
    await streams.say_followers("run-a", "gone", None)
    await streams.say_followers("run-a", "me", FollowerCounts(sse=2))
    streaming = Streaming(followers=FollowerCounts(sse=2), tailers=1, relay=Relay(seen=1))
    assert await streams.told("run-a") == Told(Progress(), streaming)
    assert await streams.pumping("run-a", 1, "me", insist=False, relay=Relay(seen=1)) == (more[-1].id, False)
    ticket = await tickets.issue(Caller("ada", "read"))
    assert await tickets.redeem(ticket) == Caller("ada", "read")
    allowance = await Limiter(settings, connection).count("run", "ada")
    assert allowance is not None
    assert allowance.policy == "run", "counted in this process, not in Redis"


def rule() -> list[str]:
    """The ACL rule that the README gives, with a password."""
    found = re.search(r"^ACL SETUSER nfc .*$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert found
    return shlex.split(found[0].replace("PASSWORD", PASSWORD))


async def test_the_acl_rule_of_the_readme_is_what_is_needed(start: Start, opened: Open) -> None:
    """With exactly that rule everything works, and everything that it allows is used."""
    server = start()
    server.ask(*rule())
    connection = opened(redis_url=f"{server.url}/1", redis_username="nfc", redis_password=PASSWORD)
    server.ask("CONFIG", "RESETSTAT")
    await everything(connection)
    stats = server.ask("INFO", "commandstats")
    used = {name.removeprefix("cmdstat_").partition("|")[0].lower() for name in stats}
    allowed = {part[1:].partition("|")[0] for part in rule() if part.startswith("+")}
    ours = {"hello", "config", "info", "client"}  # of the login, which needs no right, and of this test's own client
    assert used - ours == allowed
    assert server.ask("ACL", "LOG") == [], "something was refused, and nobody noticed"


async def test_the_acl_rule_keeps_to_its_prefix(start: Start, opened: Open) -> None:
    """Another deployment's keys, and what is not in the rule, are refused."""
    server = start()
    server.ask(*rule())
    connection = opened(redis_url=server.url, redis_username="nfc", redis_password=PASSWORD)
    await connection.check()
    with pytest.raises(Unavailable, match=r"No permissions|no permissions"):
        await Lock(connection, "other").ask()
    await answers(connection)
    with pytest.raises(Unavailable, match=r"no permissions.*flushall"):
        async with connection.use() as client:
            await client.flushall()


@pytest.mark.parametrize("given", ["wrong", None])
async def test_a_wrong_password_is_named_and_not_shown(start: Start, opened: Open, given: str | None) -> None:
    """The error says that it is the password, and nothing that anybody logs holds it."""
    server = start(f"requirepass {PASSWORD}")
    by_setting = opened(redis_url=server.url, redis_password=given and f"not-{PASSWORD}")
    by_url = opened(redis_url=f"redis://:not-{PASSWORD}@127.0.0.1:{server.port}" if given else server.url)
    for connection in (by_setting, by_url):
        reason = await refusal(connection)
        assert re.search("invalid username-password pair" if given else "authenticated|Authentication", reason)
        async with opened(redis_url=server.url, redis_password=PASSWORD).use() as client:
            assert PASSWORD not in reason + repr(client) + repr(client.connection_pool)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority that no system knows."""
    return Authority(tmp_path)


def tls_options(authority: Authority, alternative: str = "IP:127.0.0.1", clients: str = "no") -> list[str]:
    """A server's part of TLS."""
    certificate, key = authority.sign("server", alternative)
    files = [f"tls-cert-file {certificate}", f"tls-key-file {key}", f"tls-ca-cert-file {authority.certificate}"]
    return [*files, f"tls-auth-clients {clients}"]


async def test_tls(start: Start, opened: Open, authority: Authority, tmp_path: Path) -> None:
    """With the server's authority it works; with another, none or no TLS at all Redis is of no use."""
    port = start(*tls_options(authority), tls=True).port
    url, other = f"rediss://127.0.0.1:{port}/0", Authority(tmp_path, "other")
    await everything(opened(redis_url=url, redis_ca_file=authority.certificate))
    await opened(redis_url=f"{url}?ssl_cert_reqs=none").check()
    assert "CERTIFICATE_VERIFY_FAILED" in await refusal(opened(redis_url=url, redis_ca_file=other.certificate))
    assert "CERTIFICATE_VERIFY_FAILED" in await refusal(opened(redis_url=url))
    assert "onnection" in await refusal(opened(redis_url=f"redis://127.0.0.1:{port}"))


async def test_only_the_given_authority_is_trusted(
    start: Start, opened: Open, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's authorities are for who gives none: there are too many to have them all vouch for a Redis."""
    url = f"rediss://127.0.0.1:{start(*tls_options(authority), tls=True).port}"
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    await opened(redis_url=url).check()
    other = Authority(tmp_path, "other")
    assert "CERTIFICATE_VERIFY_FAILED" in await refusal(opened(redis_url=url, redis_ca_file=other.certificate))


async def test_certificates_are_read_once_and_again_when_renewed(
    start: Start, opened: Open, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst of connections reads the files once; later ones see what was put in their place."""
    url = f"rediss://127.0.0.1:{start(*tls_options(authority), tls=True).port}"
    given, made = tmp_path / "given.crt", 0
    given.write_bytes(Authority(tmp_path, "other").certificate.read_bytes())
    connection, make = opened(redis_url=url, redis_ca_file=given), ssl.create_default_context

    def counted(**options: Any) -> ssl.SSLContext:
        nonlocal made
        made += 1
        return make(**options)

    monkeypatch.setattr(ssl, "create_default_context", counted)
    monkeypatch.setattr("common.redis_client._CONTEXT_SECONDS", 0)
    assert "CERTIFICATE_VERIFY_FAILED" in await refusal(connection)
    given.write_bytes(authority.certificate.read_bytes())
    monkeypatch.setattr("common.redis_client._CONTEXT_SECONDS", 60)
    await answers(connection)
    made = 0
    await asyncio.gather(*(connection.check() for _ in range(10)))
    assert made == 0


async def test_tls_is_for_the_name(start: Start, opened: Open, authority: Authority) -> None:
    """A certificate for another host is refused, unless the URL says that it need not be for this one."""
    port = start(*tls_options(authority, "DNS:redis.example.org"), tls=True).port
    url = f"rediss://127.0.0.1:{port}"
    assert "IP address mismatch" in await refusal(opened(redis_url=url, redis_ca_file=authority.certificate))
    await opened(redis_url=f"{url}?ssl_check_hostname=false", redis_ca_file=authority.certificate).check()


async def test_mutual_tls(start: Start, opened: Open, authority: Authority) -> None:
    """A server that asks for a certificate is shown one, and refuses who has none."""
    port = start(*tls_options(authority, clients="yes"), tls=True).port
    certificate, key = authority.sign("client", "DNS:client")
    tls = {"redis_url": f"rediss://127.0.0.1:{port}", "redis_ca_file": authority.certificate}
    await everything(opened(**tls, redis_cert_file=certificate, redis_key_file=key))
    assert re.search("ertificate|reset by peer|closed", await refusal(opened(**tls)))


@pytest.mark.fault("Redis hangs, with a pool of connections open")
async def test_a_server_that_hangs_costs_one_time_out(start: Start, opened: Open) -> None:
    """Every connection is open and nobody answers: one time-out, then at once, then all is well again."""
    server = start()
    connection = opened(redis_url=server.url, redis_timeout_seconds=1)
    async with connection.use() as client:
        await asyncio.gather(*(client.ping() for _ in range(8)))  # a pool full of connections
    server.pause()
    for _ in ("over a connection of the pool", "over a new one"):
        assert re.match("Timeout ", await refusal(connection))
        assert await refusal(connection) == "Redis is away."  # nobody was asked
        await asyncio.sleep(0.5)  # as long as Redis is left alone
    server.resume()
    await everything(connection)


async def test_what_was_idle_when_a_server_hung_is_not_used_again(start: Start, opened: Open) -> None:
    """One failure is enough to know: not each connection of the pool has to be tried for as long."""
    server = start()
    connection = opened(redis_url=server.url, redis_timeout_seconds=0.5)
    async with connection.use() as client:
        await asyncio.gather(*(client.ping() for _ in range(8)))
        assert len(clients(server)) == 8
        server.pause()
        await refusal(connection)
        server.resume()
        for _ in poll("the connections to be closed"):
            if not clients(server):
                break


def clients(server: Server) -> list[str]:
    """The clients that a server has, without this one."""
    with server.admin() as admin:
        return [client["id"] for client in admin.client_list() if not client["cmd"].startswith("client")]


@pytest.mark.fault("Redis' master is made a replica")
async def test_a_master_that_was_demoted_is_left(start: Start, opened: Open) -> None:
    """A connection that led to the master is not written to, nor read from, once the server is a replica."""
    server, other = start(), start()
    connection = opened(redis_url=server.url)
    store = Store(connection, Settings())
    assert await store.record(run(), 1)
    server.ask("REPLICAOF", "127.0.0.1", str(other.port))
    with pytest.raises(Unavailable, match=r"READONLY|read only replica"):
        await store.record(run(1), 2)
    await asyncio.sleep(0.5)  # as long as Redis is left alone
    with pytest.raises(Unavailable, match=r"it is a replica; its master is needed\."):
        await store.run(run().run_id)
    server.ask("REPLICAOF", "NO", "ONE")
    await answers(connection)


def watched(start: Start, sentinels: int, *options: str, tls: bool = False) -> tuple[Server, Server, list[Server]]:
    """A master, its replica, and Sentinels that know both."""
    master = start(*options, tls=tls)
    replica = start(*options, f"replicaof 127.0.0.1 {master.port}", tls=tls)
    quorum = sentinels // 2 + 1
    told = [f"sentinel monitor main 127.0.0.1 {master.port} {quorum}", "sentinel down-after-milliseconds main 300"]
    return master, replica, [start(*options, *told, tls=tls) for _ in range(sentinels)]


def by_sentinel(sentinels: list[Server], **changes: Any) -> dict[str, Any]:
    """Settings that find Redis by its Sentinels."""
    places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
    settings = {"redis_url": "redis:///0", "redis_sentinels": places, "redis_sentinel_master": "main"}
    return {**settings, "redis_timeout_seconds": 1, **changes}


def known(sentinel: Server) -> dict[str, Any]:
    """What a Sentinel knows of the master."""
    with sentinel.admin() as admin:
        return dict(admin.sentinel_master("main"))


@pytest.mark.fault("Redis' master is killed (Sentinel)")
async def test_a_fail_over_is_survived(start: Start, opened: Open) -> None:
    """The master is killed: Redis is away until the Sentinels have a new one, which then has what was written."""
    master, replica, sentinels = watched(start, 3)
    for sentinel in sentinels:
        for _ in poll("a Sentinel to know the replica and the other Sentinels"):
            if (known(sentinel)["num-slaves"], known(sentinel)["num-other-sentinels"]) == (1, 2):
                break
    for _ in poll("the replica to follow"):
        if replica.ask("INFO", "replication")["master_link_status"] == "up":
            break
    connection = opened(**by_sentinel(sentinels))
    store = Store(connection, Settings())
    await everything(connection, "first")
    assert await store.record(run(), 1)
    for _ in poll("the record to be replicated"):
        if replica.ask("EXISTS", f"nfc:run:{run().run_id}"):
            break
    master.kill()
    await answers(connection)
    assert await store.run(run().run_id) == run()
    await everything(connection, "second")
    assert known(sentinels[0])["port"] == replica.port


async def test_sentinels_that_are_no_help(start: Start, opened: Open) -> None:
    """The error says what is wrong: an unknown master, a password, no Sentinel at all; and holds no password."""
    _, _, sentinels = watched(start, 1, f"requirepass {PASSWORD}", f"masterauth {PASSWORD}")
    right = by_sentinel(sentinels, redis_password=PASSWORD, redis_sentinel_password=PASSWORD)
    unknown = opened(**{**right, "redis_sentinel_master": "other"})
    assert await refusal(unknown) == "No master found for 'other'"
    wrong = opened(**{**right, "redis_sentinel_password": f"not-{PASSWORD}"})
    assert await refusal(wrong) == "No master found for 'main' : auth:AuthenticationError"
    sentinels[0].kill()
    assert await refusal(opened(**right)) == "No master found for 'main' : network:ConnectionError"


@pytest.mark.fault("a Sentinel hangs")
async def test_a_sentinel_that_hangs_is_passed_over(start: Start, opened: Open) -> None:
    """The others are asked in the time that one time-out takes."""
    master, _, sentinels = watched(start, 3)
    connection = opened(**by_sentinel(sentinels))
    sentinels[0].pause()
    begun = time.monotonic()
    await connection.check()
    assert time.monotonic() - begun < 1
    sentinels[0].resume()
    master.pause()
    begun = time.monotonic()
    await refusal(connection)
    assert time.monotonic() - begun < 3
    master.resume()


async def test_sentinels_over_tls(start: Start, opened: Open, authority: Authority) -> None:
    """With rediss:// the Sentinels are asked over TLS too, and trusted by the same authority."""
    options = [*tls_options(authority), "tls-replication yes"]
    _, _, sentinels = watched(start, 1, *options, tls=True)
    tls = by_sentinel(sentinels, redis_url="rediss:///1")
    await everything(opened(**tls, redis_ca_file=authority.certificate))
    assert await refusal(opened(**tls)) == "No master found for 'main' : network:ConnectionError"
