"""How often what goes wrong in one history, and what kind of cluster it is set in."""

import random
from dataclasses import dataclass, field, replace
from typing import Literal

_WEEK = 7 * 24 * 3600


@dataclass(frozen=True)
class Climate:
    """The cluster and the settings.

    Attributes:
        life_seconds: how long heads usually live; None: until a test ends them.
        leftovers: how probable it is that a head leaves its tasks behind.
        controller: how late the Job controller learns of a change: one of these, in seconds.
        max_runs, ttl_seconds: the history's bounds.
        page: how many objects are listed at once.
        max_attempts: how many heads a run may have.
        taken: how probable it is that a head is taken from its node.
        unready: how probable it is that one does not come up, for each reason that there is.
    """

    life_seconds: float | None = 3.0
    leftovers: float = 0.0
    controller: tuple[float, ...] = (0.0, 0.01)
    max_runs: int = 1000
    ttl_seconds: int = _WEEK
    start_deadline_seconds: float = 900
    task_resource: Literal["Pod", "Job"] = "Pod"
    page: int = 500
    max_attempts: int = 3
    taken: float = 0.0
    unready: float = 0.0

    @property
    def forgets(self) -> bool:
        """Whether runs are forgotten while a history goes on."""
        return self.max_runs < 100 or self.ttl_seconds < _WEEK

    @classmethod
    def draw(cls, rng: random.Random) -> "Climate":
        """Any."""
        return cls(
            life_seconds=rng.choice([3.0, 3.0, 0.3]),
            leftovers=rng.choice([0.0, 0.5]),
            controller=rng.choice([(0.0, 0.01), (0.0, 0.01, 0.1, 1.0), (0.1, 1.0, 5.0)]),
            max_runs=rng.choice([1000, 1000, 2]),
            ttl_seconds=rng.choice([_WEEK, _WEEK, 60]),
            start_deadline_seconds=rng.choice([900, 900, 1]),
            task_resource=rng.choice(["Pod", "Job"]),
            page=rng.choice([500, 500, 1]),
            max_attempts=rng.choice([3, 3, 2, 1]),
            taken=rng.choice([0.0, 0.0, 0.5, 0.9]),
            unready=rng.choice([0.0, 0.0, 0.1]),
        )


@dataclass(frozen=True)
class Weather:
    """How often what goes wrong, as chances of a step.

    Attributes:
        step_seconds: how long a step takes at most, when nothing holds it up.
        hang_up: how probable it is that a caller goes away.
        keyed: how probable it is that a start has an Idempotency-Key.
        cancels: how many cancels there may be.
    """

    step_seconds: float = 0.002
    hold_up: float = 0.0
    kill: float = 0.0
    runner_away: float = 0.0
    unknown: float = 0.0
    redis_away: float = 0.0
    redis_events: int = 0
    hang_up: float = 0.0
    keyed: float = 0.3
    cancels: tuple[int, ...] = (0, 1, 3)
    climate: Climate = field(default_factory=Climate)

    @classmethod
    def draw(cls, rng: random.Random) -> "Weather":
        """Each kind of trouble is absent, rare or frequent: together they would hide each other."""
        climate = Climate.draw(rng)
        kind = rng.random()
        if kind < 0.07:  # many of one key at once, past the lock, and runs that last until all is calm
            lasting = replace(climate, life_seconds=30.0)
            return cls(step_seconds=0.02, hold_up=0.3, runner_away=0.08, redis_away=1, keyed=1, climate=lasting)
        if kind < 0.37:  # at the fence alone
            away = rng.choice([0, 0.1])
            cancels = (0, 3, 3)
            return cls(step_seconds=0.02, hold_up=0.1, runner_away=away, unknown=0.5, cancels=cancels, climate=climate)
        return cls(
            step_seconds=rng.choice([0.001, 0.01, 0.05, 0.2]),
            hold_up=rng.choice([0, 0.02, 0.1]),
            kill=rng.choice([0, 0.01, 0.04]),
            runner_away=rng.choice([0, 0, 0.03, 0.1]),
            unknown=rng.choice([0, 0.1, 0.3, 0.5]),
            redis_away=rng.choice([0, 0, 0.05]),
            redis_events=rng.choice([0, 1, 4]),
            hang_up=rng.choice([0, 0.1]),
            keyed=rng.choice([0.3, 0.3, 0.9]),
            climate=climate,
        )


CALM = Weather()
