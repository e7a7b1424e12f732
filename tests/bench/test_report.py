"""The bench's arithmetic on given figures; nothing here measures anything."""

import math

from tests.bench.report import HEADER, Row, imports_table, table

SLOWER = Row("start", "ms", ours=[400, 390, 1000], bare=[200, 210, 190], bound=2.0)
FASTER = Row("answers", "1/s", ours=[300, 320, 310], bare=[1000, 1010, 990], bound=0.4, at_most=False)


def test_a_ratio_is_of_the_medians() -> None:
    """One round that went wrong decides nothing."""
    assert SLOWER.ratio == 2.0
    assert FASTER.ratio == 0.31


def test_a_bare_side_that_has_nothing() -> None:
    """Whatever ours has is infinitely more."""
    assert Row("held", "%", [100], [0]).ratio == math.inf


def test_bounds() -> None:
    """From above or from below, of the ratio or of the figure; void and unbounded figures keep to none."""
    assert SLOWER.holds is True
    assert FASTER.holds is False
    assert Row("memory", "MB", [76], [50], bound=75, of="figure").holds is False
    assert Row("memory", "MB", [76], [50]).holds is None
    assert Row("answers", "1/s", [300], [100], bound=0.4, at_most=False, void="generator busy").holds is None


def test_the_table() -> None:
    """It is Markdown, and says what does not hold."""
    void = Row("more", "1/s", [5], [10], bound=0.4, at_most=False, void="busy")
    assert table(HEADER, [row.cells() for row in (SLOWER, FASTER, void)]).splitlines() == [
        "| what    | unit | ours (quartiles)  | bare (quartiles)   | ratio | bound   | holds      |",
        "| ------- | ---- | ----------------- | ------------------ | ----- | ------- | ---------- |",
        "| start   | ms   | 400 (390 to 1000) | 200 (190 to 210)   | 2.00  | <= 2x   | yes        |",
        "| answers | 1/s  | 310 (300 to 320)  | 1000 (990 to 1010) | 0.31  | >= 0.4x | NO         |",
        "| more    | 1/s  | 5 (5 to 5)        | 10 (10 to 10)      | 0.50  | >= 0.4x | void: busy |",
    ]


def test_the_record_of_a_row() -> None:
    """All figures, for who wants to judge by others."""
    assert SLOWER.record() == {
        "name": "start",
        "unit": "ms",
        "ours": [400, 390, 1000],
        "bare": [200, 210, 190],
        "bound": 2.0,
        "of": "ratio",
        "at_most": True,
        "void": "",
        "ratio": 2.0,
        "holds": True,
    }


def test_the_table_of_imports() -> None:
    """Packages that cost one function enough, the dearest first; the others in one line."""
    imports = {"active": {"redis": 50.4, "json": 1.0}, "run": {"redis": 50.0, "yaml": 60.0, "json": 2.0}}
    assert imports_table(imports, 5).splitlines() == [
        "| imports, ms | active | run |",
        "| ----------- | ------ | --- |",
        "| yaml        | 0      | 60  |",
        "| redis       | 50     | 50  |",
        "| all others  | 1      | 2   |",
        "| together    | 51     | 112 |",
    ]
