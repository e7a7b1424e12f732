"""How often a caller may call a function: counted in Redis for all replicas together.

The `limits` library keeps the counts. Windows are aligned to the clock, so that one increment is the
whole question and the answer can say when the window ends without another. With Redis away each
process counts for itself, and says so in the policy's name.
"""

import logging
import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.connection import Connection
from common.errors import Unavailable
from common.flights import Flights
from common.settings import Settings
from common.web.problem import Problem, TooMany, problem

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.aio.storage import Storage

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a caller has left, as `RateLimit` headers tell it (draft-ietf-httpapi-ratelimit-headers-10)."""

    policy: str
    quota: int
    window_seconds: int
    left: int
    reset_seconds: int

    @property
    def headers(self) -> dict[str, str]:
        return {
            "ratelimit-policy": f'"{self.policy}";q={self.quota};w={self.window_seconds}',
            "ratelimit": f'"{self.policy}";r={max(0, self.left)};t={self.reset_seconds}',
        }


class Limiter:
    """The limits of one process' functions."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        self._items: dict[str, RateLimitItem | None] = {}
        self._flights = Flights()
        self._waiting: Counter[str] = Counter()
        self._redis: Storage | None = None
        self._memory: Storage | None = None

    async def count(self, function: str, caller: str) -> Allowance | None:
        """Count a call; None where there is no limit.

        Raises:
            TooMany: it was one too many.
        """
        item = self._item(function)
        if item is None:
            return None
        window, now = item.get_expiry(), time.time()
        key = item.key_for(caller, str(int(now // window)))
        try:
            policy, count = function, await self._place(key, window)
        except Unavailable as away:
            log.warning("degraded: calls are counted in this process alone", extra={"cause": str(away)})
            policy, count = f"{function}-per-process", await self._in_memory(key, window)
        allowance = Allowance(policy, item.amount, window, item.amount - count, math.ceil(window - now % window))
        if count > item.amount:
            raise TooMany(_too_many(allowance))
        return allowance

    def _item(self, function: str) -> "RateLimitItem | None":
        if function not in self._items:
            limit = self._settings.rate_limit(function)
            self._items[function] = _parsed(limit, function) if limit else None
        return self._items[function]

    async def _place(self, key: str, window_seconds: int) -> int:
        """Which call of its window this one is; calls that come at once share one way to Redis."""
        self._waiting[key] += 1
        place = self._waiting[key]
        before = await self._flights.share(key, lambda: self._round(key, window_seconds))
        return before + place

    async def _round(self, key: str, window_seconds: int) -> int:
        """Count all who wait; how many came before them."""
        waiting = self._waiting.pop(key)
        return await self._in_redis(key, window_seconds, waiting) - waiting

    async def _in_redis(self, key: str, window_seconds: int, amount: int) -> int:
        async with self._connection.use() as client:
            if self._redis is None:
                from limits.aio.storage import RedisStorage

                self._redis = RedisStorage(
                    "async+redis://",
                    implementation="redispy",
                    key_prefix=f"{self._settings.redis_prefix}:limit",
                    connection_pool=client.connection_pool,  # type: ignore[arg-type] # as its documentation says
                )
            return await self._redis.incr(key, window_seconds, amount)

    async def _in_memory(self, key: str, window_seconds: int) -> int:
        if self._memory is None:
            from limits.aio.storage import MemoryStorage

            self._memory = MemoryStorage()
        return await self._memory.incr(key, window_seconds)


def _parsed(limit: str, function: str) -> "RateLimitItem":
    from limits import parse

    item = parse(limit)
    item.namespace = function
    return item


def _too_many(allowance: Allowance) -> Problem:
    detail = (
        f"At most {allowance.quota} calls in {allowance.window_seconds} s. Come back in {allowance.reset_seconds} s; "
        "to follow a run, keep one stream open instead of asking again and again."
    )
    headers = {**allowance.headers, "retry-after": str(allowance.reset_seconds)}
    return problem(429, "too-many", "Too many calls", detail, headers=headers)
