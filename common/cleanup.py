"""The clean-up that comes by itself: for what a start or a cancel would do, where nobody starts or cancels anything.

    python -m common.cleanup

Jobs that are past their retention are deleted, and tasks that a head has left behind, whose run has ended
or is gone. It is the others' own code; nothing depends on when, or whether, it is done. It needs no Redis,
and is not given what it takes to reach it.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Mapping

from common.errors import ControllerError
from common.kube.runner import KubernetesRunner
from common.observe import configure_logging
from common.settings import Settings
from common.settle import tidy

log = logging.getLogger(__name__)


async def clean(runner: KubernetesRunner, settings: Settings) -> int:
    """Delete what nothing needs any more; how many Pods and Jobs of tasks that were.

    Raises:
        Unavailable: the cluster does not answer.
    """
    await tidy(runner, settings)
    orphans = await runner.sweep_orphans()
    count = sum(map(len, orphans.values()))
    log.info("cleaned up", extra={"tasks": count})
    return count


async def _main(environ: Mapping[str, str]) -> None:
    # What the release's settings say of Redis goes with what only the functions have: its Secret, its files.
    settings = Settings.read({name: value for name, value in environ.items() if not name.startswith("REDIS_")})
    configure_logging(settings.log_level)
    runner = KubernetesRunner.open(settings)
    try:
        await clean(runner, settings)
    finally:
        await runner.close()


if __name__ == "__main__":
    try:
        asyncio.run(_main(os.environ))
    except ControllerError as error:
        sys.exit(f"error: {error}")
