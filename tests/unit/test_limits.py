"""How often a caller may call: counted for all processes together, told to whoever calls."""

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from common.callers import add
from common.connection import Connection
from common.web.limits import Allowance, Limiter
from common.web.problem import Refused
from tests.redis_server import OwnRedis
from tests.unit.asking import application, asking, kind, settings, told

NOW = 1_893_456_000.0  # the turn of a minute, an hour and a day


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = NOW

    def time(self) -> float:
        """Seconds since 1970."""
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that limits are told by."""
    made = Clock()
    monkeypatch.setattr("common.web.limits.time", SimpleNamespace(time=made.time))
    return made


async def refused(limiter: Limiter, function: str = "run", caller: str = "ada") -> dict[str, str]:
    """The headers of a call that was one too many."""
    with pytest.raises(Refused) as caught:
        await limiter.count(function, caller)
    headers = caught.value.problem.headers
    return {name: headers[name] for name in ("ratelimit-policy", "ratelimit", "retry-after")}


async def test_two_processes_share_a_quota(client: "Redis", clock: Clock) -> None:
    """Whichever of them is called; what is left and for how long is exact."""
    processes = [Limiter(settings(rate_limits=("4/minute",)), Connection(client)) for _ in range(2)]
    clock.now += 12.4
    left = [await processes[number % 2].count("run", "ada") for number in range(4)]
    assert left == [Allowance("run", 4, 60, remaining, 48) for remaining in (3, 2, 1, 0)]
    assert left[0] is not None
    assert left[0].headers == {"ratelimit-policy": '"run";q=4;w=60', "ratelimit": '"run";r=3;t=48'}
    for limiter in processes:
        assert await refused(limiter) == {
            "ratelimit-policy": '"run";q=4;w=60',
            "ratelimit": '"run";r=0;t=48',
            "retry-after": "48",
        }


async def test_many_at_once_get_no_more_than_the_quota(client: "Redis") -> None:
    """A call is counted and judged in one step."""
    processes = [Limiter(settings(rate_limits=("10/minute",)), Connection(client)) for _ in range(2)]
    calls = [processes[number % 2].count("run", "ada") for number in range(40)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(answer, Refused) for answer in answers) == 30
    assert sorted(answer.left for answer in answers if isinstance(answer, Allowance)) == list(range(10))


@pytest.mark.parametrize(("unit", "seconds"), [("second", 1), ("minute", 60), ("hour", 3600), ("day", 86_400)])
async def test_a_window_ends_and_the_next_begins(
    connection: Connection, client: "Redis", clock: Clock, unit: str, seconds: int
) -> None:
    """On the clock's own turn, to the second, in which to come back is told; what was counted is forgotten."""
    limiter = Limiter(settings(rate_limits=(f"1/{unit}",)), connection)
    assert await limiter.count("run", "ada") == Allowance("run", 1, seconds, 0, seconds)
    clock.now += seconds - 0.01
    assert (await refused(limiter))["retry-after"] == "1"
    clock.now += 0.01
    assert await limiter.count("run", "ada") == Allowance("run", 1, seconds, 0, seconds)
    lifetimes = [await client.ttl(key) for key in await client.keys("nfc:limit:*")]
    assert len(lifetimes) == 2
    assert all(0 < lifetime <= seconds for lifetime in lifetimes)


async def test_functions_and_callers_are_counted_apart(connection: Connection) -> None:
    """Nobody uses up another's quota, nor one function's the other's."""
    limiter = Limiter(settings(rate_limits=("1/minute",)), connection)
    for function, caller in (("run", "ada"), ("run", "bob"), ("status", "ada"), ("run", "ip:192.0.2.1")):
        assert await limiter.count(function, caller)
    await refused(limiter)


async def test_a_function_may_have_its_own_limit(connection: Connection) -> None:
    """And the others the general one; `off`, or none at all, is none and costs nothing."""
    limiter = Limiter(settings(rate_limits=("9/minute", "run=2/hour")), connection)
    assert await limiter.count("run", "ada") == Allowance("run", 2, 3600, 1, 3600)
    assert await limiter.count("status", "ada") == Allowance("status", 9, 60, 8, 60)
    for none in ("off", "run=2/hour"):
        assert await Limiter(settings(rate_limits=(none,)), connection).count("status", "ada") is None
    for nowhere in (("off", "1/minute"), ()):
        assert await Limiter(settings(rate_limits=nowhere), connection).count("run", "ada") is None


