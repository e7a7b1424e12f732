"""The promises, in many short histories with everything that can go wrong (see `simulation`).

SIMULATIONS=20000 plays more of them; SEED=123 plays that one and shows its trace.
"""

import os
import random
from collections.abc import Callable

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import cancel, claim, jobs, look, settle
from tests.unit.cluster import Cluster
from tests.unit.mutation import mutate, replaced
from tests.unit.simulation import Trouble, play

_BLOCKS = 20
_SEEDS = int(os.environ.get("SIMULATIONS", "800"))


@pytest.fixture(scope="module")
def store() -> "fakeredis.FakeRedis":
    """A Redis that is in this process."""
    return fakeredis.FakeRedis()


@pytest.mark.parametrize("block", range(_BLOCKS))
def test_no_seed_breaks_a_promise(store: "fakeredis.FakeRedis", block: int) -> None:
    """Never two, never stuck, never lost, truthful cancels and readers, in every history."""
    if "SEED" in os.environ:
        if block == 0:
            print("\n".join(play(int(os.environ["SEED"]), store)))
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
def test_no_faults_break_a_promise(store: "fakeredis.FakeRedis", seed: int, struck: frozenset[int]) -> None:
    """Hypothesis chooses where callers die, are held up, lose an answer; and shrinks to the few that matter."""
    play(Chance(seed, struck), store)


@pytest.mark.slow
def test_a_real_server_gives_the_same_histories(store: "fakeredis.FakeRedis", redis_url: str) -> None:
    """A real Redis in place of the one in this process: not a step is another."""
    with redis.Redis.from_url(redis_url) as client:
        for seed in range(_SEEDS // 20):
            assert play(seed, client) == play(seed, store)


def test_a_seed_gives_the_same_history_again(store: "fakeredis.FakeRedis") -> None:
    """What was seen once can be replayed."""
    assert [play(seed, store) for seed in range(5)] == [play(seed, store) for seed in range(5)]


_MUTANTS: dict[str, dict[Callable[..., object], dict[str, str]]] = {
    "the Lease is taken at whatever version it has": {
        claim._Admission._take: {"write_lease(free,": "write_lease(await self._runner.lease(),"}
    },
    "the Lease is not taken": {
        claim._Admission._take: {"await self._runner.write_lease(free, own.holder)": "pass"},
    },
    "a launch is not conditional": {
        Cluster.launch: {"self._same(read)": "self._jobs[read.run_id]", "job.sealed or job.condition": "False"}
    },
    "a seal is not conditional": {
        Cluster.seal: {"self._same(read)": "self._jobs[read.run_id]", "job.launched": "False"}
    },
    "the Lease is emptied at whatever version it has": {
        settle.settle: {"write_lease(seen.lease,": "write_lease(await platform.runner.lease(),"}
    },
    "the Lease is emptied while the run goes on": {settle.settle: {"if not job.ended:": "if False:"}},
    "the Lease is emptied while pods are left": {settle.settle: {"if left:": "if False:"}},
    "a refused caller deletes its Job, launched or not": {
        claim._Admission._withdraw: {"if not current.inert:": "if False:"}
    },
    "a refused caller does not look after its Job": {
        claim._Admission._withdraw: {"if self._own is None or not self._sent:": "if True:"}
    },
    "nobody compares the requests of one key": {claim._same_request: {"fingerprint != record.fingerprint": "False"}},
    "cancelled is told while pods are left": {
        settle.settle: {"if left:": "if False:"},
        jobs.state: {"job.mark is not None and job.remains": "False"},
    },
    "a cancel that was done is refused": {cancel.cancel: {"not attempt.sent and ": ""}},
    "the end is read before the Lease": {
        look.sight: {
            "lease = await runner.lease()": "lease = await runner.lease(); holder = lease.holder",
            "return Sight(lease, job if": "lease = await runner.lease(); return Sight(lease, job if holder ==",
        }
    },
    "inert Jobs are never deleted": {settle.tidy: {", *forgotten": ""}},
    "a reader seals": {look._seen_active: {"return _if": "await platform.runner.sweep('run-x'); return _if"}},
}

# That a record never goes back, that the slot has no expiry, and that a look from before a change (or a flush) is not
# written over it, is shown in test_store and test_lock: readers look at the cluster again before any of it is told.
_SCRIPTS: dict[str, dict[str, dict[str, str]]] = {
    "a stale slot is trusted": {"ask": {"now - seen < fresh": "fresh > 0"}},
    "the turn to look never ends": {"ask": {"look > now and look <= now + ARGV[3]": "look > 0"}},
}


# Where each was last found out, so that nobody waits; after a change to the histories it is searched for anew.
_SEEN = {
    "the Lease is taken at whatever version it has": 90,
    "a launch is not conditional": 10,
    "a seal is not conditional": 331,
    "a delete is not conditional": 322,
    "the Lease is emptied at whatever version it has": 45,
    "the Lease is emptied while pods are left": 35,
    "cancelled is told while pods are left": 35,
}


def _survives(store: "fakeredis.FakeRedis", name: str, scripts: Callable[[str, str], str] | None = None) -> bool:
    for seed in (_SEEN.get(name, 0), *range(_SEEDS)):
        try:
            play(seed, store, scripts)
        except Trouble:
            return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("name", _MUTANTS)
def test_broken_code_breaks_a_promise(store: "fakeredis.FakeRedis", monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The histories are able to see what they are there to see."""
    for function, changes in _MUTANTS[name].items():
        mutate(monkeypatch, function, changes)
    assert not _survives(store, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", _SCRIPTS)
def test_a_broken_script_breaks_a_promise(store: "fakeredis.FakeRedis", name: str) -> None:
    """So they do for what Redis runs."""

    def broken(script: str, source: str) -> str:
        return replaced(source, _SCRIPTS[name].get(script, {}))

    assert not _survives(store, name, broken)
