"""Single moments at the fence and in a cancel that random histories seldom meet."""

from collections.abc import Callable

import pytest

from common import cancel, claim, look
from common.errors import KeyReused, OutcomeUnknown, Unavailable
from common.jobs import Holder, Job
from common.lock import FRESH_MS, Verdict
from common.models import RunRequest
from common.phases import State
from tests.simulation.history import scripted
from tests.simulation.redis_model import RedisModel
from tests.simulation.world import World
from tests.unit.samples import MARK, record, run_id

_MAIN = RunRequest(pipeline="main")


@pytest.fixture
def store() -> RedisModel:
    """A Redis that is in this process."""
    return RedisModel()


def _launch(world: World) -> None:
    """Somebody else launches the run that the Lease names."""
    holder = world.at_once(world.runner.lease()).holder
    assert holder is not None
    world.at_once(world.runner.launch(_job(world, holder.run_id)))


def _job(world: World, name: str) -> Job:
    """A run's Job, which is there."""
    job = world.at_once(world.runner.job(name))
    assert job is not None
    return job


def _named(world: World, holder: Holder | None) -> None:
    """The Lease names somebody else from now on, or nobody."""
    world.at_once(world.runner.write_lease(world.at_once(world.runner.lease()), holder))


def _started(world: World) -> str:
    """The one run that was launched."""
    (name,) = [run.run_id for run in world.truth.ever if run.launched]
    return name


def _away(what: str, act: Callable[[], object]) -> None:
    """Refuse every call."""
    raise Unavailable("runner", "away")


def test_a_job_launched_while_its_caller_gives_up_is_told_or_unknown(store: RedisModel) -> None:
    """A refused caller never takes a run away that others have launched between its look and its delete."""

    async def story(world: World) -> None:
        def interfere(what: str, act: Callable[[], object]) -> None:
            if what.startswith("launch"):
                raise Unavailable("runner", "away")
            if what.startswith("delete"):
                _launch(world)

        world.interfere = interfere
        with pytest.raises(OutcomeUnknown) as caught:
            await claim.start(world.process().platform, _MAIN, caller="me")
        assert caught.value.run_id == _started(world)

    scripted(store, story)


def test_a_refused_caller_leaves_nothing_that_could_start(store: RedisModel) -> None:
    """Where the launch cannot be asked for, the Job is deleted, the Lease emptied, and the refusal is true."""

    async def story(world: World) -> None:
        def interfere(what: str, act: Callable[[], object]) -> None:
            if what.startswith("launch"):
                raise Unavailable("runner", "away")

        world.interfere = interfere
        with pytest.raises(Unavailable) as caught:
            await claim.start(world.process().platform, _MAIN, caller="me")
        assert type(caught.value) is Unavailable
        assert (await world.runner.jobs(), (await world.runner.lease()).holder) == ([], None)

    scripted(store, story)


def test_a_run_that_others_launched_is_told_although_another_has_the_slot(store: RedisModel) -> None:
    """A caller held up in taking the Lease learns that its run was launched, has ended, and was followed by another."""

    async def story(world: World) -> None:
        def interfere(what: str, act: Callable[[], object]) -> None:
            if not what.startswith("lease write run-aaaaaaaaaaaaaaab"):
                return
            world.interfere = lambda what, act: None
            act()
            _launch(world)
            world.cluster.finish("run-aaaaaaaaaaaaaaab", "Complete")
            _named(world, None)
            _named(world, world.at_once(world.runner.create(record(run_id=run_id(7)))).holder)
            _launch(world)
            raise OutcomeUnknown("runner", "time-out")

        world.interfere = interfere
        claimed = await claim.start(world.process().platform, _MAIN, caller="me")
        assert (claimed.run.run_id, claimed.run.status, claimed.attached) == (
            "run-aaaaaaaaaaaaaaab",
            State.SUCCEEDED,
            False,
        )

    scripted(store, story)


def test_a_job_that_may_have_run_is_not_created_again(store: RedisModel) -> None:
    """The caller's own Job was launched, ended and deleted by retention while it was held up: not known, not again."""

    async def story(world: World) -> None:
        def interfere(what: str, act: Callable[[], object]) -> None:
            if not what.startswith("lease write"):
                return
            world.interfere = lambda what, act: None
            act()
            _launch(world)
            name = _started(world)
            world.cluster.finish(name, "Complete")
            _named(world, None)
            world.at_once(world.runner.delete(_job(world, name)))
            raise OutcomeUnknown("runner", "time-out")

        world.interfere = interfere
        with pytest.raises(OutcomeUnknown):
            await claim.start(world.process().platform, _MAIN, caller="me")
        assert await world.runner.jobs() == []

    scripted(store, story)


