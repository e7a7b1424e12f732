"""What a run costs the API server: calls a second, and not a call more for all who ask and follow besides."""

import asyncio
from collections import Counter

import pytest

from common import claim, look
from common.models import RunRequest
from tests.simulation.history import scripted
from tests.simulation.redis_model import RedisModel
from tests.simulation.weather import Climate, Weather
from tests.simulation.world import Actor, World, actor

SECONDS = 60
REPLICAS, READERS = 3, 60
# One look a second, whoever asks for what: at the Lease, the Job and its pods; and now and then at all Jobs.
BOUND = 4 * SECONDS


def calls(readers: int) -> Counter[str]:
    """Calls to the API server, by what they are for, while a run goes on and so many ask for it every half second."""

    async def story(world: World) -> Counter[str]:
        processes = [world.process() for _ in range(REPLICAS)]
        await claim.start(processes[0].platform, RunRequest(pipeline="main"), caller="me", key=None)
        counted: Counter[str] = Counter()
        world.interfere = lambda what, act: counted.update([what.split()[0]])

        async def read(number: int) -> None:
            actor.set(Actor(f"reader {number}", reads_only=True))
            platform = processes[number % REPLICAS].platform
            until = world.time + SECONDS
            while world.time < until:
                assert (await look.active(platform)) is not None
                await look.run(platform, None)
                await look.history(platform, 20)
                await asyncio.sleep(0.5)

        await asyncio.gather(*(read(number) for number in range(readers)))
        return counted

    return scripted(RedisModel(), story, Weather(climate=Climate(life_seconds=None)))


@pytest.mark.slow
def test_readers_cost_the_api_server_nothing_more() -> None:
    """Sixty who ask three replicas for all there is twice a second, have it called within the same bound as one."""
    one, many = calls(1), calls(READERS)
    assert set(one) == set(many) == {"lease", "job", "pods", "jobs"}
    assert SECONDS < one.total() <= many.total() <= BOUND
