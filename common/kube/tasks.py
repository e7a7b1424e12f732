"""What heads have made for their tasks: Pods, or Jobs and their Pods, all with the label of their run."""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from common.errors import Conflict
from common.kube.objects import HEAD, ROLE, RUN_ID
from common.kube.transport import Api


class Task(NamedTuple):
    """One Pod or Job."""

    run_id: str
    name: str
    uid: str
    path: str


def selector(run_id: str | None = None) -> str:
    """The labels of a run's tasks, or of all."""
    return f"{RUN_ID}{'' if run_id is None else f'={run_id}'},{ROLE}!={HEAD}"


async def find(api: Api, collections: Sequence[str], run_id: str | None = None) -> list[Task]:
    """The tasks of a run, or of all.

    Raises:
        Unavailable: the API server does not answer, or does not show them.
    """
    found = []
    for collection in collections:
        for item in await api.items(collection, selector(run_id)):
            metadata = item["metadata"]
            path = f"{collection}/{metadata['name']}"
            found.append(Task(metadata["labels"][RUN_ID], metadata["name"], metadata["uid"], path))
    return found


async def delete(api: Api, tasks: Sequence[Task]) -> None:
    """Have tasks deleted: Jobs before Pods, as a Job whose pod is gone may make another.

    Raises:
        Unavailable: the API server does not answer, or refuses; some may be left.
    """
    for task in sorted(tasks, key=lambda task: "/jobs/" not in task.path):
        # By UID: a later run's task may have its name by now.
        options = {"preconditions": {"uid": task.uid}, "propagationPolicy": "Background"}
        with suppress(Conflict):
            await api.delete(task.path, options)
