"""The chart, installed with heads that are a real Nextflow."""

import json
import os
import secrets
from pathlib import Path

from tests.cluster.place import kubectl
from tests.cluster.release import CHART, Object, Release

IMAGE = os.environ.get("TEST_NEXTFLOW_IMAGE", "nextflow/nextflow:24.10.0")
# With bash, awk and ps; by default the tasks' image is what the example names.
TASK_IMAGE = os.environ.get("TEST_TASK_IMAGE", "ubuntu:24.04")


class WithNextflow(Release):
    """An installation whose heads are Nextflow, and whose tasks are made as Pods or as Jobs."""

    resource = "Pod"

    def helm(self, verb: str, *flags: str, chart: Path = CHART, **settings: str) -> str:
        """As any release, but for the head."""
        own = {"runs.headImage": IMAGE, "runs.taskResource": self.resource}
        sets = [part for name, value in own.items() for part in ("--set", f"{name}={value}")]
        ours = {
            "CANCEL_GRACE_SECONDS": "20",
            "PIPELINE_SOURCES": "./,/workspace/pipelines/",
            "NEXTFLOW_CONFIG": "executor.pollInterval = '500 ms'",  # in place of 5 seconds: the tasks are short
        }
        return super().helm(verb, *sets, *flags, chart=chart, **ours, **settings)

    def tasks_of(self, run_id: str, kind: str = "pods") -> list[Object]:
        """The pods (or Jobs) of a run's tasks."""
        chosen = f"nextflow-controller/run-id={run_id},nextflow-controller/role!=head"
        items: list[Object] = self.get(kind, "--selector", chosen, namespace=self.runs)["items"]
        return items

    def on_the_volume(self, *command: str) -> str:
        """What a command says in a pod that mounts the work volume."""
        claims = self.get("persistentvolumeclaims", namespace=self.runs)["items"]
        name = f"person-{secrets.token_hex(3)}"
        spec = {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "person",
                    "image": TASK_IMAGE,
                    "command": [*command],
                    "volumeMounts": [{"name": "work", "mountPath": "/workspace"}],
                }
            ],
            "volumes": [{"name": "work", "persistentVolumeClaim": {"claimName": claims[0]["metadata"]["name"]}}],
        }
        overrides = json.dumps({"apiVersion": "v1", "spec": spec})
        kubectl("run", name, f"--namespace={self.runs}", f"--image={TASK_IMAGE}", f"--overrides={overrides}")
        done = "--for=jsonpath={.status.phase}=Succeeded"
        kubectl("wait", f"pod/{name}", f"--namespace={self.runs}", done, "--timeout=60s")
        return kubectl("logs", name, f"--namespace={self.runs}")
