"""What the chart refuses, with words that say what is wrong and what would be right, before anything is made."""

import pytest

from tests.unit.rendering import HELMS, Object, needs_helm, render, template

pytestmark = needs_helm

LONG = "n" * 41
REDIS = {"enabled": False, "externalSecret": "redis"}
GATEWAY = {"enabled": True, "host": "runs.example.org", "parentRefs": [{"name": "public"}]}


def refusals(values: Object, program: str = "helm") -> list[str]:
    """What is said of values that are refused."""
    done = template(values, program)
    assert done.returncode != 0
    lines = (line.strip() for line in done.stderr.splitlines())
    return [line.removeprefix("- ") for line in lines if line.startswith("- ")]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 1}, "at '': additional properties 'replicas' not allowed"),
        ({"functions": {"walk": {}}}, "at '/functions': additional properties 'walk' not allowed"),
        ({"functions": {"run": {"replica": 1}}}, "at '/functions/run': additional properties 'replica' not allowed"),
        ({"settings": {"RATE_LIMIT": "off"}}, "at '/settings': additional properties 'RATE_LIMIT' not allowed"),
        ({"settings": {"HISTORY_MAX_RUNS": 5}}, "at '/settings/HISTORY_MAX_RUNS': got number, want string"),
        ({"auth": {"mode": "none"}}, "at '/auth/mode': value must be one of 'tokens', 'off'"),
        ({"stopDelaySeconds": 301}, "at '/stopDelaySeconds': maximum: got 301, want 300"),
        (
            {"work": {"accessMode": "ReadWriteOncePod"}},
            "at '/work/accessMode': value must be one of 'ReadWriteMany', 'ReadWriteOnce'",
        ),
        ({"runs": {"attempts": 0}}, "at '/runs/attempts': minimum: got 0, want 1"),
        ({"networkPolicies": {"apiServerPorts": []}}, "at '/networkPolicies/apiServerPorts': minItems: got 0, want 1"),
    ],
)
def test_what_the_schema_does_not_know(values: Object, said: str) -> None:
    """No name that is not ours, no value of another kind."""
    assert refusals(values) == [said]


@pytest.mark.parametrize("program", HELMS)
@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"runs": {"namespace": "system"}},
            "runs.namespace is the release's own: runs may do what they like in theirs, so it has to be another",
        ),
        (
            {"runs": {"namespace": "n" * 64}},
            f"runs.namespace: {'n' * 64} has 64 characters, and a namespace 63 at most",
        ),
        (
            {"fullnameOverride": LONG},
            "fullnameOverride has 41 characters: more than 40 leave too little room for what is put behind it",
        ),
        (
            {"redis": {"externalSecret": "redis"}},
            "redis.externalSecret says where another Redis is, and the chart brings one: set redis.enabled=false",
        ),
        (
            {"redis": {"tls": {"ca": True}}},
            "redis.tls is for the Redis of redis.externalSecret: the chart's own speaks plain TCP",
        ),
        (
            {"redis": {"recorderSecret": "logs"}},
            "redis.recorderSecret is for Redis users of your own making (redis.existingSecret, redis.externalSecret): "
            "here the chart makes it",
        ),
        (
            {"redis": {"enabled": False}},
            "redis.enabled is false, and redis.externalSecret names no Secret with the settings of another Redis",
        ),
        (
            {"redis": {**REDIS, "existingSecret": "users"}},
            "redis.existingSecret is for the chart's own Redis, and redis.enabled is false: settings of another are in "
            "redis.externalSecret",
        ),
        (
            {"gateway": GATEWAY},
            "gateway.enabled and ingress.enabled: the functions are called by one way, turn the other off",
        ),
        (
            {"ingress": {"enabled": False}, "gateway": {**GATEWAY, "parentRefs": []}},
            "gateway.enabled, and gateway.parentRefs names no Gateway",
        ),
        (
            {"ingress": {"enabled": False}, "gateway": {**GATEWAY, "host": ""}},
            "gateway.enabled, and gateway.host is no name that the functions could be called by",
        ),
        (
            {"functions": {"run": {"autoscaling": {"enabled": True, "minReplicas": 11}}}},
            "functions.run.autoscaling: minReplicas (11) is more than maxReplicas (10)",
        ),
        (
            {"functions": {"run": {"autoscaling": {"enabled": True}}}, "defaults": {"resources": {"requests": None}}},
            "functions.run.autoscaling: CPU is counted in percent of resources.requests.cpu, and there is none",
        ),
        (
            {"functions": {"status": {"podDisruptionBudget": {"maxUnavailable": "0%"}}}},
            "functions.status.podDisruptionBudget.maxUnavailable is 0%: no node with a pod of it could ever be drained",
        ),
        (
            {"functions": {"stream": {"autoscaling": {"cpuPercent": 80}}}},
            "functions.stream.autoscaling.cpuPercent: followers that wait take no CPU, so it is scaled on "
            "autoscaling.followers",
        ),
        (
            {"functions": {"history": {"autoscaling": {"followers": 80}}}},
            "functions.history.autoscaling.followers: nobody follows it, that is stream's",
        ),
        (
            {"settings": {"CANCEL_WAIT_SECONDS": "31"}},
            "settings.SHUTDOWN_GRACE_SECONDS (30) is less than settings.CANCEL_WAIT_SECONDS (31): a stopping pod would "
            "cut off who waits for a cancel",
        ),
    ],
)
def test_what_cannot_be_meant(values: Object, said: str, program: str) -> None:
    """Values that are each well formed, and together mean nothing."""
    assert refusals(values, program) == [said]


def test_all_is_said_at_once() -> None:
    """Nobody finds out one by one."""
    assert len(refusals({"redis": {"enabled": False}, "runs": {"namespace": "system"}, "fullnameOverride": LONG})) == 3


@pytest.mark.parametrize(
    "values",
    [
        {"runs": {"namespace": "n" * 63}, "fullnameOverride": "n" * 40},
        {"redis": {**REDIS, "tls": {"ca": True, "certificate": True}, "recorderSecret": "logs"}},
        {"functions": {"stream": {"autoscaling": {"enabled": True}}}, "defaults": {"resources": {"requests": None}}},
        {"functions": {"run": {"autoscaling": {"enabled": True, "minReplicas": 10}}}},
        {"settings": {"CANCEL_WAIT_SECONDS": "30"}},
    ],
)
def test_what_is_just_right_is_taken(values: Object) -> None:
    """The other side of each bound."""
    assert render(values)
