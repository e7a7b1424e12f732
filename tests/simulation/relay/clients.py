"""Followers: each asks something, takes what comes at its own pace, and comes back with its last cursor when cut."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

from common.errors import ControllerError, RunNotFound
from common.events import Cursor
from common.follow import NEXT_RUN, Query
from common.frames import Farewell, Frame, Idle, Lines, Notice
from tests.simulation.relay.steps import running
from tests.simulation.relay.told import Told
from tests.simulation.relay.world import Server, World

_ALL = frozenset({"log", "status", "progress"})
_AGAIN_SECONDS = 0.5
_ROOM = 2  # frames that are on their way to a follower

everything = Query(
    run_id=None,
    after=None,
    tail=None,
    types=_ALL,
    transport="sse",
    follow=True,
)


class _Cut(Exception):  # it is no error
    """The connection is gone."""


class _Connection:
    """One request to a stream server."""

    def __init__(self, server: Server, query: Query) -> None:
        self._frames: asyncio.Queue[Frame | str | BaseException | None] = asyncio.Queue(_ROOM)
        self._cut = asyncio.Event()
        self._server = server
        server.closed.append(self._cut.set)
        token = running.set(server)
        self._task = asyncio.create_task(self._serve(query))
        running.reset(token)

    async def _serve(self, query: Query) -> None:
        """What the web layer does, but for the bytes."""
        try:
            followers = self._server.followers
            run_id = await followers.resolve(query)
            await self._frames.put(run_id)
            if run_id is not None:
                async with aclosing(followers.follow(query, run_id)) as frames:
                    async for frame in frames:
                        await self._frames.put(frame)
            await self._frames.put(None)
        except Exception as error:
            await self._frames.put(error)

    async def next(self) -> "Frame | str | None":
        """The run to begin with, and then each frame; None at the end."""
        if self._cut.is_set():
            raise _Cut
        getting = asyncio.ensure_future(self._frames.get())
        cut = asyncio.ensure_future(self._cut.wait())
        try:
            await asyncio.wait([getting, cut], return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                raise _Cut
            found = getting.result()
        finally:
            getting.cancel()
            cut.cancel()
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """The follower goes away."""
        self._server.closed.remove(self._cut.set)
        if not self._server.dead:
            self._task.cancel()


class Client:
    """One follower, until it has what it came for.

    Attributes:
        finished: it has.
    """

    def __init__(self, name: str, world: World, query: Query, *, patient: bool) -> None:
        self.name = name
        self.told = Told(name, world)
        self.finished = False
        self._world = world
        self._query = query
        self._patient = patient

    async def follow(self) -> None:
        """Go on until the end."""
        world, query = self._world, self._query
        while not self.finished:
            if self.told.cursor is not None:
                query = replace(query, after=self.told.cursor, tail=None)
            server = world.rng.choice(world.servers)
            connection = _Connection(server, query)
            world.steps.note(self.name, f"asks {server.name} for {query.run_id} after {query.after} tail {query.tail}")
            try:
                await self._take(connection, query)
            except _Cut:
                pass
            except RunNotFound:
                if query.run_id in world.ledger.runs:
                    raise
            except ControllerError as refusal:
                world.steps.note(self.name, f"refused: {refusal}")
            finally:
                connection.close()
            if not self.finished:
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _take(self, connection: _Connection, query: Query) -> None:
        world, told, rng = self._world, self.told, self._world.rng
        run_id = await connection.next()
        if run_id is None:  # it has seen it all
            self.finished = bool(told.complete)
            return
        assert isinstance(run_id, str)
        was_over = world.is_calm and run_id in world.ledger.over
        if self._goes_on(run_id):
            told.connects(query, run_id)
        while isinstance(frame := await connection.next(), Frame):
            if isinstance(frame, Idle):
                if self._has_all():  # it has come back for a run that there will not be
                    self.finished = True
                    return
                continue
            if isinstance(frame, Notice) and frame.event["type"] == "error":
                told.fails(frame)
                continue
            if isinstance(frame, Notice) and frame.cursor.run_id != told.run_id:
                told.next_run(frame.cursor.run_id)
            told.take(frame)
            if isinstance(frame, Lines) and told.cursor is not None:
                world.seen.append(told.cursor)
            if self._has_all():
                self.finished = True
                return
            if isinstance(frame, Farewell) or rng.random() < world.weather.cuts:
                return
            if not self._patient and rng.random() < 0.1:
                await asyncio.sleep(rng.choice([0.1, 2.0, 12.0]))
        if not query.follow and not told.failed:
            # What is there now may be less than was said, as long as somebody else relays it: of a run that is over
            # all of it is to be had by whoever asks again. Its end is not promised: he may leave before that is known.
            self.finished = bool(told.complete) or not was_over or told.is_at_the_end

    def _goes_on(self, run_id: str) -> bool:
        """Whether this is about a run, not what comes after one that was told to its end."""
        return run_id not in self.told.complete

    def _has_all(self) -> bool:
        """Whether there is nothing more to come, ever."""
        told, world = self.told, self._world
        if self._query.run_id == NEXT_RUN and self._query.follow:
            return world.runs_over and world.ledger.order[-1] in told.complete
        return bool(told.complete)


def draw(world: World, number: int) -> Client:
    """A follower that asks for something or other."""
    rng, ledger = world.rng, world.ledger
    kind = rng.choice(["all", "all", "all", "this", "tail", "tail", "after", "after", "next", "next", "types", "now"])
    query, run_id = everything, rng.choice(ledger.order) if ledger.order else None
    match kind:
        case "this":
            query = replace(query, run_id=run_id)
        case "tail":
            query = replace(query, tail=rng.choice([0, 1, 7, 30, 1000]))
        case "after":
            query = replace(query, run_id=rng.choice([None, run_id]), after=_cursor(world))
        case "next":
            query = replace(query, run_id=NEXT_RUN)
        case "types":
            query = replace(query, types=rng.choice([frozenset(), frozenset({"status"})]))
        case "now":
            query = replace(query, follow=False)
    return Client(f"f{number} {kind}", world, query, patient=rng.random() < 0.6)


def _cursor(world: World) -> Cursor | None:
    """A place where somebody was, or one in an attempt that there never was."""
    if not world.seen:
        return None
    cursor = world.rng.choice(world.seen)
    return cursor if world.rng.random() < 0.9 else cursor._replace(attempt=9)
