"""The promises, in many short histories with everything that can go wrong (see `history`).

SIMULATIONS=20000 plays more of them; SEED=123 plays that one and shows its trace. `make simulate` plays many more.
"""

import os
import random

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation.history import play
from tests.simulation.redis_model import RedisModel

_BLOCKS = 20
_SEEDS = int(os.environ.get("SIMULATIONS", "600"))


@pytest.fixture(scope="module")
def store() -> RedisModel:
    """A Redis that is in this process."""
    return RedisModel()


@pytest.mark.parametrize("block", range(_BLOCKS))
def test_no_seed_breaks_a_promise(store: RedisModel, block: int) -> None:
    """Never two, never stuck, never lost, nothing left, truthful cancels and readers, in every history."""
    if "SEED" in os.environ:
        if block == 0:
            print("\n".join(play(int(os.environ["SEED"]), store).trace()))
        return
    for seed in range(block, _SEEDS, _BLOCKS):
        play(seed, store)


class Chance(random.Random):
    """All goes well but for the chances whose numbers are named: there what may happen does."""

    def __init__(self, seed: int, struck: frozenset[int]) -> None:
        super().__init__(seed)
        self._struck = struck
        self._taken = 0

    def random(self) -> float:
        """The next chance."""
        self._taken += 1
        return super().random() / (1_000 if self._taken in self._struck else 2) + 0.5 * (
            self._taken not in self._struck
        )

    def getrandbits(self, k: int, /) -> int:
        """What `choice` is made of: no chance that is counted."""
        return super().getrandbits(k)


# The same ones each time, as with the seeds; with SIMULATIONS others as well.
@settings(
    max_examples=_SEEDS // 3,
    derandomize="SIMULATIONS" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(seed=st.integers(0, 999), struck=st.frozensets(st.integers(1, 500), max_size=25))
def test_no_faults_break_a_promise(store: RedisModel, seed: int, struck: frozenset[int]) -> None:
    """Hypothesis chooses where callers die, are held up, lose an answer; and shrinks to the few that matter."""
    play(Chance(seed, struck), store)


@pytest.mark.slow
def test_a_real_server_gives_the_same_histories(store: RedisModel, real: "redis.Redis") -> None:
    """A real Redis in place of the one in this process: not a step is another."""
    for seed in range(_SEEDS // 15):
        assert play(seed, real).trace() == play(seed, store).trace()


def test_a_seed_gives_the_same_history_again(store: RedisModel) -> None:
    """What was seen once can be replayed."""
    assert [play(seed, store).trace() for seed in range(5)] == [play(seed, store).trace() for seed in range(5)]
