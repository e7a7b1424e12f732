"""The recorder of a run on Kubernetes: a native sidecar of its head's pod.

    python -m common.recorder.kubernetes RUN_ID

It reads the log of its own pod and nothing else of the cluster. The kubelet ends it once Nextflow has
ended, which it would be told anyway: by the log, whose last line it has to have.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from common.connection import Connection
from common.events import ZERO, LineId
from common.kube import beside, reading
from common.kube import log as logs
from common.kube.archive import Kept
from common.kube.paths import Paths
from common.kube.transport import Api
from common.observe import configure_logging
from common.recorder.recorder import Recorder
from common.runner import Batches
from common.settings import Settings
from common.streams import Streams

_LOOK_SECONDS = 0.5
# Within what a pod's grace leaves once Nextflow has ended. What Redis has not got by then it gets from the archive.
_DRAIN_SECONDS = 5.0


class OwnPod:
    """The pod that this is a part of, as a source of its Nextflow's log."""

    def __init__(self, api: Api, pods: str, name: str, ending: asyncio.Event) -> None:
        self._api = api
        # Set once the kubelet ends this container, which it does when Nextflow has ended, or will never begin. That is
        # sooner than the pod says so, and there may be two seconds left: what is there now is the whole log.
        self._ending = ending
        self._pods = pods
        self._path = f"{pods}/{name}"

    async def lines(self, run_id: str, attempt: int, after: LineId = ZERO) -> Batches:
        log, nothing = logs.Log(after), Kept(None, run_id, attempt)
        while (pod := await self._api.get(self._path)) is not None:
            if logs.is_there(pod):
                over = self._ending.is_set()
                async for lines in logs.read(self._api, self._pods, pod, log, nothing, over=over):
                    yield lines
            if log.complete:
                async for lines in logs.rest(log, nothing):
                    yield lines
                return
            if self._ending.is_set() and not logs.is_there(pod):
                return
            yield ()
            await asyncio.sleep(_LOOK_SECONDS)

    async def final(self, run_id: str, attempt: int) -> bool | None:
        """None, too, of a pod that ends before it has begun, or that is gone while it may go on."""
        pod = await self._api.get(self._path)
        if pod is None or not logs.is_there(pod):
            return None
        return True if self._ending.is_set() or "terminated" in reading.container(pod)["state"] else None


async def _main(run_id: str, environ: Mapping[str, str]) -> None:
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    settings = Settings.read(environ)
    configure_logging(settings.log_level)
    api, connection = Api(), Connection.open(settings)
    try:
        await Recorder(
            source=OwnPod(api, Paths(settings).pods, environ["POD_NAME"], ending),
            streams=Streams(connection, settings),
            run_id=run_id,
            attempt=1 + int(environ["FAILURES"]),
            directory=Path(beside.kept(settings.work_path, run_id)),
            trace=Path(beside.TRACE),
            drain_seconds=_DRAIN_SECONDS,
        ).run()
    finally:
        await api.close()
        await connection.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    asyncio.run(_main(sys.argv[1], os.environ))