async def test_an_emptied_redis_starts_anew(connection: Connection, client: "Redis") -> None:
    """Its scripts and counts are gone, nothing else is wrong."""
    limiter = Limiter(settings(rate_limits=("1/minute",)), connection)
    await limiter.count("run", "ada")
    await client.flushall()
    await client.script_flush()
    assert await limiter.count("run", "ada") == Allowance("run", 1, 60, 0, 60)


async def _without_redis(limiter: Limiter, caplog: pytest.LogCaptureFixture, reason: str) -> None:
    """A process alone counts for itself, says so in the policy's name, and in the log why."""
    with caplog.at_level(logging.WARNING, logger="common.web.limits"):
        assert await limiter.count("run", "ada") == Allowance("run-per-process", 2, 60, 1, 60)
        assert await limiter.count("run", "ada") == Allowance("run-per-process", 2, 60, 0, 60)
        assert await refused(limiter) == {
            "ratelimit-policy": '"run-per-process";q=2;w=60',
            "ratelimit": '"run-per-process";r=0;t=60',
            "retry-after": "60",
        }
    assert {record.message for record in caplog.records} == {"degraded: calls are counted in this process alone"}
    assert reason in vars(caplog.records[0])["cause"]


async def test_without_redis_each_process_counts_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    """Until Redis is there again: from then on all count together."""
    server = FakeServer()
    connections = [Connection(FakeAsyncRedis(server=server)) for _ in range(2)]
    processes = [Limiter(settings(rate_limits=("2/minute",)), connection) for connection in connections]
    assert await processes[0].count("run", "ada") == Allowance("run", 2, 60, 1, 60)
    server.connected = False
    for limiter in processes:
        caplog.clear()
        await _without_redis(limiter, caplog, "Redis")
    server.connected = True
    for connection in connections:
        connection._away_until = 0.0  # it is not asked for a moment after a failure
    assert await processes[1].count("run", "ada") == Allowance("run", 2, 60, 0, 60)
    assert (await refused(processes[0]))["ratelimit"] == '"run";r=0;t=60'
    for connection in connections:
        await connection.close()


@pytest.mark.slow
async def test_a_redis_that_is_stopped_and_started(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same with a real server, which has kept what it had counted."""
    server = OwnRedis(tmp_path / "r")
    made = settings(rate_limits=("2/minute",), redis_url=server.url)
    connection = Connection.open(made)
    limiter = Limiter(made, connection)
    try:
        assert await limiter.count("run", "ada") == Allowance("run", 2, 60, 1, 60)
        server.stop()
        await _without_redis(limiter, caplog, "Redis")
        server.start()
        connection._away_until = 0.0
        assert await limiter.count("run", "ada") == Allowance("run", 2, 60, 0, 60)
    finally:
        await connection.close()
        server.stop()


# On answers.


async def test_answers_tell_what_is_left(connection: Connection, clock: Clock) -> None:
    """Good ones, refusals and problems alike; paths for whoever operates it have no limit."""
    app = application(settings(rate_limits=("3/minute",)), connection=connection)
    clock.now += 0.5
    async with asking(app) as client:
        for left, path in ((2, "/give"), (1, "/give?limit=x")):
            answer = await client.get(path)
            assert (answer.headers["ratelimit-policy"], answer.headers["ratelimit"]) == (
                '"give";q=3;w=60',
                f'"give";r={left};t=60',
            )
        assert (await client.head("/give")).headers["ratelimit"] == '"give";r=0;t=60'
        over = await client.get("/give")
        assert kind(over) == (429, "too-many")
        assert (over.headers["ratelimit"], over.headers["retry-after"]) == ('"give";r=0;t=60', "60")
        assert told(over)["detail"] == (
            "At most 3 calls in 60 s. Come back in 60 s; "
            "to follow a run, keep one stream open instead of asking again and again."
        )
        for path in ("/healthz", "/health", "/metrics"):
            answer = await client.get(path)
            assert (answer.status_code, "ratelimit" in answer.headers) == (200, False)


async def test_callers_by_name_have_their_own_quota_wherever_they_are(connection: Connection, tmp_path: Path) -> None:
    """And those who are nobody share their address', so that guessing is limited, without locking anybody else out."""
    file = tmp_path / "tokens"
    tokens = {name: add(file, name, "read") for name in ("ada", "192.0.2.1")}
    made = settings(auth="tokens", tokens_file=file, rate_limits=("2/minute",))
    app = application(made, connection=connection)

    async def ask(address: str, token: str) -> int:
        async with asking(app, client=(address, 1)) as client:
            return (await client.get("/give", headers={"authorization": f"Bearer {token}"})).status_code

    assert [await ask("192.0.2.1", "wrong") for _ in range(3)] == [401, 401, 429]
    assert await ask("192.0.2.2", "wrong") == 401
    assert [await ask(f"192.0.2.{number}", tokens["ada"]) for number in (1, 2, 3)] == [200, 200, 429]
    assert await ask("192.0.2.1", tokens["192.0.2.1"]) == 200


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (("2001:db8:1:2::1", "2001:db8:1:2:ffff::2", "2001:db8:1:3::1"), [200, 429, 200]),
        (("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"), [200, 429, 200]),
        (("unix", "made-up", "192.0.2.1"), [200, 429, 200]),
    ],
)
async def test_callers_without_a_name_are_counted_by_address(
    connection: Connection, addresses: tuple[str, ...], expected: list[int]
) -> None:
    """Of IPv6 by network, as a machine has a whole one."""
    app = application(settings(rate_limits=("1/minute",)), connection=connection)
    statuses = []
    for address in addresses:
        async with asking(app, client=(address, 1)) as client:
            statuses.append((await client.get("/give")).status_code)
    assert statuses == expected


