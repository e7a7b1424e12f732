"""Those who call the library in a history, and whether what each was told is the truth."""

import asyncio
from dataclasses import dataclass, field

from common import cancel as cancelling
from common import claim, look
from common.errors import Busy, ControllerError, KeyReused, NothingActive, OutcomeUnknown, RunNotFound, Unavailable
from common.jobs import info
from common.models import RunInfo, RunRequest
from common.phases import State
from tests.simulation.truth import Run
from tests.simulation.world import Actor, Process, World

FRESH_SECONDS = 1.0
_LOOKS = 25


@dataclass
class Callers:
    """What callers do, each as one coroutine.

    Attributes:
        keyed: the bodies that each Idempotency-Key was used with.
        answers: what each key was answered, in order.
    """

    world: World
    keyed: dict[str, set[str]] = field(default_factory=dict)
    answers: dict[str, list[tuple[str, bool]]] = field(default_factory=dict)

    async def start(self, actor: Actor, process: Process, key: str | None) -> None:
        """Start a run, or be attached."""
        world, rng = self.world, self.world.rng
        body = rng.choice(["main", "main", "main", "other"]) if key else "main"
        request = RunRequest(pipeline=body, on_busy="attach" if key else rng.choice(["attach", "attach", "reject"]))
        begin = world.time
        before = list(self.answers.get(key, ())) if key else []
        if key:
            self.keyed.setdefault(key, set()).add(body)
        try:
            claimed = await claim.start(process.platform, request, caller="me", key=key)
        except OutcomeUnknown as unknown:
            world.note(actor.name, f"=== {unknown!r}")
            return
        except (Busy, Unavailable) as refusal:
            world.note(actor.name, f"=== refused: {refusal!r}")
            if key is None:
                world.refused.add(world.made[actor.name])
            return
        except KeyReused:
            world.note(actor.name, "=== key reused")
            if len(self.keyed[str(key)]) < 2:
                world.broken.append(f"{actor.name}: its key was never used with another body")
            return
        run = claimed.run
        world.note(actor.name, f"=== {run.run_id} {run.status} attached={claimed.attached}")
        if not claimed.attached:
            self.accept(actor, run, body)
        elif key is None:
            world.refused.add(world.made[actor.name])
            decisions = [at for at in process.decisions if at >= begin]
            if not any(world.truth.was_active(run.run_id, at - FRESH_SECONDS, at) for at in decisions):
                world.broken.append(f"{actor.name} was attached to {run.run_id}, which was not active")
            if not world.truth.launched(run.run_id):
                world.broken.append(f"{actor.name} was attached to {run.run_id}, which nobody has launched")
        if key is not None:
            answer = (run.run_id, claimed.attached)
            calm = not world.weather.redis_away and not world.weather.redis_events
            if calm and before and answer not in before and begin < world.time:
                world.broken.append(f"{actor.name} got {answer} for a key that was answered with {before}")
            self.answers.setdefault(key, []).append(answer)

    def accept(self, actor: Actor, run: RunInfo, body: str) -> None:
        """Somebody was told that this run is theirs."""
        world = self.world
        world.accepted.setdefault(run.run_id, world.time)
        job = world.truth.last(run.run_id)
        if job is None or not (job.launched or job.sealed):
            world.broken.append(f"{actor.name} got {run.run_id}, which was not started")
        elif job.record["request"]["pipeline"] != body:
            world.broken.append(f"{actor.name} got {run.run_id}, which is of another request")

    async def cancel(self, actor: Actor, process: Process, by_id: bool) -> None:
        """Cancel what is active, or a run that somebody was told of."""
        world = self.world
        run_id = world.rng.choice(sorted(world.accepted)) if by_id and world.accepted else None
        begin = world.time
        try:
            cancelled = await cancelling.cancel(process.platform, by=actor.name, run_id=run_id)
        except NothingActive as nothing:
            world.note(actor.name, f"=== {nothing!r}")
            if run_id is None and not world.truth.was_active(None, begin, world.time):
                world.broken.append(f"{actor.name} was told that nothing is active")
            return
        except OutcomeUnknown as unknown:
            world.note(actor.name, f"=== {unknown!r}")
            return
        except ControllerError as refusal:
            world.note(actor.name, f"=== {refusal!r}")
            if any(job.marked_by == actor.name for job in world.truth.ever):
                world.broken.append(f"{actor.name} was refused, and its cancel was done")
            return
        run = cancelled.run
        world.note(actor.name, f"=== {run.run_id} {run.status}: {cancelled.detail}")
        job = world.truth.last(run.run_id)
        if run.status is not State.CANCELLING:
            self.compare(actor.name, run)
        elif job is None or job.marked_by is None:
            world.broken.append(f"{actor.name}: {run.run_id} is told to be cancelling, and is not")

    async def read(self, actor: Actor, process: Process, what: str) -> None:
        """Ask for the active run, for one that somebody was told of, or for the history."""
        world = self.world
        begin = world.time
        known = dict(world.accepted)
        try:
            match what:
                case "active":
                    run = await look.active(process.platform)
                    run_id = run.run_id if run is not None else None
                    world.note(actor.name, f"=== active: {run_id}")
                    if not world.truth.was_active(run_id, begin - FRESH_SECONDS, world.time):
                        world.broken.append(f"{actor.name} was told that {run_id} is active")
                case "run" if known:
                    run_id = world.rng.choice(sorted(known))
                    self.compare(actor.name, await look.run(process.platform, run_id))
                case _:
                    for run in (await look.history(process.platform, 100)).runs:
                        self.compare(actor.name, run)
        except Unavailable as away:
            world.note(actor.name, f"=== {away!r}")
        except RunNotFound as missing:
            if self.is_kept(str(missing.run_id)):
                world.broken.append(f"{actor.name} was told that {missing.run_id} does not exist")

    async def watch(self, actor: Actor, process: Process, gap_seconds: float) -> None:
        """Look at the run that is active again and again, until it has ended or for so many times: see its attempts."""
        world = self.world
        run_id, told = None, 0
        for _ in range(_LOOKS):
            await asyncio.sleep(world.rng.random() * gap_seconds)
            run_id = run_id or world.truth.active()
            if run_id is None:
                continue
            try:
                job = await process.platform.runner.job(run_id)
            except Unavailable:
                continue
            if job is None:
                return
            world.note(actor.name, f"=== {run_id} attempt {job.attempt}")
            self.compare(actor.name, info(job))
            if job.attempt < told and not world.truth.forgets:
                world.broken.append(f"{actor.name} was told of attempt {told} of {run_id}, and then of {job.attempt}")
            told = job.attempt
            if job.ended and not job.remains:
                return

    def compare(self, who: str, run: RunInfo) -> None:
        """What is told of an end, or of an attempt, is the truth, and for ever."""
        job = self.world.truth.last(run.run_id)
        if job is not None and run.attempt > max(1, len(job.heads)) and not self.world.truth.forgets:
            told = f"{who} was told of attempt {run.attempt} of {run.run_id}"
            self.world.broken.append(f"{told}, which has had {len(job.heads)}")
        if job is None:
            self.world.broken.append(f"{who} was told of {run.run_id}, which never was")
        elif run.status.terminal and run.status is not job.end:
            self.world.broken.append(f"{who} was told that {run.run_id} {run.status}; in truth {job.end}")
        # Who asks again with its key makes a run of the same id, be it while somebody is told that it is gone.
        elif run.status is State.UNKNOWN and not self.world.truth.was_gone(run.run_id):
            self.world.broken.append(f"{who} was told that the end of {run.run_id} is unknown")

    def is_kept(self, run_id: str) -> bool:
        """Whether retention certainly has a place for a run that was started: it is to be told of."""
        world, climate = self.world, self.world.weather.climate
        runs = {job.run_id: job for job in world.truth.ever if job.launched or job.sealed}
        if run_id not in runs:
            return False

        def created(job: Run) -> str:
            return str(job.record["created_at"])

        newer = sum(created(job) > created(runs[run_id]) for job in runs.values())
        return newer < climate.max_runs and world.time - world.truth.created[run_id] < climate.ttl_seconds
