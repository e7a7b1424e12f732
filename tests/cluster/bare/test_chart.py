"""What the chart makes for every named scenario, in the eyes of a real API server: a dry run of all objects."""

import os
from collections.abc import Iterator

import pytest
import yaml  # type: ignore[import-untyped] # comes without types

from tests.cluster.place import command, kubectl, namespace
from tests.cluster.release import CHART

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
    flags = ("--server-side", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "--filename=-")
    said = command("kubectl", "apply", *flags, stdin=yaml.safe_dump_all(objects))
    assert len(said.splitlines()) == len(objects)
