"""Redis in the middle of a run: emptied, set back, hung, killed, or without room. It costs speed, never truth."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.chaos.audit import Audit
from tests.chaos.conftest import Judge
from tests.chaos.disks import small_disk
from tests.chaos.midrun import followed
from tests.chaos.places import Cluster, Local, redis_server
from tests.integration.redis_servers import Server, free_port
from tests.integration.server import poll

pytestmark = pytest.mark.slow


def redis_of(audit: Audit) -> Server:
    """The Redis of the audit's place."""
    assert isinstance(audit.place, Local | Cluster)
    return audit.place.redis


def readiness(audit: Audit) -> str:
    """What the witness says of what it depends on."""
    return str(httpx.get(audit.witness.url + "/readyz", timeout=60).json()["status"])


def until_ready(audit: Audit, wanted: str) -> None:
    """Wait until the witness says so of what it depends on."""
    for _ in poll(f"the server to be {wanted}"):
        if readiness(audit) == wanted:
            return


@pytest.mark.fault("Redis is emptied (FLUSHALL) in the middle of a run")
def test_emptied(audit: Audit) -> None:
    """Whoever asks is attached to the run that goes on, its log is whole, and the history has what had ended before."""
    other = audit.place.server()
    run_id = audit.started(audit.witness)
    for server in (other, audit.witness):  # nobody follows, so it is they who have to look
        redis_of(audit).ask("FLUSHALL")
        answer = audit.gets_past(server)
        assert (answer.status_code, answer.json()["run_id"]) == (200, run_id)
    audit.check()
    with followed(audit, audit.witness, other):
        redis_of(audit).ask("FLUSHALL")
    audit.finish()


@pytest.mark.fault("Redis hangs in the middle of a run, with its connections open")
def test_hung(audit: Audit) -> None:
    """Answers come from the fence alone; a cancel and another start do, too."""
    other = audit.place.server()
    with followed(audit, audit.witness, other):
        redis_of(audit).pause()
        until_ready(audit, "degraded")
        audit.gets_past(audit.witness)
        redis_of(audit).resume()
        until_ready(audit, "ready")
    redis_of(audit).pause()
    audit.gone(audit.witness, audit.started(other))
    run_id = audit.started(audit.witness)
    redis_of(audit).resume()
    audit.gone(other, run_id)
    audit.finish()


@contextmanager
def guarded(directory: Path) -> Iterator[tuple[Server, Server, list[Server]]]:
    """A master, its replica, and Sentinels that know both."""
    master = redis_server(directory / "master")
    replica = redis_server(directory / "replica", f"replicaof 127.0.0.1 {master.port}")
    told = [f"sentinel monitor main 127.0.0.1 {master.port} 2", "sentinel down-after-milliseconds main 1000"]
    sentinels = [redis_server(directory / f"sentinel-{number}", *told) for number in range(3)]
    try:
        for sentinel in sentinels:
            for _ in poll("a Sentinel to know the replica and the other Sentinels"):
                with sentinel.admin() as admin:
                    known = admin.sentinel_master("main")
                if (known["num-slaves"], known["num-other-sentinels"]) == (1, 2):
                    break
        yield master, replica, sentinels
    finally:
        for server in (master, replica, *sentinels):
            server.kill()


@pytest.mark.fault("a replica that lacks the run becomes Redis' master in the middle of it (Sentinel)")
def test_set_back(directory: Path, judge: Judge) -> None:
    """The slot of before the run is believed by nobody who starts; what the new master lacks is found in the fence."""
    with guarded(directory) as (master, replica, sentinels):
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        with closing(
            Local(directory, REDIS_URL="redis:///0", REDIS_SENTINELS=places, REDIS_SENTINEL_MASTER="main")
        ) as local:
            audit = judge(local)
            other = local.server()
            audit.gone(other, audit.started(audit.witness))
            for _ in poll("the replica to have what came before"):
                if replica.ask("DBSIZE") == master.ask("DBSIZE"):
                    break
            for sentinel in sentinels:  # or they would join the two again
                sentinel.pause()
            replica.ask("REPLICAOF", "127.0.0.1", str(free_port()))
            with followed(audit, audit.witness, other) as run_id:
                master.kill()
                for sentinel in sentinels:
                    sentinel.resume()
                for _ in poll("the replica to be the master"):
                    if replica.ask("ROLE")[0] == b"master":
                        break
                assert not replica.ask("EXISTS", f"nfc:run:{run_id}")
                until_ready(audit, "ready")
            audit.finish()


@pytest.mark.fault("the disk under Redis is full")
def test_no_room_for_redis(directory: Path, judge: Judge) -> None:
    """It refuses to write; runs start, are cancelled and end without it, and it takes part again when there is room."""
    with (
        small_disk(directory / "disk") as disk,
        closing(Local(directory, f"dir {disk.path}", "appendfsync everysec")) as local,
    ):
        audit = judge(local)
        with followed(audit):
            disk.fill()
            until_accepted(local.redis, False)
            audit.gets_past(audit.witness)
            disk.free()
        disk.fill()
        until_accepted(local.redis, False)
        audit.gone(audit.witness, audit.started(audit.witness))
        run_id = audit.started(audit.witness, held=False)
        assert audit.witness.ended(run_id)["status"] == "succeeded"
        disk.free()
        until_accepted(local.redis, True)
        audit.finish()


def until_accepted(redis: Server, wanted: bool) -> None:
    """Write until Redis takes it, or refuses it."""
    for _ in poll("Redis to take or to refuse a write"):
        if redis.accepts() is wanted:
            return
