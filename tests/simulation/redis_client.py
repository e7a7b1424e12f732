"""A Redis client whose every command is a step of the history, on a store that answers at once."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from common import claim
from tests.simulation.virtual import now

_T = TypeVar("_T")
_LUA = Path(claim.__file__).parent / "lua"
_NAMES = {path.read_text("utf-8"): path.stem for path in _LUA.iterdir()}


class Steps(Protocol):
    """Whoever decides what becomes of a command."""

    store: Any  # a RedisModel, or a synchronous client of a real server
    scripts: Callable[[str, str], str]

    async def redis_step(self, process: Any, what: str, act: Callable[[], _T]) -> _T:
        """One command, script or pipeline."""

    def expire_in(self, key: str, seconds: float) -> None:
        """Let a key expire in virtual time."""


class _Pool:
    """Connections, of which the model has none."""

    async def disconnect(self, *, inuse_connections: bool) -> None:
        pass


class Client:
    """What common.connection needs of redis.asyncio.Redis, on a synchronous client: each call is one step."""

    def __init__(self, world: Steps, process: Any) -> None:
        self._world, self._process = world, process
        self.connection_pool = _Pool()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def command(*args: Any, **options: Any) -> Any:
            method = getattr(self._world.store, name)
            return await self._world.redis_step(self._process, f"{name} {args}", lambda: method(*args, **options))

        return command

    def set_response_callback(self, command: str, callback: Any) -> None:
        """The store gives what is not worked on."""

    async def time(self) -> tuple[int, int]:
        """The time by Redis' clock."""
        return await self._world.redis_step(self._process, "time", _time)

    async def set(self, key: str, value: Any, *, ex: float, nx: bool = False) -> Any:
        """Set a key that expires."""

        def act() -> Any:
            done = self._world.store.set(key, value, nx=nx)
            if done:
                self._world.expire_in(key, ex)
            return done

        return await self._world.redis_step(self._process, f"set {key} nx={nx}", act)

    def pipeline(self, *, transaction: bool) -> "_Pipeline":
        """Commands that are sent together."""
        return _Pipeline(self._world, self._process, self._world.store.pipeline(transaction=transaction))

    def register_script(self, source: str) -> Callable[..., Awaitable[Any]]:
        """A script of the library's."""
        name, timed = _NAMES[source], "'TIME'" in source  # the others have their own last arguments
        script = self._world.store.register_script(self._world.scripts(name, in_virtual_time(source)))

        async def run(keys: list[str], args: list[Any]) -> Any:
            def act() -> Any:
                done = script(keys=keys, args=[*args, *_time()] if timed else args)
                if name == "record" and done:
                    self._world.expire_in(keys[0], float(args[4]))
                return done

            return await self._world.redis_step(self._process, name, act)

        return run


class _Pipeline:
    def __init__(self, world: Steps, process: Any, pipe: Any) -> None:
        self._world, self._process, self._pipe = world, process, pipe

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._pipe, name)
        return method

    async def execute(self) -> Any:
        return await self._world.redis_step(self._process, "pipeline", self._pipe.execute)


def in_virtual_time(source: str) -> str:
    """A script that takes the time from its last two arguments instead of from Redis."""
    return source.replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}")


def _time() -> tuple[int, int]:
    moment = now()
    return int(moment.timestamp()), moment.microsecond
