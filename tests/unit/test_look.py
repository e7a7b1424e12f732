"""What readers tell where the listing of Jobs, or an early record, would mislead them."""

import fakeredis
import pytest

from common import claim, look
from common.models import CancelMark, RunRequest
from common.phases import State
from tests.unit import virtual
from tests.unit.cluster import Cluster, now
from tests.unit.mutation import mutate
from tests.unit.simulation import CALM, Actor, World, _actor, _virtual_names


def _told_with_pods_left(*, redis: bool) -> State:
    """What the history says of a cancelled run whose head is gone, and of whose pods one is not."""

    async def main() -> State:
        world = World("left", fakeredis.FakeRedis(), CALM)
        world.cluster = Cluster(world.rng, life_seconds=None)
        _actor.set(Actor("reader"))
        with _virtual_names(world):
            platform = world.process().platform
            run_id = (await claim.start(platform, RunRequest(pipeline="main"), caller="me")).run.run_id
            job = world.cluster.last(run_id)
            assert job is not None
            job.mark = CancelMark(requested_by="ada", requested_at=now())
            world.cluster.finish(run_id, "Failed", remains=1)
            world.store.flushall()
            world.redis_is_away = not redis
            (run,) = (await look.history(platform, 10)).runs
            return run.status

    return virtual.run(main())


@pytest.mark.parametrize("redis", [True, False])
def test_cancelled_is_not_told_from_a_listing(redis: bool) -> None:
    """A listing does not count what remains, so the run that has the slot is looked at by itself."""
    assert _told_with_pods_left(redis=redis) is State.CANCELLING


@pytest.mark.parametrize("redis", [True, False])
def test_that_needs_the_look(monkeypatch: pytest.MonkeyPatch, redis: bool) -> None:
    """Told from the listing it would be cancelled, and stay so in Redis."""
    changes = {"and job.holder != holder": "", "listed.inert or listed.holder == holder": "listed.inert"}
    mutate(monkeypatch, look._accepted, changes)
    assert _told_with_pods_left(redis=redis) is State.CANCELLED
