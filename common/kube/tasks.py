"""What heads have made for their tasks: Pods, or Jobs and their Pods, all with the label of their run."""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from common.errors import Conflict
from common.kube.objects import RUN_ID
from common.kube.reading import is_heads
from common.kube.transport import Api


class Task(NamedTuple):
    """One Pod or Job."""

    run_id: str
    name: str
    uid: str
    path: str


async def find(api: Api, collections: Sequence[str], run_id: str | None = None) -> list[Task]:
    """The tasks of a run, or of all.

    Raises:
        Unavailable: the API server does not answer, or does not show them.
    """
    found = []
    for collection in collections:
        for item in await api.items(collection, RUN_ID if run_id is None else f"{RUN_ID}={run_id}"):
            metadata = item["metadata"]
            of = metadata["labels"][RUN_ID]
            if not is_heads(item, of):
                found.append(Task(of, metadata["name"], metadata["uid"], f"{collection}/{metadata['name']}"))
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