async def test_a_role_that_is_missing_is_counted(connection: Connection, tmp_path: Path) -> None:
    """Being refused is no way to call without end."""
    token = {"authorization": f"Bearer {add(tmp_path / 'tokens', 'ada', 'read')}"}
    made = settings(auth="tokens", tokens_file=tmp_path / "tokens", rate_limits=("take=1/minute",))
    async with asking(application(made, connection=connection)) as client:
        statuses = [(await client.post("/take", headers=token)).status_code for _ in range(2)]
    assert statuses == [403, 429]


# Through proxies.


CHAIN: dict[str, Any] = {"x-forwarded-for": "198.51.100.7, 203.0.113.9, 10.0.0.2"}


@pytest.mark.parametrize(
    ("trusted", "peer", "headers", "expected"),
    [
        ((), "10.0.0.1", CHAIN, "10.0.0.1"),
        (("10.0.0.0/8",), "192.0.2.1", CHAIN, "192.0.2.1"),
        (("10.0.0.0/8",), "10.0.0.1", CHAIN, "203.0.113.9"),
        (("10.0.0.1", "10.0.0.2", "203.0.113.0/24"), "10.0.0.1", CHAIN, "198.51.100.7"),
        (("10.0.0.0/8",), "10.0.0.1", {}, "10.0.0.1"),
        (("10.0.0.0/8",), "10.0.0.1", {"x-forwarded-for": ""}, "10.0.0.1"),
        (("10.0.0.0/8",), "10.0.0.1", {"x-forwarded-for": "[2001:db8::1]:443"}, "2001:db8::1"),
        (("10.0.0.0/8",), "10.0.0.1", {"x-forwarded-for": "nonsense"}, "nonsense"),
        (("10.0.0.0/8",), "10.0.0.1", {"x-real-ip": "1.2.3.4", "forwarded": "for=1.2.3.4"}, "10.0.0.1"),
    ],
)
async def test_whom_a_proxy_is_believed_to_speak_for(
    connection: Connection,
    caplog: pytest.LogCaptureFixture,
    trusted: tuple[str, ...],
    peer: str,
    headers: dict[str, str],
    expected: str,
) -> None:
    """The last that no trusted proxy is, if a trusted one says so: what anybody else writes there is ignored.

    It is what the access log has, and what is counted.
    """
    app = application(settings(trusted_proxies=trusted, rate_limits=("1/minute",)), connection=connection)
    with caplog.at_level(logging.INFO, logger="access"):
        async with asking(app, client=(peer, 1)) as client:
            assert (await client.get("/give", headers=headers)).status_code == 200
            # Whoever writes something else in front of it is the same.
            again = {name: f"192.0.2.99, {value}" for name, value in headers.items() if name == "x-forwarded-for"}
            assert (await client.get("/give", headers=again)).status_code == 429
    answered = [record for record in caplog.records if record.message == "answered"]
    assert [vars(record)["client"] for record in answered] == [expected] * 2
