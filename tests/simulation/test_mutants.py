"""The histories are able to see what they are there to see: code broken on purpose breaks a promise."""

import os

import pytest

from tests.simulation.history import Trouble, play
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.redis_model import RedisModel
from tests.unit.mutation import mutate, replaced

_SEEDS = int(os.environ.get("SIMULATIONS", "10000"))


def _killed_by(mutant: Mutant) -> int | None:
    """The seed that kills it: where it was last found, else the first."""
    store = RedisModel()
    seed: int

    def scripts(name: str, source: str) -> str:
        changed: str = replaced(source, mutant.scripts.get(name, {}))
        return changed

    for seed in (mutant.found, *range(_SEEDS)):
        try:
            play(seed, store, scripts)
        except Trouble as trouble:
            if mutant.breaks in str(trouble):
                return seed
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_broken_code_breaks_a_promise(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Within so many seeds; where another one than the one it is known to be found by shows it, that one is printed."""
    mutant = MUTANTS[name]
    for function, changes in mutant.code.items():
        mutate(monkeypatch, function, changes)
    killed_by = _killed_by(mutant)
    assert killed_by is not None
    print(f"{name}: {killed_by}")


@pytest.mark.parametrize("name", MUTANTS)
def test_unbroken_code_keeps_its_promises_there(name: str) -> None:
    """In the very history that shows a mutant: it is the mutant that is seen there."""
    play(MUTANTS[name].found, RedisModel())
