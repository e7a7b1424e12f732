"""One seed, one history: runs that speak, what carries their logs, what befalls it, and followers that come and go.

In the end all is calm, everybody comes to the end of what he follows, and so do fresh followers.
"""

import asyncio
import random
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.simulation import virtual
from tests.simulation.history import Trouble
from tests.simulation.relay import clients, heads
from tests.simulation.relay.clients import Client, everything
from tests.simulation.relay.clock import in_virtual_time, repeatable
from tests.simulation.relay.weather import Weather
from tests.simulation.relay.world import World

_PATIENCE_SECONDS = 600.0  # so long everybody may take once all is calm; slow ones with pages of two lines need it
_BETWEEN_SECONDS = (0.2, 3.0, 8.0)


class History:
    """One history from beginning to end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._clients: list[Client] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def play(self) -> None:
        """Weather, then calm, then fresh followers."""
        world, rng, weather = self.world, self.world.rng, self.world.weather
        for _ in range(weather.servers):
            world.server()
        horizon = 1.5 * weather.runs * weather.speak_seconds * rng.choice([0.5, 1.0])
        disturber = asyncio.create_task(world.disturb(horizon))
        running = asyncio.create_task(self._runs())
        for number in range(weather.followers):
            self.tasks.append(asyncio.create_task(self._comes(number, rng.random() * horizon)))
        await running
        await disturber
        world.calm()
        await self._ends("the others")
        for number, query in enumerate(
            [everything, replace(everything, tail=7), replace(everything, follow=False)], weather.followers
        ):
            run_id = rng.choice(world.ledger.order)
            client = Client(f"f{number} late", world, replace(query, run_id=run_id), patient=True)
            self.tasks.append(asyncio.create_task(self._follow(client)))
        await self._ends("the fresh ones")
        if not world.ledger.grows():
            world.broken.append("the history's own ids are in no order")

    async def _runs(self) -> None:
        world = self.world
        for number in range(world.weather.runs):
            if number:
                await asyncio.sleep(world.rng.choice(_BETWEEN_SECONDS))
            await heads.run(world, number)
        world.runs_over = True

    async def _comes(self, number: int, at: float) -> None:
        await asyncio.sleep(at)
        while not self.world.ledger.order or not self.world.ledger.runs[self.world.ledger.order[-1]]:
            await asyncio.sleep(0.1)
        await self._follow(clients.draw(self.world, number))

    async def _follow(self, client: Client) -> None:
        self._clients.append(client)
        await client.follow()
        self.world.steps.note(client.name, f"has all: {client.told.lines} lines, {client.told.gaps} gaps")

    async def _ends(self, who: str) -> None:
        done, left = await asyncio.wait(self.tasks, timeout=_PATIENCE_SECONDS)
        for task in done:
            task.result()
        if left:
            waiting = [client.name for client in self._clients if not client.finished]
            raise Trouble(f"{who} wait for ever: {waiting}")


def play(seed: int | str, store: Any, scripts: Callable[[str, str], str] | None = None) -> World:
    """Play one history.

    Raises:
        Trouble: a promise was broken.
    """
    store.flushall()
    rng = random.Random(f"relay {seed}")
    weather = Weather.draw(rng)

    async def main(directory: Path) -> World:
        world = World(rng, store, directory, weather)
        repeatable(world.steps.adopt)
        if scripts is not None:
            world.redis.scripts = scripts
        world.steps.note("world", f"seed {seed}: {weather}")
        with in_virtual_time(weather), world.watched():
            history = History(world)
            try:
                await history.play()
            except Exception as error:
                world.broken.append(f"{error}" if isinstance(error, AssertionError) else f"not handled: {error!r}")
                world.steps.note("world", "".join(traceback.format_exception(error)))
            world.steps.over = True
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(30)
            for task in history.tasks:
                if task.done() and not task.cancelled():
                    task.exception()  # or asyncio reports it whenever this is tidied up, be it in another test
        return world

    with tempfile.TemporaryDirectory(prefix="relay-") as directory:
        world = virtual.run(main(Path(directory)))
    if world.broken:
        raise Trouble("\n".join([*world.trace(), "", *world.broken]))
    return world
