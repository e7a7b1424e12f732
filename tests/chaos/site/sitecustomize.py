"""Python imports this by its name when it starts with this directory on its path: puts failpoints into a supervisor.

For a process with FAIL_AT in its environment (`7 kill`), and only if it is a run's supervisor, which is started by a
server with no more than its own environment. See `tests.chaos.failpoints`.

Where libfaketime sets the wall clock wrong, `time.sleep` is mended, whose clock is the other one: the library takes the
time that it is to sleep until for one of the wall clock.
"""

import os
import select
import sys
import time
from pathlib import Path

if "FAIL_AT" in os.environ and sys.orig_argv[1:3] == ["-m", "common.local.supervisor"]:
    sys.path.append(str(Path(__file__).resolve().parents[3]))
    from tests.chaos.failpoints import Plan, steps

    steps.watch_files(Path(os.environ["STATE_DIR"]))
    steps.arm(Plan.parse(os.environ["FAIL_AT"]), Path(os.environ["FAIL_AT_STEPS"]))

if "FAKETIME_TIMESTAMP_FILE" in os.environ:

    def _sleep(seconds: float) -> None:
        select.select((), (), (), seconds)

    time.sleep = _sleep  # type: ignore[assignment]
