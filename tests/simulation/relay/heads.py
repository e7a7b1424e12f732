"""A run as it happens: heads that speak and are taken from their nodes, files begun anew, and recorders that die."""

import asyncio
from contextlib import suppress

from common import look
from common.connection import Connection
from common.cri import RawLine
from common.errors import ControllerError
from common.events import LineId
from common.kube import objects
from common.recorder.kubernetes import OwnPod
from common.recorder.recorder import Recorder
from common.streams import Streams
from tests.simulation import virtual
from tests.simulation.relay.clock import Clock
from tests.simulation.relay.cluster import Head, JobState, RelayApi, record
from tests.simulation.relay.kubelet import Container
from tests.simulation.relay.ledger import Attempt
from tests.simulation.relay.steps import Process, running
from tests.simulation.relay.world import Server, World

_PODS = "/api/v1/namespaces/default/pods"
_ROTATION_SECONDS = 10.0  # no kubelet looks more often, by default
_DRAIN_SECONDS = 5.0  # what is left of a pod's grace
_BEHIND_NS = 3_000_000_000  # how far the next node's clock may be behind


class Talk:
    """What one attempt says, on its node's clock."""

    def __init__(self, world: World, head: Head, said: Attempt) -> None:
        self._world, self._head, self._said = world, head, said
        self._behind = world.rng.choice([0, 0, _BEHIND_NS * (head.attempt - 1)])
        self._last_ns = 0
        self._rotated = world.time

    def _now_ns(self) -> int:
        """The node's time: it may stand still, and in some histories it turns back."""
        rng = self._world.rng
        now = Clock.time_ns() - self._behind
        if rng.random() < 0.2 and self._last_ns:
            return self._last_ns
        if self._world.weather.turns_back and rng.random() < 0.1:
            return now - rng.choice([1_000, 1_000_000, 500_000_000])
        # A file that is begun anew is known by its first line, so that one is later than all before (see README).
        return max(now, self._last_ns + 1)

    def _line(self, *, newline: bool = True) -> None:
        rng, container = self._world.rng, self._head.container
        if self._said.lines and container.first == len(self._said.lines):
            at_ns = max(Clock.time_ns() - self._behind, self._last_ns + 1_000_000)
        else:
            at_ns = self._now_ns()
        self._last_ns = max(at_ns, self._last_ns)
        number = len(self._said.lines)
        text = f"{self._head.name[-4:]} {number}".encode() + b" x" * rng.choice([0, 0, 0, 40])
        self._said.say(RawLine(at_ns, "stdout", text), self._world.time)
        container.write(at_ns, text, newline=newline)

    def open(self) -> None:
        """Say what a head says first, which is no line of its log."""
        self._last_ns = self._now_ns()
        self._head.container.write(self._last_ns, objects.OPENING.encode())
        self._said.opened = LineId.of_time(self._last_ns)

    async def speak(self, until: float, lines: int) -> None:
        """Say about so many lines until then, in bursts and with pauses."""
        rng = self._world.rng
        self.open()
        while self._world.time < until and len(self._said.lines) < lines:
            for _ in range(rng.choice([1, 1, 3, 10])):
                self._line()
            await asyncio.sleep(min(until - self._world.time, rng.choice([0.0, 0.05, 0.5, 2.0, 4.0])))
            self._rotate()
        await asyncio.sleep(max(0.0, until - self._world.time) * rng.random())
        self._rotate()
        if rng.random() < 0.2:
            self._line(newline=False)

    def _rotate(self) -> None:
        world = self._world
        if not self._said.lines or not world.weather.rotates:  # no file is full of what the head says first
            return
        if world.time - self._rotated >= _ROTATION_SECONDS and world.rng.random() < 0.7:
            self._rotated = world.time
            self._head.container.rotate(len(self._said.lines))
            self._said.rotate(world.time)
            world.steps.note(self._head.name, f"*** a new file, from line {len(self._said.lines)}")