def test_the_same_key_with_another_body_is_told_apart_from_a_fresh_record(store: RedisModel) -> None:
    """The twin that has no answer yet is known by its record alone, which does not say what was asked for."""

    async def story(world: World) -> None:
        platform = world.process().platform
        first = await claim.start(platform, _MAIN, caller="me", key="k")
        store.delete(f"nfc:answer:{first.run.run_id}")
        other = RunRequest(pipeline="other")
        record_of_other = await claim._record(platform, other, "me", "k")
        with pytest.raises(KeyReused):
            await claim._start(platform, record_of_other, claim._claim)
        again = await claim._start(platform, await claim._record(platform, _MAIN, "me", "k"), claim._claim)
        assert (again.run.run_id, again.attached) == (first.run.run_id, False)

    scripted(store, story)


def test_the_same_key_with_another_body_is_told_apart_when_redis_goes_away_meanwhile(
    store: RedisModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that does not tell enough is not believed because the second question gets no answer."""

    async def story(world: World) -> None:
        platform = world.process().platform
        first = await claim.start(platform, _MAIN, caller="me", key="k")
        ask = platform.lock.ask

        async def away_the_second_time(wants: str = "", *, fresh_ms: int = FRESH_MS) -> Verdict:
            if not fresh_ms:
                raise Unavailable("redis", "away")
            return await ask(wants, fresh_ms=fresh_ms)

        monkeypatch.setattr(platform.lock, "ask", away_the_second_time)
        other = await claim._record(platform, RunRequest(pipeline="other"), "me", "k")
        assert other.run_id == first.run.run_id
        with pytest.raises(KeyReused):
            await claim._start(platform, other, claim._claim)

    scripted(store, story)


def test_nobody_is_attached_to_a_queued_run_that_nobody_launches(store: RedisModel) -> None:
    """Its owner died before the launch and a reader has just recorded it: whoever is attached launches it first."""

    async def story(world: World) -> None:
        platform = world.process().platform
        job = await world.runner.create(record())
        _named(world, job.holder)
        seen = await look.active(platform)
        assert seen is not None
        assert (seen.run_id, seen.status) == (job.run_id, State.QUEUED)
        claimed = await claim.start(platform, _MAIN, caller="me")
        assert (claimed.run.run_id, claimed.attached) == (job.run_id, True)
        assert world.truth.launched(job.run_id)

    scripted(store, story)


def test_a_cancel_is_told_from_the_job_and_not_from_a_cached_record(store: RedisModel) -> None:
    """The slot was verified a moment ago and the end could not be recorded: the answer is the truth all the same."""

    async def story(world: World) -> None:
        platform = world.process().platform
        started = (await claim.start(platform, _MAIN, caller="me")).run.run_id
        await world.runner.stop(_job(world, started), MARK)
        world.cluster.finish(started, "Failed")
        _named(world, None)
        answer = await cancel.cancel(platform, by="me", run_id=started)
        assert (answer.run.status, answer.detail) == (
            State.CANCELLED,
            "The run is cancelled and nothing of it is left.",
        )

    scripted(store, story)


def test_a_cancel_goes_on_when_the_runner_is_away_after_the_mark(store: RedisModel) -> None:
    """What was accepted is not refused: the answer says that the run is being ended."""

    async def story(world: World) -> None:
        platform = world.process().platform
        await claim.start(platform, _MAIN, caller="me")

        def interfere(what: str, act: Callable[[], object]) -> None:
            if what.startswith("stop"):
                act()
                world.interfere = _away
                raise OutcomeUnknown("runner", "time-out")

        world.interfere = interfere
        with pytest.raises(OutcomeUnknown):
            await cancel.cancel(platform, by="me")
        world.interfere = lambda what, act: None
        answer = await cancel.cancel(platform, by="you")
        assert (answer.run.status, answer.run.message) == (State.CANCELLED, "Cancelled by me.")

    scripted(store, story)


def test_the_listing_counts_what_remains_of_a_cancelled_run(store: RedisModel) -> None:
    """The runner's list does not count pods, and "cancelled" promises that there are none."""

    async def story(world: World) -> None:
        platform = world.process().platform
        started = (await claim.start(platform, _MAIN, caller="me")).run.run_id
        await world.runner.stop(_job(world, started), MARK)
        world.cluster.finish(started, "Failed", remains=2)
        for away in (False, True):
            world.redis_is_away = away
            assert [run.status for run in (await look.history(platform, 9)).runs] == [State.CANCELLING]

    scripted(store, story)
