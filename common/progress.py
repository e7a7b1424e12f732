"""Task progress, read off what Nextflow says: its output and its trace file.

With `-ansi-log false` Nextflow prints a line when a task is handed to the executor, and none when
it ends; the trace file has a row when it ends, and none before. Both name a task by the same hash
(`ab/123456`), so folding the two, in any order, gives the counts.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from common.models import ProcessProgress, Progress

TRACE_FIELDS = ("task_id", "hash", "name", "process", "status", "exit", "attempt", "submit", "start", "complete")

_SUBMITTED = re.compile(rb"\[([0-9a-f]{2}/[0-9a-f]{6})\] (Submitted|Re-submitted|Cached) process > (\S+)")


@dataclass
class _Task:
    process: str
    retry: bool = False
    cached: bool = False
    status: str | None = None


@dataclass
class Fold:
    """Progress so far; feed it every line and every trace row once, then ask for `progress()`."""

    _tasks: dict[str, _Task] = field(default_factory=dict)

    def line(self, text: bytes) -> bool:
        """Take in a line of Nextflow's output; whether it changed anything."""
        if b"process > " not in text:
            return False
        found = _SUBMITTED.search(text)
        if found is None:
            return False
        hash_, verb, process = (part.decode("utf-8", "replace") for part in found.groups())
        task = self._tasks.setdefault(hash_, _Task(process))
        task.retry = verb == "Re-submitted"
        task.cached = verb == "Cached"
        return True

    def row(self, row: dict[str, str]) -> bool:
        """Take in a row of the trace file, by column; whether it changed anything."""
        hash_, status = row.get("hash", ""), row.get("status", "")
        if not hash_ or not status:
            return False
        task = self._tasks.setdefault(hash_, _Task(row.get("process") or "?"))
        changed = task.status != status
        task.status = status
        task.retry = task.retry or row.get("attempt", "1") not in ("1", "-", "")
        return changed

    def progress(self) -> Progress:
        """The counts as they are now."""
        by_process: dict[str, list[_Task]] = {}
        for task in self._tasks.values():
            by_process.setdefault(task.process, []).append(task)
        return Progress(
            total=_count(self._tasks.values()),
            processes={process: _count(tasks) for process, tasks in by_process.items()},
        )


def _count(tasks: Iterable[_Task]) -> ProcessProgress:
    submitted = running = succeeded = failed = cached = retried = 0
    for task in tasks:
        if task.cached or task.status == "CACHED":
            cached += 1
            continue
        submitted += 1
        retried += task.retry
        running += task.status is None
        succeeded += task.status == "COMPLETED"
        failed += task.status in ("FAILED", "ABORTED")
    # Each retry answers one failure of its process; the rest failed for good.
    return ProcessProgress(
        submitted=submitted,
        running=running,
        succeeded=succeeded,
        failed=max(0, failed - retried),
        cached=cached,
        retried=retried,
    )
