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
from common.errors import Unavailable
from common.events import ZERO, LineId
from common.kube import beside
from common.kube import log as logs
from common.kube.paths import Paths
from common.kube.transport import Api
from common.observe import configure_logging
from common.recorder.recorder import Recorder
from common.runner import Batches
from common.settings import Settings
from common.streams import Streams

_LOOK_SECONDS = 0.5
# Within a pod's grace, which begins when Nextflow has ended. What Redis has not got by then it gets from the archive.
_DRAIN_SECONDS = 5.0


class OwnPod:
    """The pod that this is a part of, as a source of its Nextflow's log."""

    def __init__(self, api: Api, pods: str, name: str) -> None:
        self._api = api
        self._pods = pods
        self._path = f"{pods}/{name}"

    async def lines(self, run_id: str, attempt: int, after: LineId = ZERO) -> Batches:
        log = logs.Log(after)
        while (pod := await self._api.get(self._path)) is not None:
            if logs.begun(pod):
                try:
                    async for lines in logs.read(self._api, self._pods, pod, log, None):
                        yield lines
                except Unavailable:  # not to be had at this moment: look at the pod again
                    yield ()
                else:
                    if logs.over(pod):
                        return
            yield ()
            await asyncio.sleep(_LOOK_SECONDS)

    async def final(self, run_id: str, attempt: int) -> bool | None:
        pod = await self._api.get(self._path)
        return None if pod is None else logs.over(pod)


async def _main(run_id: str, environ: Mapping[str, str]) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
    settings = Settings.read(environ)
    configure_logging(settings.log_level)
    api, connection = Api(), Connection.open(settings)
    try:
        await Recorder(
            source=OwnPod(api, Paths(settings).pods, environ["POD_NAME"]),
            streams=Streams(connection, settings.redis_prefix, settings.history_ttl_seconds),
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
