"""What the functions cost beside the bare minimum, both measured in turn in one run.

    python -m tests.bench            a table, and build/bench-local.json
    python -m tests.bench --json     the JSON on standard output instead of the table
    python -m tests.bench --starts 0 --asks 3     of the throughput alone, fewer rounds
    python -m tests.bench --kubernetes            cold starts with the Kubernetes runner, and how late lines are, on the
                                                  cluster of KUBECONFIG

Under three minutes; the machine should have two cores and nothing else to do. What the figures mean
is said in the modules beside this one.
"""

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from typing import Any

from tests.bench import cold, imports, tailing, throughput
from tests.bench.report import HEADER, Row, imports_table, table
from tests.bench.scene import ROOT, scene

_LEAST_MS = 5


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the JSON instead of the table")
    parser.add_argument("--starts", type=int, default=10, help="rounds of cold starts (default 10)")
    parser.add_argument("--asks", type=int, default=6, help="rounds of the throughput (default 6)")
    parser.add_argument("--kubernetes", action="store_true", help="cold starts and logs on the cluster of KUBECONFIG")
    asked = parser.parse_args()
    runner = "kubernetes" if asked.kubernetes else "local"
    if asked.kubernetes:
        asked.asks = 0
    with scene(runner) as made:
        rows = cold.rows(made, asked.starts, _say) if asked.starts else []
        rows += throughput.rows(made, asked.asks, _say) if asked.asks else []
        rows += tailing.rows(_say) if asked.kubernetes else []
        costs = imports.costs(made, 3, _say)
    report = json.dumps(_report(rows, costs), indent=2)
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / f"bench-{runner}.json").write_text(report + "\n")
    print(report if asked.json else _text(rows, costs))
    return 0


def _report(rows: list[Row], costs: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "rows": [row.record() for row in rows],
        "imports_ms": costs,
    }


def _text(rows: list[Row], costs: dict[str, dict[str, float]]) -> str:
    when = f"{datetime.now(UTC).date().isoformat()}, Python {platform.python_version()}, {os.cpu_count()} cores"
    return "\n\n".join([when, table(HEADER, [row.cells() for row in rows]), imports_table(costs, _LEAST_MS)])


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