class Beside:
    """The recorder beside a head, which may be killed and is started again."""

    def __init__(self, world: World, head: Head) -> None:
        self._world, self._head = world, head
        self._ending = asyncio.Event()
        self._process: Process | None = None
        self._number = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, with a new process."""
        if not self._world.weather.recorder:
            return
        self._number += 1
        self._process = Process(f"r{self._head.name[-3:]}.{self._number}")
        token = running.set(self._process)
        self._task = asyncio.create_task(self._run(self._process))
        running.reset(token)

    async def _run(self, process: Process) -> None:
        world, head = self._world, self._head
        streams = Streams(Connection(world.redis.client(process)), world.settings)
        kept = world.volume.kept(head.run_id)
        await Recorder(
            source=OwnPod(RelayApi(world.cluster, process), _PODS, head.name, self._ending),
            streams=streams,
            run_id=head.run_id,
            attempt=head.attempt,
            directory=kept,
            trace=kept / "trace.txt",
            drain_seconds=_DRAIN_SECONDS,
        ).run()

    def kill(self) -> None:
        """Have it die."""
        if self._process is not None and not self._process.dead:
            self._world.steps.kill(self._process)
            if self._world.rng.random() < 0.3:
                self._world.volume.tear(self._head.run_id, self._head.attempt)

    async def live(self, deaths: int, until: float) -> None:
        """Be killed so many times until then."""
        rng = self._world.rng
        self.start()
        for at in sorted(self._world.time + rng.random() * (until - self._world.time) for _ in range(deaths)):
            await asyncio.sleep(max(0.0, at - self._world.time))
            self.kill()
            await asyncio.sleep(rng.choice([0.2, 2.0, 12.0]))
            self.start()

    async def end(self, seconds: float) -> None:
        """Be told to, and killed after so long."""
        self._ending.set()
        if self._task is not None:
            done, _ = await asyncio.wait([self._task], timeout=seconds)
            if done and not self._task.cancelled() and (error := self._task.exception()) is not None:
                self._world.broken.append(f"the recorder of {self._head.name} has failed: {error!r}")
            elif not done:
                self.kill()


async def run(world: World, number: int) -> None:
    """One run, from its launch to its end."""
    rng, weather = world.rng, world.weather
    job = JobState(record(number))
    run_id = job.record.run_id
    world.ledger.begin(run_id)
    world.cluster.jobs[run_id] = job
    accepting = asyncio.create_task(_accepted(world, run_id))
    attempts = rng.randint(1, weather.attempts)
    for attempt in range(1, attempts + 1):
        await asyncio.sleep(rng.choice([0.0, 0.3, 3.0]))
        await _attempt(world, job, attempt, last=attempt == attempts)
    await asyncio.sleep(rng.choice([0.0, 0.5, 3.0]))
    world.steps.note(run_id, "*** the run is over")
    job.complete()
    world.ledger.over[run_id] = world.time
    await accepting


async def _accepted(world: World, run_id: str) -> None:
    """Who has started a run records it, unless Redis is away."""
    caller = Server("run", world)
    for _ in range(5):
        with suppress(ControllerError):
            await look.run(caller.platform, run_id)
            return


async def _attempt(world: World, job: JobState, attempt: int, *, last: bool) -> None:
    rng, weather, run_id = world.rng, world.weather, job.record.run_id
    head = Head(run_id, attempt, Container())
    said = world.ledger.attempt(run_id)
    job.heads.append(head)
    job.changed()
    await asyncio.sleep(rng.choice([0.0, 0.5]))
    head.started, head.begun = True, virtual.now()
    world.steps.note(run_id, f"*** attempt {attempt} begins")
    until = world.time + weather.speak_seconds * (0.3 + rng.random())
    beside = Beside(world, head)
    deaths = rng.choice([0, 0, 1, 2]) if weather.kills else 0
    living = asyncio.create_task(beside.live(deaths, until))
    await Talk(world, head, said).speak(until, round(weather.lines * rng.random() * 1.5))
    said.over = world.time
    living.cancel()  # a recorder that is dead now is not started again
    if last or rng.random() < 0.5:  # it ends by itself, or is asked to by who drains its node
        head.container.end()
        head.exited = rng.random() < 0.8  # its pod may say so later
        head.ended = virtual.now()
        await beside.end(_DRAIN_SECONDS + 2)
        head.exited = True
        gone = rng.random() < (weather.vanishes if last else 0.7)
    else:  # put out by the kubelet, or its node was lost
        beside.kill()
        gone = rng.random() < 0.5
        head.cleared = not gone
    if gone or head.cleared:
        world.steps.note(run_id, f"*** the pod of attempt {attempt} is {'gone' if gone else 'cleared'}")
        head.gone = gone
        head.container.remove()
        said.remove(world.time)
    if not last:
        head.counted = True
        job.failed += 1
    job.changed()
