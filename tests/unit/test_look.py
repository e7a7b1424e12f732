"""What readers tell where the listing of Jobs, or an early record, would mislead them."""

import pytest

from common import claim, look
from common.models import RunRequest
from common.phases import State
from tests.simulation.history import scripted
from tests.simulation.redis_model import RedisModel
from tests.simulation.world import World
from tests.unit.mutation import mutate
from tests.unit.samples import MARK


def _told_with_pods_left(*, redis: bool) -> State:
    """What the history says of a cancelled run whose head is gone, and of whose pods one is not."""

    async def story(world: World) -> State:
        platform = world.process().platform
        run_id = (await claim.start(platform, RunRequest(pipeline="main"), caller="me")).run.run_id
        job = await world.runner.job(run_id)
        assert job is not None
        await world.runner.stop(job, MARK)
        world.cluster.finish(run_id, "Failed", remains=1)
        world.store.flushall()
        world.redis_is_away = not redis
        (run,) = (await look.history(platform, 10)).runs
        return run.status

    return scripted(RedisModel(), story)


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
