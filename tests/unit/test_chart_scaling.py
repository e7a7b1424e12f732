"""How many pods of each function there are, where, and how many may be taken away at once."""

from functions.server import FUNCTIONS
from tests.unit.rendering import Object, needs_helm, render

pytestmark = needs_helm

NAME = "r-nextflow-controller"
ON = {"defaults": {"autoscaling": {"enabled": True, "maxReplicas": 5}}}


def of(kind: str, objects: dict[str, Object]) -> dict[str, Object]:
    """The specs of a kind's objects, by function."""
    return {
        one["metadata"]["name"].removeprefix(f"{NAME}-"): one["spec"] for one in objects.values() if one["kind"] == kind
    }


def test_functions_are_scaled_on_what_they_use() -> None:
    """By the CPU that calls take; but streams by their followers, who take none while they wait."""
    found = of("HorizontalPodAutoscaler", render(ON))
    assert set(found) == set(FUNCTIONS)
    assert found["run"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{NAME}-run"},
        "minReplicas": 2,
        "maxReplicas": 5,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
            }
        ],
    }
    followers = {"metric": {"name": "nfc_followers"}, "target": {"type": "AverageValue", "averageValue": "500"}}
    assert found["stream"]["metrics"] == [{"type": "Pods", "pods": followers}]
    assert found["docs"]["minReplicas"] == 1


def test_the_metric_of_streams_exists() -> None:
    """Under the name that the chart asks an adapter for."""
    from common.metrics import FOLLOWERS

    (metric,) = FOLLOWERS.collect()
    stream = of("HorizontalPodAutoscaler", render(ON))["stream"]
    assert stream["metrics"][0]["pods"]["metric"]["name"] == metric.name


def test_who_is_scaled_has_no_number_of_its_own() -> None:
    """An upgrade would set it back."""
    deployments = of("Deployment", render({"functions": {"run": {"replicas": 7, "autoscaling": {"enabled": True}}}}))
    assert "replicas" not in deployments["run"]
    assert deployments["status"]["replicas"] == 2
    assert of("HorizontalPodAutoscaler", render()) == {}


def test_one_of_several_may_be_taken_away() -> None:
    """The only one too: with a budget it would keep its node for ever."""
    found = of("PodDisruptionBudget", render({"functions": {"run": {"replicas": 1}}}))
    assert set(found) == set(FUNCTIONS) - {"docs", "run"}
    assert found["status"] == {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {
            "matchLabels": {
                "app.kubernetes.io/name": "nextflow-controller",
                "app.kubernetes.io/instance": "r",
                "app.kubernetes.io/component": "status",
            }
        },
    }
    scaled = {"run": {"autoscaling": {"enabled": True, "minReplicas": 1}}, "docs": {"replicas": 2}}
    found = of("PodDisruptionBudget", render({"functions": scaled}))
    assert set(found) == set(FUNCTIONS) - {"run"}
    values = {"defaults": {"podDisruptionBudget": {"enabled": False}}}
    assert of("PodDisruptionBudget", render(values)) == {}


def test_pods_are_spread_as_the_values_say() -> None:
    """Each function's own pods, unless a constraint says of which it is."""
    zone = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
    labels = {"matchLabels": {"a": "b"}}
    values = {"functions": {"run": {"topologySpreadConstraints": [zone, {**zone, "labelSelector": labels}]}}}
    found = of("Deployment", render(values))["run"]["template"]["spec"]["topologySpreadConstraints"]
    own = {"matchLabels": of("Deployment", render())["run"]["selector"]["matchLabels"]}
    assert found[0] == {**zone, "labelSelector": own}
    assert found[1]["labelSelector"]["matchLabels"]["a"] == "b"
