"""The clean-up that comes by itself: for what a start or a cancel would do, where nobody starts or cancels anything.

    python -m common.cleanup

Jobs that are past their retention are deleted, and tasks that a head has left behind, whose run has ended
or is gone. It is the others' own code; nothing depends on when, or whether, it is done.
"""

import asyncio
import logging
import os
import sys

from common.connection import Connection
from common.errors import ControllerError
from common.kube.runner import KubernetesRunner
from common.observe import configure_logging
from common.platform import Platform
from common.settings import Settings
from common.settle import tidy

log = logging.getLogger(__name__)


async def clean(parts: Platform, runner: KubernetesRunner) -> int:
    """Delete what nothing needs any more; how many Pods and Jobs of tasks that were.

    Raises:
        Unavailable: the cluster does not answer.
    """
    await tidy(parts)
    orphans = await runner.sweep_orphans()
    count = sum(map(len, orphans.values()))
    log.info("cleaned up", extra={"tasks": count})
    return count


async def _main() -> None:
    settings = Settings.read(os.environ)
    configure_logging(settings.log_level)
    runner = KubernetesRunner.open(settings)
    parts = Platform.assemble(settings, lambda: runner, Connection.open(settings))
    try:
        await clean(parts, runner)
    finally:
        await parts.close()


if __name__ == "__main__":
    try:
        asyncio.run(_main())
    except ControllerError as error:
        sys.exit(f"error: {error}")
