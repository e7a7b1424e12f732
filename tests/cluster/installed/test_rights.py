"""Every account may do exactly what its function's code calls: in its two namespaces, and elsewhere nothing."""

import json
from collections import defaultdict
from typing import Any

import pytest

from tests.cluster.place import command
from tests.cluster.release import Release

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

Rights = dict[str, set[str]]  # verbs by resource

LEASES, OWN_LEASE = "leases.coordination.k8s.io", "leases.coordination.k8s.io/own"
READS: Rights = {"events": {"list"}, "jobs.batch": {"get", "list"}, "pods": {"list"}}
NOTHING: Rights = {}

# By account: in the release's namespace, and in the runs'.
EXPECTED: dict[str, tuple[Rights, Rights]] = {
    "run": (
        {LEASES: {"create"}, OWN_LEASE: {"get", "update"}},
        {
            "events": {"list"},
            "jobs.batch": {"create", "delete", "get", "list", "patch"},
            "pods": {"delete", "list"},
        },
    ),
    "status": ({OWN_LEASE: {"get"}}, READS),
    "active": ({OWN_LEASE: {"get"}}, READS),
    "cancel": (
        {OWN_LEASE: {"get", "update"}},
        {"events": {"list"}, "jobs.batch": {"delete", "get", "list", "patch"}, "pods": {"delete", "list"}},
    ),
    "history": ({OWN_LEASE: {"get"}}, READS),
    "stream": ({OWN_LEASE: {"get"}}, {**READS, "pods/log": {"get"}}),
    "docs": ({OWN_LEASE: {"get"}}, NOTHING),
    "cleanup": ({OWN_LEASE: {"get"}}, {"jobs.batch": {"delete", "get", "list"}, "pods": {"delete", "list"}}),
    "head": (NOTHING, {"pods": {"create", "delete", "get", "list"}, "pods/log": {"get"}, "pods/status": {"get"}}),
    "task": (NOTHING, NOTHING),
}
IN_RUNS = {"head", "task"}  # accounts of the runs' namespace


def rights(release: Release, account: str, namespace: str) -> Rights:
    """All that an account may do in a namespace, by the API server's own word, beyond what everybody may."""
    home = release.runs if account in IN_RUNS else release.namespace

    def told(name: str) -> Rights:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        groups = ("--as-group=system:serviceaccounts", f"--as-group=system:serviceaccounts:{home}")
        asked = (
            "create",
            "--output",
            "json",
            "--validate=false",
            "--filename",
            "-",
            f"--as=system:serviceaccount:{home}:{name}",
            *groups,
        )
        answer = command("kubectl", *asked, "--as-group=system:authenticated", stdin=json.dumps(review))
        return _by_resource(json.loads(answer)["status"]["resourceRules"], release.name)

    everybody = told("nobody")
    return {key: verbs for key, verbs in told(f"{release.name}-{account}").items() if verbs != everybody.get(key)}


def _by_resource(rules: list[dict[str, Any]], own: str) -> Rights:
    found: Rights = defaultdict(set)
    for rule in rules:
        names = rule.get("resourceNames") or [""]
        suffixes = ["" if name == "" else "/own" if name == own else f"/{name}" for name in names]
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for suffix in suffixes:
                    found[(f"{resource}.{group}" if group else resource) + suffix] |= set(rule["verbs"])
    return found


def test_accounts_may_do_what_the_table_says(release: Release) -> None:
    """Each verb of each resource, in both namespaces: no more and no less."""
    found = {
        account: (rights(release, account, release.namespace), rights(release, account, release.runs))
        for account in EXPECTED
    }
    assert found == EXPECTED


@pytest.mark.parametrize("account", EXPECTED)
def test_accounts_may_do_nothing_elsewhere(release: Release, account: str) -> None:
    """In a namespace that is none of the release's."""
    assert rights(release, account, "kube-system") == NOTHING
