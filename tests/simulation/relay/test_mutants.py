"""The histories of logs are able to see what they are there to see: code broken on purpose breaks a promise."""

import os

import pytest

from tests.simulation.history import Trouble
from tests.simulation.redis_model import RedisModel
from tests.simulation.relay.history import play
from tests.simulation.relay.mutants import MUTANTS
from tests.unit.mutation import mutate, replaced

_SEEDS = int(os.environ.get("FOLLOW_SIMULATIONS", "1000"))


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_broken_code_breaks_a_promise(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Within so many seeds; where another one than the one it is known to be found by shows it, that one is printed."""
    mutant, store = MUTANTS[name], RedisModel()
    for function, changes in mutant.code.items():
        mutate(monkeypatch, function, changes)

    def scripts(script: str, source: str) -> str:
        changed: str = replaced(source, mutant.scripts.get(script, {}))
        return changed

    for seed in (mutant.found, *range(_SEEDS)):
        try:
            play(seed, store, scripts)
        except Trouble:
            print(f"{name}: {seed}")
            return
    pytest.fail("no history shows it")


@pytest.mark.parametrize("name", MUTANTS)
def test_unbroken_code_keeps_its_promises_there(name: str) -> None:
    """In the very history that shows a mutant: it is the mutant that is seen there."""
    play(MUTANTS[name].found, RedisModel())
