"""The chart as helm makes it of values."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # comes without types

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "chart"
Object = dict[str, Any]

needs_helm = pytest.mark.skipif(shutil.which("helm") is None, reason="needs helm on PATH")


def helm(*arguments: str, values: Object | None = None) -> "subprocess.CompletedProcess[str]":
    """A call of helm with these values."""
    command = ["helm", *arguments, "--values", "-"]
    return subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True, check=False)


def render(values: Object | None = None) -> dict[str, Object]:
    """All objects of a release `r` in the namespace `system`, by kind and name."""
    done = helm("template", "r", str(CHART), "--namespace", "system", "--kube-version", "1.30", values=values)
    assert done.returncode == 0, done.stderr
    objects = [found for found in yaml.safe_load_all(done.stdout) if found]
    named = {
        f"{one['kind']} {one['metadata'].get('namespace', 'system')}/{one['metadata']['name']}": one for one in objects
    }
    assert len(named) == len(objects)
    return named


def pods(objects: dict[str, Object]) -> Iterator[Object]:
    """The specs of all pods."""
    for one in objects.values():
        if one["kind"] == "Pod":
            yield one["spec"]
        elif one["kind"] in ("Deployment", "StatefulSet"):
            yield one["spec"]["template"]["spec"]
        elif one["kind"] == "CronJob":
            yield one["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def environ(objects: dict[str, Object]) -> dict[str, str]:
    """What a function sees of the release's settings."""
    found: dict[str, str] = objects["ConfigMap system/r-nextflow-controller"]["data"]
    return found


def refusal(values: Object) -> str:
    """What helm says of values that are refused."""
    done = helm("template", "r", str(CHART), "--namespace", "system", "--kube-version", "1.30", values=values)
    assert done.returncode != 0
    return done.stderr
