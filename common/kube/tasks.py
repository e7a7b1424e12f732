"""What a head has made for its tasks: Pods, or Jobs and their Pods, all with the run's label."""

from collections.abc import Sequence
from contextlib import suppress

from common.errors import Conflict
from common.kube.objects import HEAD, ROLE, RUN_ID
from common.kube.transport import Api


def selector(run_id: str) -> str:
    """The labels of a run's tasks."""
    return f"{RUN_ID}={run_id},{ROLE}!={HEAD}"


async def sweep(api: Api, collections: Sequence[str], run_id: str) -> Sequence[str]:
    """Have the tasks of a run deleted; the names of those that were there.

    Args:
        collections: Jobs before Pods: a Job whose pod is gone may make another.

    Raises:
        Unavailable: the API server does not answer, or refuses.
    """
    found: list[str] = []
    for collection in collections:
        for task in await api.items(collection, selector(run_id)):
            name, uid = task["metadata"]["name"], task["metadata"]["uid"]
            found.append(name)
            # By UID: a later run's task may have its name by now.
            options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
            with suppress(Conflict):
                await api.delete(f"{collection}/{name}", options)
    return found
