"""Each follower is told what was said, in order and once, or is told where it is gone; in many short histories.

FOLLOW_SIMULATIONS=20000 plays more of them; `make simulate FOLLOW_SEED=7` shows one. `make simulate` plays many more.
"""

import os

import pytest

from tests.simulation.redis_model import RedisModel
from tests.simulation.relay.history import play

_BLOCKS = 10
_SEEDS = int(os.environ.get("FOLLOW_SIMULATIONS", "300"))


@pytest.mark.parametrize("block", range(_BLOCKS))
def test_no_seed_breaks_a_promise(block: int) -> None:
    """No line twice, none out of order, none missing without a gap; no gap for what somebody holds; an end for all."""
    store = RedisModel()
    for seed in range(block, _SEEDS, _BLOCKS):
        play(seed, store)


def test_a_seed_gives_the_same_history_again() -> None:
    """What was seen once can be replayed."""
    store = RedisModel()
    assert [play(seed, store).trace() for seed in range(5)] == [play(seed, store).trace() for seed in range(5)]
