"""One seed, one history: callers, readers and cancels against the model cluster, disturbed at every step.

At the end all is calm, every caller is dead, and one fresh caller must get the slot; then what is told of the
runs is compared with the truth, and nothing may be left of any.
"""

import asyncio
import random
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from common import cancel as cancelling
from common import claim, look
from common.errors import Busy, NothingActive, RunNotFound, Unavailable
from common.models import RunRequest
from common.phases import State
from tests.simulation import virtual
from tests.simulation.callers import FRESH_SECONDS, Callers
from tests.simulation.weather import CALM, Weather
from tests.simulation.world import Actor, Process, World, actor

_T = TypeVar("_T")
_HANG_SECONDS = 600.0  # far more than all delays of one caller together
_ATTEMPTS_SECONDS = 300.0  # more than all attempts of a run and the times between them
_STEPS = 2_500  # of which most are questions to Redis while somebody else's turn runs out


class Trouble(AssertionError):
    """A promise was broken; the text is the trace of how."""


@dataclass
class History:
    """One history from beginning to end, and what it was seen to promise."""

    world: World
    callers: Callers = field(init=False)
    horizon: float = field(init=False)
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.callers = Callers(self.world)

    async def play(self) -> None:
        """Disturbed callers, then calm: one fresh caller, and the comparison with the truth."""
        world, rng = self.world, self.world.rng
        meeting = world.weather.keyed == 1
        self.horizon = rng.choice([0.05, 1.0, *([0.05] if meeting else [8.0, 40.0])])
        processes = [world.process() for _ in range(rng.randint(1, 3))]
        disturber = asyncio.create_task(world.redis_weather(self.horizon + 5))
        for number in range(6 if meeting else rng.randint(2, 6)):
            key = (
                rng.choice(["k1", "k1", "k1", "k1" if meeting else "k2"])
                if rng.random() < world.weather.keyed
                else None
            )
            begin = rng.random() * self.horizon
            self._spawn(processes, f"start{number}", self.callers.start, key, begin)
            if key and rng.random() < 0.5:
                self._spawn(processes, f"twin{number}", self.callers.start, key, begin)
        for number in range(rng.choice(world.weather.cancels)):
            self._spawn(processes, f"cancel{number}", self.callers.cancel, rng.random() < 0.2)
        for number in range(rng.choice([0, 2, 5])):
            self._spawn(processes, f"read{number}", self.callers.read, rng.choice(["active", "run", "history"]))
        for number in range(rng.choice([1, 2] if world.weather.climate.taken else [0, 0, 1])):
            self._spawn(processes, f"read{number}w", self.callers.watch, rng.choice([0.05, 1.0, 4.0]))
        living = [task for task in self.tasks if not task.done()]
        while living and world.time < _HANG_SECONDS:
            await asyncio.wait(living, timeout=5)
            living = [task for task in living if not task.done() and not self._is_dead(task)]
        if living:
            raise Trouble(f"{living[0].get_name()} neither died nor got an answer")
        for process in processes:
            process.dead = True
        disturber.cancel()
        world.calm()
        world.note("world", "--- all is calm, every caller is dead")
        await self._afterwards()

    def _spawn(
        self,
        processes: list[Process],
        name: str,
        what: Callable[..., Awaitable[None]],
        choice: Any,
        begin: float | None = None,
    ) -> None:
        rng = self.world.rng
        process = rng.choice(processes)
        caller = Actor(name, reads_only=name.startswith("read"))
        at = rng.random() * self.horizon if begin is None else begin

        async def later() -> None:
            actor.set(caller)
            await asyncio.sleep(at)
            if process.dead:
                return
            await what(caller, process, choice)

        task = asyncio.create_task(later(), name=f"{process.name} {name}")
        task.process = process  # type: ignore[attr-defined] # read by _is_dead only
        self.tasks.append(task)
        if rng.random() < self.world.weather.hang_up:
            asyncio.get_running_loop().call_later(at + rng.random() * 3, task.cancel)

    @staticmethod
    def _is_dead(task: "asyncio.Task[None]") -> bool:
        process: Process = task.process  # type: ignore[attr-defined] # set by _spawn
        return process.dead

    # Afterwards.

    async def _afterwards(self) -> None:
        world = self.world
        await self._fresh_caller("last")
        for job in world.truth.ever:
            if job.run_id in world.refused and job.launched:
                world.broken.append(f"{job.run_id} was launched, and its caller was refused or attached elsewhere")
        await self._histories("with Redis away" if world.redis_is_away else "at once")
        world.redis_is_away = False
        await asyncio.sleep(60)  # beyond every bound on freshness
        await self._histories("with Redis")
        await asyncio.sleep(600)
        await self._fresh_caller("sweeper")
        await self._nothing_is_left()
        world.end()

    async def _fresh_caller(self, name: str) -> None:
        """Never stuck: it gets the slot, in the end, within few steps."""
        world = self.world
        process = world.process()
        for attempt in range(8):
            caller = Actor(f"{name}{attempt}")
            actor.set(caller)
            try:
                claimed = await claim.start(process.platform, RunRequest(pipeline="main"), caller="me")
            except (Busy, Unavailable) as refusal:
                world.note(caller.name, f"=== {refusal!r}")
                continue
            world.note(caller.name, f"=== {claimed.run.run_id} attached={claimed.attached}")
            if caller.calls > _STEPS:
                world.broken.append(f"{caller.name} took {caller.calls} steps")
            if not claimed.attached:
                self.callers.accept(caller, claimed.run, "main")
            await self._until_over(claimed.run.run_id)
            await asyncio.sleep(FRESH_SECONDS)  # so long a record may go on to say that it is active
            if not claimed.attached:
                return
        raise Trouble("stuck: a fresh caller does not get the slot")

    async def _until_over(self, run_id: str) -> None:
        """Wait for a run's end; or so long that the next caller has to give it up, as no head of it comes."""
        world, patience = self.world, self.world.settings.start_deadline_seconds + _ATTEMPTS_SECONDS
        job, begin = world.truth.last(run_id), world.time
        while job is not None and job.live and world.time < begin + patience:
            await asyncio.sleep(1)

    async def _nothing_is_left(self) -> None:
        """Once run or cancel have come by, there are only the Jobs of ended runs and their ended heads."""
        world = self.world
        caller = Actor("cancel at the end")
        actor.set(caller)
        with suppress(NothingActive):
            await cancelling.cancel(world.process().platform, by=caller.name)
        await asyncio.sleep(60)  # the garbage collector comes late, too
        if left := world.left():
            world.broken.append(f"left behind: {left}")

    async def _histories(self, when: str) -> None:
        """Never lost: every run that was accepted, or launched, is there with its end, once, newest first."""
        world = self.world
        actor.set(Actor(f"history {when}", reads_only=True))
        platform = world.process().platform
        runs = list((await look.history(platform, 100)).runs)
        told = {run.run_id: run.status for run in runs}
        wanted = {job.run_id for job in world.truth.ever if job.launched} | set(world.accepted)
        for run_id in sorted(wanted):
            job = world.truth.last(run_id)
            truth = None if job is None else job.end
            known = {truth} if self.callers.is_kept(run_id) else {truth, None, State.UNKNOWN}
            # What Redis has just missed is missing in it until the next comparison with the Jobs is due.
            if told.get(run_id) not in known and (run_id in told or when != "at once"):
                world.broken.append(f"{when}: the history says {run_id} {told.get(run_id)}; in truth {truth}")
            try:
                status = (await look.run(platform, run_id)).status
            except RunNotFound:
                status = None
            if status is State.QUEUED and not self.callers.is_kept(run_id) and job is not None and not job.launched:
                continue  # a creation that came long after its run's whole life; what it has made is deleted as well
            if status not in known:
                world.broken.append(f"{when}: status says {run_id} {status}; in truth {truth}")
        queued = [run_id for run_id, state in told.items() if state is State.QUEUED]
        if queued:
            world.broken.append(f"{when}: the history has runs that were never accepted: {queued}")
        if len(told) != len(runs) or runs != sorted(runs, key=lambda run: run.created_at, reverse=True):
            world.broken.append(f"{when}: the history has a run twice, or in another order")
        if when == "with Redis":
            # Read again: a status that was asked for has its run recorded, though its retention may have passed.
            whole = await platform.store.page(100)
            pages = [await platform.store.page(100, None, {state}) for state in State]
            if sorted(run.run_id for page in pages for run in page.runs) != sorted(run.run_id for run in whole.runs):
                world.broken.append("the history by state is not the history")
        if (found_active := await look.active(platform)) is not None:
            world.broken.append(f"{when}: {found_active.run_id} is told to be active")


