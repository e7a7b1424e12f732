"""What was measured, as values: ratios, what spread they have, whether they keep to their bounds, and how that is told.

Both sides of a ratio are measured in turn in one run, so it says more than either figure: machines
differ, and so do the hours of one machine.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Row:
    """Ours beside the bare minimum.

    Attributes:
        ours, bare: one figure a round.
        of: what is bounded: the ratio of the two medians, or our median itself.
        bound: not to be passed: from below where more is better (`at_most` is false).
        void: why the figures say nothing, where they do not.
    """

    name: str
    unit: str
    ours: Sequence[float]
    bare: Sequence[float]
    bound: float | None = None
    of: Literal["ratio", "figure"] = "ratio"
    at_most: bool = True
    void: str = ""

    @property
    def ratio(self) -> float:
        bare = median(self.bare)
        return median(self.ours) / bare if bare else math.inf

    @property
    def holds(self) -> bool | None:
        """Whether the bound is kept; None where there is none, or nothing to tell it by."""
        if self.bound is None or self.void:
            return None
        figure = self.ratio if self.of == "ratio" else median(self.ours)
        return figure <= self.bound if self.at_most else figure >= self.bound

    def cells(self) -> tuple[str, ...]:
        """The row as it is printed."""
        return (self.name, self.unit, _figure(self.ours), _figure(self.bare), f"{self.ratio:.2f}", *self._judgement())

    def _judgement(self) -> tuple[str, str]:
        if self.bound is None:
            return "", ""
        bound = f"{'<=' if self.at_most else '>='} {self.bound:g}{'x' if self.of == 'ratio' else ' ' + self.unit}"
        return bound, f"void: {self.void}" if self.void else "yes" if self.holds else "NO"

    def record(self) -> dict[str, Any]:
        """The row for programs."""
        return {**asdict(self), "ratio": round(self.ratio, 3), "holds": self.holds}


HEADER = ("what", "unit", "ours (quartiles)", "bare (quartiles)", "ratio", "bound", "holds")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that can be read as it stands."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(_padded(line, widths)) + " |" for line in lines)


def imports_table(imports: Mapping[str, Mapping[str, float]], least_ms: float) -> str:
    """Milliseconds by package (row) and function (column), of those packages that cost anybody that much."""
    packages = {package for costs in imports.values() for package in costs}
    costly = [package for package in packages if _most(imports, package) >= least_ms]
    rows = [
        [package, *(f"{costs.get(package, 0):.0f}" for costs in imports.values())]
        for package in sorted(costly, key=lambda package: -_most(imports, package))
    ]
    rest = [sum(ms for package, ms in costs.items() if package not in costly) for costs in imports.values()]
    total = [sum(costs.values()) for costs in imports.values()]
    rows += [[name, *(f"{ms:.0f}" for ms in sums)] for name, sums in (("all others", rest), ("together", total))]
    return table(("imports, ms", *imports), rows)


def _most(imports: Mapping[str, Mapping[str, float]], package: str) -> float:
    return max(costs.get(package, 0) for costs in imports.values())


def _padded(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]


def _figure(values: Sequence[float]) -> str:
    low, middle, high = quantiles(values, n=4) if len(values) > 1 else [*values] * 3
    return f"{middle:.0f} ({low:.0f} to {high:.0f})"
