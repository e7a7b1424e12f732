"""Play many histories, on all cores: `make simulate SEEDS=100000`; `make simulate SEED=7` replays one.

Those of launches first, then those of logs and who follows them (FOLLOW_SEEDS, FOLLOW_SEED). Exits with 1 at the
first history that breaks a promise, and shows its trace.
"""

import gc
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.simulation import history
from tests.simulation.history import Trouble
from tests.simulation.redis_model import RedisModel
from tests.simulation.relay import history as relay

_BLOCK = 50
_PROGRESS_SECONDS = 15
_KINDS: dict[str, tuple[Callable[[int, RedisModel], Any], str]] = {
    "SEED": (history.play, "5000"),
    "FOLLOW_SEED": (relay.play, "1000"),
}


def main() -> int:
    """Play as many as the environment's SEEDS and FOLLOW_SEEDS say, or its one SEED or FOLLOW_SEED; the exit code."""
    logging.disable(logging.CRITICAL)  # what goes wrong is meant to
    for kind, (play, _) in _KINDS.items():
        if kind in os.environ:
            try:
                print("\n".join(play(int(os.environ[kind]), RedisModel()).trace()))
            except Trouble as trouble:
                print(trouble)
                return 1
            return 0
    return max(_many(kind, int(os.environ.get(f"{kind}S", default))) for kind, (_, default) in _KINDS.items())


def _many(kind: str, wanted: int) -> int:
    blocks = [(kind, range(first, min(first + _BLOCK, wanted))) for first in range(0, wanted, _BLOCK)]
    begun = told = time.monotonic()
    played, what = 0, "histories of logs" if kind.startswith("FOLLOW") else "histories"
    with multiprocessing.get_context("spawn").Pool() as pool:
        for count, failed in pool.imap_unordered(play_block, blocks):
            played += count
            if failed is not None:
                seed, trace = failed
                print(f"{trace}\n\nsimulate: seed {seed} breaks a promise. Again: make simulate {kind}={seed}")
                return 1
            if time.monotonic() - told > _PROGRESS_SECONDS:
                told = time.monotonic()
                print(f"simulate: {played} of {wanted} {what}, {told - begun:.0f} s", flush=True)
    print(f"simulate: {played} {what}, no promise broken, {time.monotonic() - begun:.0f} s")
    return 0


def play_block(block: tuple[str, Sequence[int]]) -> tuple[int, tuple[int, str] | None]:
    """How many of the seeds of a kind were played, and the first that failed with its trace."""
    logging.disable(logging.CRITICAL)
    gc.set_threshold(20_000)  # a tenth of the time goes into looking for garbage otherwise
    kind, seeds = block
    store = RedisModel()
    for count, seed in enumerate(seeds):
        try:
            _KINDS[kind][0](seed, store)
        except Trouble as trouble:
            return count, (seed, str(trouble))
    return len(seeds), None
