"""The promises, in many short histories with everything that can go wrong (see `simulation`).

SIMULATIONS=20000 plays more of them; SEED=123 plays that one and shows its trace.
"""

import os
from collections.abc import Callable

import fakeredis
import pytest

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
    "a delete is not conditional": {Cluster.delete: {"self._same(read)": "self._jobs[read.run_id]"}},
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
    "a Job that may have run is created again": {claim._Admission._round: {"if self._sent:": "if False:"}},
    "a run that was launched is hidden by the attach that came after": {
        claim._Admission._discard: {"return self._own": "return None"}
    },
    "nobody compares the requests of one key": {
        claim._same_request: {"fingerprint != record.fingerprint": "False"}
    },
    "a record that names the own id is trusted": {
        claim._claim: {" or verdict.run.run_id == record.run_id": ""}
    },
    "a caller is attached to a queued run that nobody launches": {
        claim._claim: {"verdict.run.status not in _LIVE": "_ending(verdict.run)"}
    },
    "cancelled is told while pods are left": {
        settle.settle: {"if left:": "if False:"},
        jobs.state: {"job.mark is not None and job.remains": "False"},
    },
    "cancelled is told from the listing, where nothing is counted": {
        look._accepted: {"and job.holder != holder": "", "listed.inert or listed.holder == holder": "listed.inert"}
    },
    "a cancel tells what Redis says": {
        cancel._Attempt._after: {"await self._platform.runner.job(run_id)": "None"}
    },
    "a cancel that was done is refused": {cancel.cancel: {"not attempt.sent and ": ""}},
    "an unnamed Job is in the history": {
        look._accepted: {"(not job.inert or job.holder == holder)": "True"},
    },
    "the end is read before the Lease": {
        look.sight: {
            "lease = await runner.lease()": "lease = await runner.lease(); holder = lease.holder",
            "return Sight(lease, job if": "lease = await runner.lease(); return Sight(lease, job if holder ==",
        }
    },
    "inert Jobs are never deleted": {settle.tidy: {", *forgotten": ""}},
    "a reader seals": {look._seen_active: {"return _if": "await platform.runner.sweep('run-x'); return _if"}},
}

_SCRIPTS: dict[str, dict[str, dict[str, str]]] = {
    "a stale slot is trusted": {"ask": {"now - seen < fresh": "fresh > 0"}},
    "a slot is settled whatever its version": {"settle": {"~= tonumber(ARGV[1])": "== -1"}},
    "a version comes back after a flush": {
        "ask": {"slot[1] or now": "slot[1] or 0", "math.max(version + 1, now)": "version + 1"},
        "settle": {"math.max(ARGV[1] + 1, time[1] * 1000 + math.floor(time[2] / 1000))": "ARGV[1] + 1"},
    },
    "a record is overwritten by an older one": {
        "record": {
            "late or not string.find(ARGV[8], '|' .. old[1] .. '|', 1, true)": "false"
        }
    },
    "the turn to look never ends": {"ask": {"look > now and look <= now + ARGV[3]": "look > 0"}},
}


def _survives(store: "fakeredis.FakeRedis", scripts: Callable[[str, str], str] | None = None) -> bool:
    for seed in range(_SEEDS):
        try:
            play(seed, store, scripts)
        except Trouble:
            return False
    return True


@pytest.mark.parametrize("name", _MUTANTS)
def test_broken_code_breaks_a_promise(
    store: "fakeredis.FakeRedis", monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The histories are able to see what they are there to see."""
    for function, changes in _MUTANTS[name].items():
        mutate(monkeypatch, function, changes)
    assert not _survives(store)


@pytest.mark.parametrize("name", _SCRIPTS)
def test_a_broken_script_breaks_a_promise(store: "fakeredis.FakeRedis", name: str) -> None:
    """So they do for what Redis runs."""

    def broken(script: str, source: str) -> str:
        return replaced(source, _SCRIPTS[name].get(script, {}))

    assert not _survives(store, broken)
