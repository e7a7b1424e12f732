"""Play many histories, on all cores: `make simulate SEEDS=100000`; `make simulate SEED=7` replays one.

Exits with 1 at the first history that breaks a promise, and shows its trace.
"""

import logging
import multiprocessing
import os
import time
from collections.abc import Sequence

from tests.simulation.history import Trouble, play
from tests.simulation.redis_model import RedisModel

_BLOCK = 50
_PROGRESS_SECONDS = 15


def main() -> int:
    """Play as many as the environment's SEEDS says, or its one SEED; the exit code."""
    logging.disable(logging.CRITICAL)  # what goes wrong is meant to
    if "SEED" in os.environ:
        try:
            print("\n".join(play(int(os.environ["SEED"]), RedisModel()).trace()))
        except Trouble as trouble:
            print(trouble)
            return 1
        return 0
    wanted = int(os.environ.get("SEEDS", "5000"))
    blocks = [range(first, min(first + _BLOCK, wanted)) for first in range(0, wanted, _BLOCK)]
    begun = told = time.monotonic()
    played = 0
    with multiprocessing.get_context("spawn").Pool() as pool:
        for count, failed in pool.imap_unordered(play_block, blocks):
            played += count
            if failed is not None:
                seed, trace = failed
                print(f"{trace}\n\nsimulate: seed {seed} breaks a promise. Again: make simulate SEED={seed}")
                return 1
            if time.monotonic() - told > _PROGRESS_SECONDS:
                told = time.monotonic()
                print(f"simulate: {played} of {wanted} histories, {told - begun:.0f} s", flush=True)
    print(f"simulate: {played} histories, no promise broken, {time.monotonic() - begun:.0f} s")
    return 0


def play_block(seeds: Sequence[int]) -> tuple[int, tuple[int, str] | None]:
    """How many of the seeds were played, and the first that failed with its trace."""
    logging.disable(logging.CRITICAL)
    store = RedisModel()
    for count, seed in enumerate(seeds):
        try:
            play(seed, store)
        except Trouble as trouble:
            return count, (seed, str(trouble))
    return len(seeds), None
