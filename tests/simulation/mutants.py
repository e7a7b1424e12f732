"""The code broken on purpose: what the histories have to find out, and where each was last found.

A mutant is some functions with some of their text replaced, or a script of Redis'.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from common import cancel, claim, jobs, look, settle
from common.kube import head, objects, prepare, reading
from common.kube.runner import KubernetesRunner

_VERSION = '"resourceVersion": version, '


@dataclass(frozen=True)
class Mutant:
    """What is left out.

    Attributes:
        found: a seed whose history shows it; after a change to the histories it is searched for anew.
        breaks: some words of what it breaks, where it is known to break more than that.
    """

    found: int
    code: dict[Callable[..., object], dict[str, str]] = field(default_factory=dict)
    scripts: dict[str, dict[str, str]] = field(default_factory=dict)
    breaks: str = ""


MUTANTS = {
    # The protocol's parts, one by one.
    "no fence": Mutant(0, {claim._Admission._take: {"await self._runner.write_lease(free, own.holder)": "pass"}}),
    "a Job is created launched": Mutant(4, {head.job: {'"parallelism": 0': '"parallelism": 1'}}),
    "a sealed Job is launched": Mutant(
        35,
        {
            claim._Admission._launched: {"if current.inert": "if not current.launched"},
            settle.settle: {"if not job.ended:": "if not job.condition:"},
            KubernetesRunner.launch: {"if not read.inert:": "if read.launched:"},
        },
    ),
    "an inert Job is cancelled without a seal": Mutant(
        2,
        {
            cancel._Attempt.round: {
                "await (runner.seal if job.inert else runner.stop)(job, self._mark)": "__import__('dataclasses')."
                "replace(job, mark=self._mark) if job.inert else await runner.stop(job, self._mark)"
            }
        },
    ),
    "a UID is not looked at": Mutant(
        679,
        {
            look.sight: {"and job.uid == lease.holder.uid ": ""},
            claim._Admission._launched: {
                "or current.uid != job.uid": "",
                "job.holder == self._own.holder": "job.run_id == self._own.run_id",
            },
            claim._Admission._round: {
                "seen.lease.holder == self._own.holder": "(holder := seen.lease.holder) and "
                "holder.run_id == self._own.run_id"
            },
            claim._Admission._still_there: {"or job.holder != self._own.holder": ""},
        },
    ),
    "the slot is given away after a time": Mutant(
        5,
        {
            settle.settle: {
                "if not job.ended:": "if not job.ended and "
                "datetime.now(UTC) < job.record.created_at + timedelta(seconds=2):"
            }
        },
    ),
    "the Lease is emptied while pods are left": Mutant(1, {settle.settle: {"if left:": "if False:"}}),
    "a Job that is about to fail has ended": Mutant(
        21,
        {
            reading._condition: {'("Complete", "Failed")': '("Complete", "Failed", "FailureTarget")'},
            jobs.end_state: {'job.condition == "Failed"': 'job.condition != "Complete"'},
        },
    ),
    # A condition on each write.
    "the Lease is taken at whatever version it has": Mutant(
        41, {claim._Admission._take: {"write_lease(free,": "write_lease(await self._runner.lease(),"}}
    ),
    "the Lease is emptied at whatever version it has": Mutant(
        2, {settle.settle: {"write_lease(seen.lease,": "write_lease(await platform.runner.lease(),"}}
    ),
    "a launch is not conditional": Mutant(149, {objects.launch: {_VERSION: ""}}),
    "a seal is not conditional": Mutant(89, {objects.seal: {_VERSION: ""}}),
    "a stop is not conditional": Mutant(190, {objects.stop: {_VERSION: ""}}),
    "a delete is not conditional": Mutant(5, {KubernetesRunner.delete: {'{"preconditions": conditions, ': "{"}}),
    # Order, and who may do what.
    "the Lease is emptied while the run goes on": Mutant(6, {settle.settle: {"if not job.ended:": "if False:"}}),
    "a refused caller deletes its Job, launched or not": Mutant(
        26,
        {
            claim._Admission._withdraw: {"if not current.inert:": "if False:"},
            KubernetesRunner.delete: {"if not read.inert and not read.ended:": "if False:"},
        },
    ),
    "a refused caller does not look after its Job": Mutant(
        0, {claim._Admission._withdraw: {"if self._own is None or not self._sent:": "if True:"}}
    ),
    "nobody compares the requests of one key": Mutant(
        2, {claim._same_request: {"fingerprint != record.fingerprint": "False"}}
    ),
    "cancelled is told while pods are left": Mutant(
        1, {jobs.state: {"job.mark is not None and job.remains": "False"}, settle.settle: {"if left:": "if False:"}}
    ),
    "a cancel that was done is refused": Mutant(21, {cancel.cancel: {"not attempt.sent and ": ""}}),
    "the end is read before the Lease": Mutant(
        2,
        {
            look.sight: {
                "lease = await runner.lease()": "lease = await runner.lease(); holder = lease.holder",
                "return Sight(lease, job if": "lease = await runner.lease(); "
                "return Sight(lease, job if holder == lease.holder and",
            }
        },
    ),
    "inert Jobs are never deleted": Mutant(24, {settle.tidy: {", *forgotten": ""}}),
    "a Job's pods outlive it": Mutant(1, {KubernetesRunner.delete: {', "propagationPolicy": "Background"': ""}}),
    "tasks are not swept": Mutant(1, {KubernetesRunner.sweep: {"or not job.remains": "or True"}}),
    "tasks do not tell whose they are": Mutant(1, {head._kubernetes: {"label: {json.dumps(RUN_ID)}": "label: 'x'"}}),
    "a reader empties the Lease": Mutant(
        2,
        {
            look._seen_active: {
                "return _if": "await platform.runner.write_lease(await platform.runner.lease(), None); return _if"
            }
        },
    ),
    # Attempts. That a head is counted in the moment between its end and its number is shown in test_kube_reading.
    "an attempt begins with the tasks of the last": Mutant(
        6, {prepare.end_tasks: {"left = await find(api, collections, run_id)": "left = []"}}
    ),
    "an attempt begins before the tasks of the last are gone": Mutant(
        6, {prepare.end_tasks: {"if not left:": "if True:"}}
    ),
    # The API server lets nobody have the one without the other.
    "a head is replaced while it ends": Mutant(
        2,
        {head.job: {'"podReplacementPolicy": "Failed",': "", '"podFailurePolicy": {"rules": _failures(pod)},': ""}},
        breaks="two heads at a time",
    ),
    "a head that is taken does not count": Mutant(
        0, {head._failures: {'"action": "Count"': '"action": "Ignore"'}}, breaks="a head too many"
    ),
    "a run that has failed is executed again": Mutant(
        0, {head._failures: {"return [taken, *(": "return [taken] or [*("}}, breaks="executed again"
    ),
    "only the first head is awaited": Mutant(
        113,
        {reading._awaited_since: {"newest = next(iter(heads), None)": "newest = None"}},
        breaks="does not get the slot",
    ),
    "attempts are counted without their pods": Mutant(
        106,
        {
            reading.job: {
                "max(1, _made(status), *map(attempt, heads))": "max(1, sum(status.get(key) or 0 "
                'for key in ("failed", "active")))'
            }
        },
    ),
    "a head that goes between two looks is forgotten": Mutant(
        4519,
        {KubernetesRunner._seen: {"if job.condition is not None or any(": "if True or any("}},
        breaks="was told of attempt",
    ),
    "a head that is to end counts twice": Mutant(
        54, {reading._made: {'if status.get("conditions")': "if False"}}, breaks="which has had"
    ),
    # Redis. That a record never goes back, that the slot has no expiry, and that a look from before a change (or a
    # flush) is not written over it, is shown in test_store and test_lock: readers look at the cluster again before
    # any of it is told.
    "a stale slot is trusted": Mutant(3, scripts={"ask": {"now - seen < fresh": "fresh > 0"}}),
    "the turn to look never ends": Mutant(12, scripts={"ask": {"look > now and look <= now + ARGV[3]": "look > 0"}}),
}
