"""Who may speak with whom once network policies are on: the policies played as a cluster's network enforces them."""

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.unit.rendering import Object, needs_helm, render

pytestmark = needs_helm

REDIS, FUNCTION, DNS, API_SERVER, SSH, HTTPS = 6379, 8080, 53, 6443, 22, 443


@dataclass(frozen=True)
class Peer:
    """A pod; or, without a namespace, an address."""

    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    address: str = "10.42.0.9"


def of_release(component: str, namespace: str = "system", instance: str = "r") -> Peer:
    """A pod of the chart."""
    name = "nextflow-controller"
    labels = {"name": name, "instance": instance, "component": component}
    return Peer(namespace, {f"app.kubernetes.io/{key}": value for key, value in labels.items()})


HEAD = Peer("system-runs", {"nextflow-controller/run-id": "run-a", "nextflow-controller/role": "head"})
TASK = Peer("system-runs", {"nextflow-controller/run-id": "run-a"})
UNMARKED = Peer("system-runs")  # a task whose pipeline took its labels away
RUN, CANCEL, STATUS, STREAM, CLEANUP = map(of_release, ("run", "cancel", "status", "stream", "cleanup"))
ARCHIVE = of_release("archive", "system-runs")
VALKEY = of_release("redis")
PROXY = Peer("traefik", {"app": "traefik"})
OTHER = of_release("stream", "elsewhere", "other")
API = Peer(address="10.0.0.1")
METADATA = Peer(address="169.254.169.254")
WORLD, WORLD6 = Peer(address="140.82.121.4"), Peer(address="2606:50c0:8000::153")


def _chosen(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a selector means who has these labels."""
    exactly = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    said = selector.get("matchExpressions", [])
    assert all(one["operator"] == "In" for one in said)
    return exactly and all(labels.get(one["key"]) in one["values"] for one in said)


def _meant(peer: Object, other: Peer, own: str) -> bool:
    """Whether one of a rule's peers means the other end."""
    if block := peer.get("ipBlock"):
        address = ip_address(other.address)
        return address in ip_network(block["cidr"]) and all(
            address not in ip_network(one) for one in block.get("except", [])
        )
    there = {"kubernetes.io/metadata.name": other.namespace}
    here = _chosen(peer["namespaceSelector"], there) if "namespaceSelector" in peer else other.namespace == own
    return bool(other.namespace) and here and _chosen(peer.get("podSelector", {}), other.labels)


def _passes(given: list[Object], direction: str, one: Peer, other: Peer, port: int) -> bool:
    """Whether a pod's own policies let it through: anything does where there are none, else what any of them allows."""
    mine = [
        policy["spec"]
        for policy in given
        if policy["metadata"].get("namespace", "system") == one.namespace
        and direction in policy["spec"]["policyTypes"]
        and _chosen(policy["spec"]["podSelector"], one.labels)
    ]
    peers = "from" if direction == "Ingress" else "to"
    rules: list[Any] = [rule for spec in mine for rule in spec.get(direction.lower(), [])]
    return not mine or any(
        (peers not in rule or any(_meant(peer, other, one.namespace) for peer in rule[peers]))
        and ("ports" not in rule or any(allowed["port"] == port for allowed in rule["ports"]))
        for rule in rules
    )


def policies(values: Object) -> list[Object]:
    """All that a release makes of these values, with policies on."""
    on = {**values, "networkPolicies": {"enabled": True, **values.get("networkPolicies", {})}}
    return [one for one in render(on).values() if one["kind"] == "NetworkPolicy"]


@pytest.fixture(scope="module")
def usual() -> list[Object]:
    """Those of the chart's own values."""
    return policies({})


def reach(given: list[Object], source: Peer, target: Peer, port: int) -> bool:
    """Whether one may open a connection to the other."""
    return _passes(given, "Egress", source, target, port) and _passes(given, "Ingress", target, source, port)


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        (PROXY, RUN, FUNCTION),
        (WORLD, STREAM, FUNCTION),
        *((one, VALKEY, REDIS) for one in (RUN, CANCEL, STATUS, STREAM, HEAD)),
        *((one, API, API_SERVER) for one in (RUN, STATUS, CLEANUP, HEAD)),
        *((one, PROXY, DNS) for one in (RUN, CLEANUP, HEAD, TASK)),
        *((one, ARCHIVE, FUNCTION) for one in (STATUS, STREAM)),
        *((one, world, port) for one in (HEAD, TASK) for world in (WORLD, WORLD6) for port in (HTTPS, SSH)),
    ],
)
def test_what_is_needed_passes(usual: list[Object], source: Peer, target: Peer, port: int) -> None:
    """Functions are called and ask Redis, the API server and the archive; runs reach the world."""
    assert reach(usual, source, target, port)


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        *((one, VALKEY, REDIS) for one in (TASK, UNMARKED, PROXY, OTHER, ARCHIVE, CLEANUP)),
        *((one, RUN, FUNCTION) for one in (HEAD, TASK, UNMARKED)),
        *((one, ARCHIVE, FUNCTION) for one in (RUN, CANCEL, CLEANUP, HEAD, TASK, PROXY, OTHER)),
        *((one, target, SSH) for one in (HEAD, TASK, UNMARKED, ARCHIVE) for target in (API, METADATA, PROXY)),
        *((TASK, API, port) for port in (API_SERVER, HTTPS)),
        (PROXY, CLEANUP, FUNCTION),
        *((one, WORLD, SSH) for one in (RUN, STREAM, CLEANUP, VALKEY)),
        *((one, two, FUNCTION) for one in (PROXY, HEAD) for two in (TASK, HEAD)),
        (VALKEY, PROXY, DNS),
    ],
)
def test_nothing_else_does(usual: list[Object], source: Peer, target: Peer, port: int) -> None:
    """Whatever a pipeline calls its pods; Redis asks nobody, and nobody asks a run."""
    assert not reach(usual, source, target, port)


def test_the_clusters_own_addresses_are_values() -> None:
    """An API server, a Redis elsewhere, and what runs need of what is inside."""
    git = {"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}], "ports": [{"port": SSH}]}
    values: Object = {
        "networkPolicies": {
            "apiServerPorts": [16443],
            "redisPorts": [7000],
            "runsEgress": [git],
            "inside": ["10.0.0.0/8"],
        },
        "redis": {"enabled": False, "externalSecret": "redis"},
    }
    own, elsewhere = policies(values), Peer(address="10.1.2.3")
    assert reach(own, RUN, elsewhere, 7000)
    assert reach(own, HEAD, elsewhere, 7000)
    assert reach(own, HEAD, API, 16443)
    assert not reach(own, HEAD, API, API_SERVER)
    assert reach(own, CLEANUP, API, 16443)
    assert not reach(own, CLEANUP, elsewhere, 7000)
    assert reach(own, TASK, Peer(address="10.9.0.4"), SSH)
    assert not reach(own, TASK, elsewhere, SSH)
    assert reach(own, TASK, Peer(address="192.168.0.1"), SSH)


def test_by_default_there_are_none() -> None:
    """Where they are not enforced they would promise what nobody keeps."""
    assert "NetworkPolicy" not in {one["kind"] for one in render().values()}
