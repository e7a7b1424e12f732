"""What leads to the functions from outside: an Ingress, or a route of a Gateway."""

from typing import Any

import pytest

from common.web.health import PATHS
from functions.server import FUNCTIONS, application
from tests.unit.rendering import Object, environ, needs_helm, pods, render

pytestmark = needs_helm

NAME = "r-nextflow-controller"
GATEWAY: Object = {
    "ingress": {"enabled": False},
    "gateway": {"enabled": True, "host": "runs.example.org", "parentRefs": [{"name": "public", "namespace": "ways"}]},
}


def ingress_prefixes() -> dict[str, str]:
    """Which Service each path prefix leads to, by the Ingress."""
    paths = render()[f"Ingress system/{NAME}"]["spec"]["rules"][0]["http"]["paths"]
    return {rule["path"]: rule["backend"]["service"]["name"] for rule in paths}


def gateway_prefixes() -> dict[str, str]:
    """The same by the Gateway's route."""
    rules = render(GATEWAY)[f"HTTPRoute system/{NAME}"]["spec"]["rules"]
    return {match["path"]["value"]: rule["backendRefs"][0]["name"] for rule in rules for match in rule["matches"]}


@pytest.mark.parametrize("prefixes", [ingress_prefixes, gateway_prefixes])
def test_it_leads_to_every_endpoint_and_no_health_path(prefixes: Any) -> None:
    """By the longest prefix, as all of them do it; what is for operators stays inside."""
    services = prefixes()

    def led(path: str) -> str | None:
        fitting = [prefix for prefix in services if path == prefix or path.startswith(prefix + "/")]
        return services[max(fitting, key=len)].removeprefix(f"{NAME}-") if fitting else None

    endpoints = application().endpoints
    assert {one.path: led(one.path) for one in endpoints} == {one.path: one.function for one in endpoints}
    assert {led(path) for path in PATHS} == {None}


def test_a_stream_is_not_cut_by_the_gateway() -> None:
    """Its request may take as long as its run; all others end when the Gateway thinks they should."""
    spec = render(GATEWAY)[f"HTTPRoute system/{NAME}"]["spec"]
    timeouts = {rule["backendRefs"][0]["name"]: rule.get("timeouts") for rule in spec["rules"]}
    assert timeouts == {f"{NAME}-{one}": {"request": "0s"} if one == "stream" else None for one in FUNCTIONS}
    assert (spec["hostnames"], spec["parentRefs"]) == (["runs.example.org"], GATEWAY["gateway"]["parentRefs"])


def test_functions_answer_to_the_gateways_name() -> None:
    """And no Ingress is made."""
    objects = render(GATEWAY)
    assert environ(objects)["ALLOWED_HOSTS"].split(",")[0] == "runs.example.org"
    assert "Ingress" not in {one["kind"] for one in objects.values()}


def test_helm_test_may_take_the_users_way() -> None:
    """To any address, under the name that the functions answer to."""
    objects = render({**GATEWAY, "test": {"url": "https://gateway.ways"}})
    (spec,) = [pod for pod in pods(objects) if pod["containers"][0]["name"] == "test"]
    env = {one["name"]: one.get("value") for one in spec["containers"][0]["env"]}
    assert (env["TEST_URL"], env["TEST_HOST"]) == ("https://gateway.ways", "runs.example.org")


@pytest.mark.parametrize(
    "values",
    [
        {"ingress": {"tlsSecret": "certificate", "annotations": {"a/b": "c"}, "className": "x"}},
        {"gateway": {**GATEWAY["gateway"], "annotations": {"a/b": "c"}}, "ingress": {"enabled": False}},
    ],
)
def test_annotations_are_the_operators(values: Object) -> None:
    """As they are; nothing of one controller or another is there by default."""
    (way,) = [one for one in render(values).values() if one["kind"] in ("Ingress", "HTTPRoute")]
    assert way["metadata"]["annotations"] == {"a/b": "c"}
    assert "annotations" not in render()[f"Ingress system/{NAME}"]["metadata"]
