"""What the chart makes for every named scenario, in the eyes of a real API server: a dry run of all objects."""

import os
from collections.abc import Iterator

import pytest
import yaml  # type: ignore[import-untyped] # comes without types

from common.kube import head
from common.settings import Settings
from tests.cluster.place import command, kubectl, namespace
from tests.cluster.release import CHART
from tests.unit.samples import record

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif("TEST_CLUSTER" not in os.environ, reason="make test-cluster runs it on a cluster"),
]

SCENARIOS = [None, *sorted((CHART / "ci").glob("*-values.yaml"))]


@pytest.fixture(scope="module")
def places() -> Iterator[tuple[str, str]]:
    """A namespace for the functions and one for runs; whoever makes a pod there hears where it is not `restricted`."""
    with namespace("chart") as system, namespace("chart-runs") as runs:
        kubectl("label", "namespace", system, "pod-security.kubernetes.io/enforce=restricted")
        for one in (system, runs):
            kubectl("label", "namespace", one, "pod-security.kubernetes.io/warn=restricted")
        yield system, runs


def taken(*objects: object) -> list[str]:
    """What the API server says of objects that it would take as they are: a line each, and not one warning."""
    flags = ("--server-side", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "--filename=-")
    return command("kubectl", "apply", *flags, stdin=yaml.safe_dump_all(objects)).splitlines()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.stem if path else "default")
def test_the_api_server_takes_it(scenario: object, places: tuple[str, str]) -> None:
    """Every field is known and valid, and every pod `restricted`: there is not one warning."""
    system, runs = places
    values = ["--values", str(scenario)] if scenario else []
    given = ("--namespace", system, "--set", f"runs.namespace={runs}", "--kube-version", "1.30", *values)
    rendered = command("helm", "template", "r", str(CHART), *given)
    # A Gateway's API is none of Kubernetes' own: it is asked where somebody has installed it.
    known = command("kubectl", "api-resources", "--output=name")
    objects = [
        one for one in yaml.safe_load_all(rendered) if one and (one["kind"] != "HTTPRoute" or "httproutes." in known)
    ]
    for one in objects:
        if one["kind"] != "Namespace":
            one["metadata"].setdefault("namespace", system)
    assert len(taken(*objects)) == len(objects)


def test_a_head_is_restricted(places: tuple[str, str]) -> None:
    """With all that it may have beside it; its Job and its pod, in a namespace that takes no other."""
    system, _ = places
    everything = {
        "run_namespace": system,
        "controller_image": "images.example/controller:1",
        "recorder_secret": "recorder",
        "redis_ca_file": "/ca.crt",
        "redis_cert_file": "/tls.crt",
        "redis_key_file": "/tls.key",
        "work_claim": "work",
    }
    made = head.job(record(), Settings().model_copy(update=everything), "x", "/app/pipelines")
    template = made["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": "head"}}
    del pod["spec"]["serviceAccountName"]  # who it is says nothing about what it may do to its node
    for one in (made, pod):
        one["metadata"]["namespace"] = system
    assert len(taken(made, pod)) == 2
    pod["spec"]["initContainers"][0]["securityContext"] = {}
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        taken(pod)
