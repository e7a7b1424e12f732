"""What happens in a head's pod before Nextflow is started: an attempt finds the place as it needs it.

    python -m common.kube.prepare RUN_ID SESSION_ID fresh|resume PIPELINE BUNDLE

The tasks of an earlier attempt are ended, as its head cannot do so any more: no two attempts have tasks
at a time. Nextflow is told to go on with its session where that has left something. What is kept of runs
that are past their retention is removed, as nobody else of the controller may touch the volume. PIPELINE is
what is allowed to be run, or empty where anything is; something else under that name refuses the start.
BUNDLE, where it is not empty, is a directory of this image that Nextflow is to have.

Each step can be done again: a pod whose node is restarted does this once more.
"""

import asyncio
import logging
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common import nextflow
from common.errors import NotAllowed, Unavailable
from common.kube import beside
from common.kube.paths import Paths
from common.kube.tasks import delete, find
from common.kube.transport import Api
from common.names import is_run_id
from common.observe import configure_logging
from common.settings import Settings
from common.sources import unhidden

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_SWEEP_SECONDS = 0.5  # until it is looked again whether what was deleted is gone


async def end_tasks(api: Api, collections: Sequence[str], run_id: str) -> None:
    """Return once no task of the run is left, however long that takes: the run may be cancelled meanwhile."""
    while True:
        try:
            left = await find(api, collections, run_id)
            await delete(api, left)
        except Unavailable as away:
            log.warning("the earlier attempt's tasks cannot be ended", extra={"run_id": run_id, "cause": str(away)})
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        if not left:
            return
        log.info("ending the earlier attempt's tasks", extra={"run_id": run_id, "tasks": len(left)})
        await asyncio.sleep(_SWEEP_SECONDS)


def attempt_config(launch: Path, session_id: str, *, goes_on: bool) -> str:
    """The configuration of one attempt: that it resumes its session, if it is to and there is one."""
    known = (launch / ".nextflow" / "cache" / session_id).is_dir()
    return nextflow.resume(session_id) if goes_on and known else ""


def copy(bundle: Path, volume: Path) -> None:
    """Copy what is in a directory into another, which is somebody else's and stays as it is itself."""
    for entry in bundle.iterdir():
        if entry.is_dir():
            shutil.copytree(entry, volume / entry.name, dirs_exist_ok=True)
        else:
            shutil.copy2(entry, volume)


def forget(kept: Path, own: str, ttl_seconds: float, most: int) -> None:
    """Remove what is kept of other runs: of those that ended too long ago, and of those beyond `most`.

    As many as there are ended Jobs. What cannot be read, or is no directory, is left as it is.
    """
    others: list[tuple[float, Path]] = []
    for path in kept.glob("run-*"):
        with _not_fatal(path):
            if is_run_id(path.name) and path.name != own and stat.S_ISDIR(path.lstat().st_mode):
                others.append((_last_written(path), path))
    for nth, (written, path) in enumerate(sorted(others, reverse=True), start=1):
        if nth > most or written < time.time() - ttl_seconds:
            with _not_fatal(path):
                shutil.rmtree(path, ignore_errors=True)


def _last_written(run: Path) -> float:
    """When something was last written of a run: at its end, if it has come to one."""
    marks = (run / "progress.json", *run.glob("archive/*/end"))
    return max(path.lstat().st_mtime for path in (run, *marks) if os.path.lexists(path))


@contextmanager
def _not_fatal(path: Path) -> Iterator[None]:
    """Tasks may do with the volume what they like: what is wrong with what is kept there keeps no run from starting."""
    try:
        yield
    except Exception as error:  # not only OSError: a tree can be too deep to be removed
        log.warning("what is kept of runs is not in order", extra={"path": str(path), "cause": repr(error)})


def keep(own: Path) -> None:
    """Make the place of what is kept of a run, without clones: an earlier attempt may have been ended in one."""
    own.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(own / beside.CLONES, ignore_errors=True)


async def _end_earlier(settings: Settings, run_id: str) -> None:
    api, paths = Api(), Paths(settings)
    try:
        await end_tasks(api, (paths.jobs, paths.pods) if settings.task_resource == "Job" else (paths.pods,), run_id)
    finally:
        await api.close()


def _main(run_id: str, session_id: str, mode: str, pipeline: str, bundle: str) -> None:
    settings = Settings.read(os.environ)
    configure_logging(settings.log_level)
    again = os.environ["FAILURES"] != "0"
    if again:
        asyncio.run(_end_earlier(settings, run_id))
    launch = Path(settings.work_path)
    try:  # not before nobody of the run is left who could put something there
        if pipeline:
            unhidden(pipeline, launch)
    except NotAllowed as refused:
        Path(beside.LAST_WORDS).write_text(refused.reason, "utf-8")
        sys.exit(str(refused))
    config = attempt_config(launch, session_id, goes_on=again or mode == "resume")
    Path(beside.ATTEMPT_CONFIG).write_text(config, "utf-8")
    if bundle:
        copy(Path(bundle), Path(beside.PIPELINES))
    kept = Path(beside.kept(settings.work_path))
    with _not_fatal(kept):
        forget(kept, run_id, settings.history_ttl_seconds, settings.history_max_runs)
    with _not_fatal(kept / run_id):
        keep(kept / run_id)


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    _main(*sys.argv[1:])
