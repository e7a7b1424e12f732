"""Meetings of callers that histories at random seldom bring about, arranged step by step."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from common import claim
from common.errors import OutcomeUnknown, Unavailable
from common.jobs import Job
from common.kube.runner import KubernetesRunner
from common.models import RunRequest
from tests.simulation.history import scripted
from tests.simulation.redis_model import RedisModel
from tests.simulation.world import World
from tests.unit.mutation import mutate

REQUEST = RunRequest(pipeline="main")


async def _refused_while_another_launches(world: World) -> tuple[Any, claim.Claimed]:
    """A caller whose launch gets no answer withdraws; just before its delete another launches the Job for it."""
    one, other = world.process().platform, world.process().platform
    runner: Any = one.runner
    delete: Callable[[Job], Awaitable[None]] = runner.delete
    met: list[claim.Claimed] = []

    async def no_launch(read: Job) -> Job:
        raise Unavailable("runner", "away")

    async def late_delete(read: Job) -> None:
        await asyncio.sleep(3)  # the other's turn to look has come meanwhile
        met.append(await claim.start(other, REQUEST, caller="other"))
        await delete(read)

    runner.launch, runner.delete = no_launch, late_delete
    try:
        return await claim.start(one, REQUEST, caller="one"), met[0]
    except Unavailable as refusal:
        return refusal, met[0]


def _play() -> tuple[World, Any, claim.Claimed]:
    async def story(world: World) -> tuple[World, Any, claim.Claimed]:
        return world, *await _refused_while_another_launches(world)

    return scripted(RedisModel(), story)


def test_a_run_that_another_launched_is_not_taken_back() -> None:
    """The refused caller is told that it does not know, with the run's id; whoever was attached keeps the run."""
    world, told, met = _play()
    assert isinstance(told, OutcomeUnknown)
    assert (told.run_id, met.attached) == (met.run.run_id, True)
    assert world.broken == []
    assert world.truth.launched(met.run.run_id)


def test_that_needs_a_conditional_delete(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a delete at whatever version the Job has, the run is gone under who follows it."""
    mutate(monkeypatch, KubernetesRunner.delete, {'"preconditions": conditions, ': ""})
    world, _, met = _play()
    assert world.broken == [f"{met.run.run_id} was deleted with its pods"]
