"""What streams cost beside the least that can be done, both measured in turn in one run.

    python -m tests.bench.streams            a table, and build/bench-stream.json
    python -m tests.bench.streams --only fanout --transports sse --followers 1000 --rounds 3

Half an hour; parts of it with --only, a glance with --rounds 1. It takes two cores; on a machine that has other things
to do, what counts CPU seconds and the ratios are worth more than the rest. What the figures mean is said in the modules
beside this one.
"""

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from tests.bench.report import HEADER, Row, table
from tests.bench.scene import ROOT
from tests.bench.streams import fanout, ingest, memory, reads, replay, slow
from tests.bench.streams.stage import TRANSPORTS, Stage, load_average, stage

Part = Callable[[argparse.Namespace], Iterator[Row]]
Followed = Callable[[Stage, Sequence[fanout.Load], int, fanout.Say], Iterator[Row]]


def _followed(measure: Followed, sizes: tuple[int, ...] = (1_000,)) -> Part:
    """A part that is about followers, so many by each transport."""

    def part(asked: argparse.Namespace) -> Iterator[Row]:
        loads = [fanout.Load(transport, size) for transport in asked.transports for size in asked.followers or sizes]
        with stage() as made:
            yield from measure(made, loads, asked.rounds, _say)

    return part


def _ingest(asked: argparse.Namespace) -> Iterator[Row]:
    with stage() as made:
        yield from ingest.rows(made, asked.rounds, _say)


def _replay(asked: argparse.Namespace) -> Iterator[Row]:
    with stage(**replay.ROOM) as made:
        yield from replay.rows(made, asked.lines, asked.transports, asked.rounds, _say)


def _reads(asked: argparse.Namespace) -> Iterator[Row]:
    with stage() as made:
        yield from reads.rows(made, asked.rounds, _say)


PARTS: dict[str, Part] = {
    "fanout": _followed(fanout.rows, fanout.SIZES),
    "latency": _followed(fanout.latency_rows),
    "saturated": _followed(fanout.saturated_rows),
    "memory": _followed(memory.rows),
    "slow": _followed(slow.rows),
    "ingest": _ingest,
    "replay": _replay,
    "reads": _reads,
}


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.streams", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the JSON instead of the table")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is measured (default 3)")
    parser.add_argument("--transports", nargs="+", choices=TRANSPORTS, default=list(TRANSPORTS))
    parser.add_argument("--followers", nargs="+", type=int, help="so many (default: what the part is about)")
    parser.add_argument("--lines", type=int, default=1_000_000, help="of the log that is replayed (default 1,000,000)")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and let go of every process on the way
    busy, rows = load_average(), list[Row]()
    try:
        for part in asked.only:
            rows += PARTS[part](asked)
    finally:  # what is measured is measured
        report = json.dumps(_report(rows, busy), indent=2)
        (ROOT / "build").mkdir(exist_ok=True)
        (ROOT / "build" / "bench-stream.json").write_text(report + "\n")
        print(report if asked.json else _text(rows, busy))
    return 0


def _report(rows: list[Row], busy: float) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average": {"before": busy, "after": load_average()},
        "rows": [row.record() for row in rows],
    }


def _text(rows: list[Row], busy: float) -> str:
    when = f"{datetime.now(UTC).date().isoformat()}, Python {platform.python_version()}, {os.cpu_count()} cores"
    load = f"load average {busy:.1f} before, {load_average():.1f} after"
    return f"{when}, {load}\n\n{table(HEADER, [row.cells() for row in rows])}"


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