def scripted(store: Any, story: Callable[[World], Awaitable[_T]], weather: Weather = CALM) -> _T:
    """Run one story in calm weather; it may disturb single calls through `World.interfere`."""
    store.flushall()

    async def main() -> _T:
        world = World("scripted", store, weather)
        actor.set(Actor("somebody"))
        with world.names():
            result = await story(world)
        world.end()
        return result

    return virtual.run(main())


def play(seed: int | str | random.Random, store: Any, scripts: Callable[[str, str], str] | None = None) -> World:
    """Play one history, with the choices that follow from a seed, or those of a given chance.

    Raises:
        Trouble: a promise was broken.
    """
    store.flushall()

    async def main() -> World:
        world = World(seed, store)
        if scripts is not None:
            world.scripts = scripts
        world.note("world", f"seed {seed}: {world.weather}")
        with world.names():
            failures: list[BaseException] = []
            history = History(world)
            try:
                await history.play()
            except Exception as error:
                failures.append(error)
            ended = [task for task in history.tasks if task.done() and not task.cancelled()]
            failures += [failure for task in ended if (failure := task.exception()) is not None]
            world.broken += [f"not handled: {failure!r}" for failure in failures]
            world.end()
            if failures:
                world.note("world", "".join(traceback.format_exception(failures[0])))
            return world

    world = virtual.run(main())
    if world.broken:
        raise Trouble("\n".join([*world.trace(), "", *world.broken]))
    return world
