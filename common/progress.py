"""Task progress, read off what Nextflow says: its output and its trace file.

With `-ansi-log false` Nextflow prints a line when a task is handed to the executor, and none when
it ends; the trace file has a row when it ends, and none before. Both name an attempt by the same
hash (`ab/123456`), so folding the two, in any order, gives the counts. Only what adds to a task is
ever taken in, never what takes away: that is what makes the order of the two sources indifferent.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from common.models import ProcessProgress, Progress

# `name` is for people, and last: it holds the task's tag, and that may hold a tab or a newline.
TRACE_FIELDS = ("task_id", "hash", "process", "status", "exit", "attempt", "submit", "start", "complete", "name")

_HANDED_OVER = re.compile(r"\[([0-9a-f]{2}/[0-9a-f]{6})\] (Submitted|Re-submitted|Cached) process > (\S+)")
_RETRIED = re.compile(r"\[([0-9a-f]{2}/[0-9a-f]{6})\] NOTE: .* -- Execution is retried")
_HASH = re.compile(r"[0-9a-f]{2}/[0-9a-f]{6}")


class _Attempt(NamedTuple):
    """What is known of one attempt at a task.

    Attributes:
        ended: as the trace puts it: COMPLETED, FAILED, ABORTED or CACHED.
        again: it is not the task's first.
        to_be_repeated: it failed, and Nextflow said that there will be another.
    """

    process: str
    ended: str = ""
    cached: bool = False
    again: bool = False
    to_be_repeated: bool = False

    def counts_as(self) -> tuple[str, ...]:
        if self.cached:
            return ("cached",)
        end = {"": "running", "COMPLETED": "succeeded"}.get(self.ended, "bad")
        marks = ("again",) * self.again + ("to_be_repeated",) * self.to_be_repeated
        return ("submitted", end, *marks)


@dataclass
class Fold:
    """Progress so far; feed it every line and every trace row once, then ask for `progress()`."""

    _attempts: dict[str, _Attempt] = field(default_factory=dict)
    _counts: dict[str, Counter[str]] = field(default_factory=dict)

    def line(self, text: bytes) -> bool:
        """Take in a line of Nextflow's output; whether it changed anything."""
        if not text.startswith(b"["):  # nearly all lines: spared the rest
            return False
        line = text.decode("utf-8", "replace")
        if found := _HANDED_OVER.match(line):
            hash_, verb, process = found.groups()
            known = self._attempts.get(hash_) or _Attempt(process)
            again, cached = known.again or verb == "Re-submitted", known.cached or verb == "Cached"
            return self._learn(hash_, known._replace(again=again, cached=cached))
        if (found := _RETRIED.match(line)) and (failed := self._attempts.get(found[1])):
            return self._learn(found[1], failed._replace(to_be_repeated=True))
        return False

    def row(self, row: Mapping[str, str]) -> bool:
        """Take in a row of the trace file, by column; whether it changed anything.

        What is no row (the second line of a tag with a newline) is left out.
        """
        hash_, process, status = row.get("hash", ""), row.get("process", ""), row.get("status", "")
        if not (_HASH.fullmatch(hash_) and process and status):
            return False
        known = self._attempts.get(hash_) or _Attempt(process)
        again, cached = known.again or row.get("attempt", "1") not in ("1", "-", ""), known.cached or status == "CACHED"
        return self._learn(hash_, known._replace(ended=status, again=again, cached=cached))

    def close(self) -> bool:
        """The run is over: attempts that nobody saw end went with a head that was killed. Whether there were any."""
        lost = [(hash_, known) for hash_, known in self._attempts.items() if not known.ended and not known.cached]
        return any([self._learn(hash_, known._replace(ended="ABORTED")) for hash_, known in lost])

    def progress(self) -> Progress:
        """The counts as they are now."""
        processes = {process: _told(counts) for process, counts in self._counts.items()}
        total: Counter[str] = Counter()
        for told in processes.values():
            total.update(told.model_dump())
        return Progress(total=ProcessProgress(**total), processes=processes)

    def _learn(self, hash_: str, now: _Attempt) -> bool:
        # Counted as it comes: a run of a hundred thousand tasks is asked for its progress all the time.
        before = self._attempts.get(hash_)
        if before == now:
            return False
        counts = self._counts.setdefault(now.process, Counter())
        if before:
            counts.subtract(before.counts_as())
        counts.update(now.counts_as())
        self._attempts[hash_] = now
        return True


def _told(counts: Counter[str]) -> ProcessProgress:
    # A repetition is announced when its predecessor fails and submitted when there is room for it.
    retried = max(counts["again"], counts["to_be_repeated"])
    return ProcessProgress(
        submitted=counts["submitted"],
        running=counts["running"],
        succeeded=counts["succeeded"],
        failed=max(0, counts["bad"] - retried),
        cached=counts["cached"],
        retried=retried,
    )
