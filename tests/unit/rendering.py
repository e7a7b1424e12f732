"""The chart as helm makes it of values."""

import json
import os
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


def _is_missing(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program} on PATH")


needs_helm = _is_missing("helm")
# Both that are in use; HELM4 says where the newer one is, if not on PATH under that name.
HELMS = [pytest.param(one, marks=_is_missing(one)) for one in ("helm", os.environ.get("HELM4", "helm4"))]


def helm(*arguments: str, values: Object | None = None, program: str = "helm") -> "subprocess.CompletedProcess[str]":
    """A call of helm with these values."""
    command = [program, *arguments, "--values", "-"]
    return subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True, check=False)


def template(values: Object | None = None, program: str = "helm") -> "subprocess.CompletedProcess[str]":
    """A release `r` in the namespace `system`, or what is wrong with the values."""
    return helm(
        *("template", "r", str(CHART), "--namespace", "system", "--kube-version", "1.30"),
        values=values,
        program=program,
    )


def render(values: Object | None = None, program: str = "helm") -> dict[str, Object]:
    """All its objects, by kind and name."""
    done = template(values, program)
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
