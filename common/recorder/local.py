"""The recorder of a run on this machine; the run's supervisor starts it, and starts it again.

python -m common.recorder.local RUN_ID DIRECTORY
"""

import asyncio
import os
import sys
from pathlib import Path

from common.observe import configure_logging
from common.platform import platform
from common.recorder.recorder import Recorder


async def _main(run_id: str, directory: Path) -> None:
    parts = platform()
    configure_logging(parts.settings.log_level)
    trace = directory / "trace.txt"
    try:
        await Recorder(
            source=parts.runner, streams=parts.streams, run_id=run_id, attempt=1, directory=directory, trace=trace
        ).run()
    finally:
        await parts.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    os.nice(5)  # the run comes first
    asyncio.run(_main(sys.argv[1], Path(sys.argv[2])))
