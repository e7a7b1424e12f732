"""Progress is read off the output and the trace of real runs, recorded with Nextflow 24.10.0."""

import csv
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.models import ProcessProgress, Progress
from common.progress import TRACE_FIELDS, Fold

FIXTURES = Path(__file__).parents[1] / "fixtures" / "nextflow"

Event = bytes | dict[str, str]


def lines(case: str) -> list[bytes]:
    return (FIXTURES / f"{case}.out").read_bytes().splitlines()


def rows(case: str) -> list[dict[str, str]]:
    with (FIXTURES / f"{case}.trace").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def fold(*events: Event) -> Fold:
    folded = Fold()
    for event in events:
        take(folded, event)
    return folded


def take(folded: Fold, event: Event) -> bool:
    return folded.line(event) if isinstance(event, bytes) else folded.row(event)


def counts(**numbers: int) -> ProcessProgress:
    return ProcessProgress(**numbers)


FINAL = {
    "success": Progress(
        total=counts(submitted=8, succeeded=8),
        processes={
            "SPLIT": counts(submitted=1, succeeded=1),
            "COMPOSE": counts(submitted=3, succeeded=3),
            "COUNT": counts(submitted=3, succeeded=3),
            "REPORT": counts(submitted=1, succeeded=1),
        },
    ),
    "cached": Progress(
        total=counts(cached=8),
        processes={
            "SPLIT": counts(cached=1),
            "COMPOSE": counts(cached=3),
            "COUNT": counts(cached=3),
            "REPORT": counts(cached=1),
        },
    ),
    "fail": Progress(
        total=counts(submitted=7, succeeded=6, failed=1),
        processes={
            "SPLIT": counts(submitted=1, succeeded=1),
            "COMPOSE": counts(submitted=3, succeeded=3),
            "COUNT": counts(submitted=3, succeeded=2, failed=1),
        },
    ),
    "retry": Progress(
        total=counts(submitted=2, succeeded=1, retried=1),
        processes={"FLAKY": counts(submitted=2, succeeded=1, retried=1)},
    ),
    "aborted": Progress(
        total=counts(submitted=2, failed=2),
        processes={"SLEEP": counts(submitted=2, failed=2)},
    ),
}
CASES = sorted(FINAL)


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_run_has_the_counts_that_its_tasks_had(case: str) -> None:
    """Output first, then the trace: the counts of the whole run, per process in order of appearance."""
    progress = fold(*lines(case), *rows(case)).progress()

    assert progress == FINAL[case]
    assert list(progress.processes) == list(FINAL[case].processes)


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_trace_has_the_columns_we_ask_for(case: str) -> None:
    """The fixtures were recorded with our configuration."""
    assert tuple(rows(case)[0]) == TRACE_FIELDS


@pytest.mark.parametrize("case", CASES)
@given(seed=st.randoms(use_true_random=False))
def test_any_interleaving_of_output_and_trace_gives_the_same_counts(case: str, seed: random.Random) -> None:
    """The two files are read side by side, and neither is ahead of the other by any rule."""
    output, trace = list[Event](lines(case)), list[Event](rows(case))
    merged: list[Event] = []
    while output and trace:
        merged.append(seed.choice((output, trace)).pop(0))

    assert fold(*merged, *output, *trace).progress() == FINAL[case]


@pytest.mark.parametrize("case", CASES)
@given(seed=st.randoms(use_true_random=False))
def test_at_every_moment_the_parts_add_up(case: str, seed: random.Random) -> None:
    """Whatever was read so far, every submitted attempt is in exactly one of the counts of its end."""
    output, trace = list[Event](lines(case)), list[Event](rows(case))
    folded = Fold()
    while output or trace:
        take(folded, seed.choice([events for events in (output, trace) if events]).pop(0))
        progress = folded.progress()
        for told in progress.processes.values():
            assert told.running + told.succeeded + told.failed <= told.submitted
            assert told.submitted - told.running - told.succeeded - told.failed <= told.retried
        for name in ProcessProgress.model_fields:
            parts = [getattr(told, name) for told in progress.processes.values()]
            assert getattr(progress.total, name) == sum(parts)


def test_a_task_runs_from_its_line_to_its_row() -> None:
    """Nothing but the output tells that a task was submitted, nothing but the trace that it ended."""
    submitted = fold(b"[ab/cdef01] Submitted process > FLOW:COUNT (sample 1)")
    running = submitted.progress()
    submitted.row({"hash": "ab/cdef01", "process": "FLOW:COUNT", "status": "COMPLETED", "attempt": "1"})

    assert running.processes == {"FLOW:COUNT": counts(submitted=1, running=1)}
    assert submitted.progress().processes == {"FLOW:COUNT": counts(submitted=1, succeeded=1)}


def test_a_failure_that_will_be_retried_is_never_told_as_one() -> None:
    """Between the announcement and the new attempt there may be minutes, while the executor is busy."""
    first, announced, again = lines("retry")[2:]
    failed, succeeded = rows("retry")

    before = fold(first, announced, failed).progress()
    meanwhile = fold(first, announced, failed, again).progress()
    after = fold(first, announced, failed, again, succeeded).progress()

    assert before.total == counts(submitted=1, retried=1)
    assert meanwhile.total == counts(submitted=2, running=1, retried=1)
    assert after.total == counts(submitted=2, succeeded=1, retried=1)


def test_a_failure_after_the_last_attempt_is_told_once() -> None:
    """Two attempts that failed are one failed task and one retry."""
    first, announced, again = lines("retry")[2:]
    failed, second = rows("retry")
    second = second | {"status": "FAILED", "exit": "1"}

    assert fold(first, announced, failed, again, second).progress().total == counts(submitted=2, failed=1, retried=1)


def test_an_ignored_failure_is_a_failure() -> None:
    """The run goes on, but the task did not succeed."""
    folded = fold(
        b"[ab/cdef01] Submitted process > COUNT",
        b"[ab/cdef01] NOTE: Process `COUNT` terminated with an error exit status (7) -- Error is ignored",
        {"hash": "ab/cdef01", "process": "COUNT", "status": "FAILED", "attempt": "1"},
    )

    assert folded.progress().total == counts(submitted=1, failed=1)


def test_only_news_counts_as_a_change() -> None:
    """Progress is written down, and sent to everybody, only when there is something new in it."""
    folded = Fold()
    line = b"[ab/cdef01] Submitted process > COUNT"
    row = {"hash": "ab/cdef01", "process": "COUNT", "status": "COMPLETED", "attempt": "1"}

    assert [folded.line(line), folded.line(line), folded.row(row), folded.row(row)] == [True, False, True, False]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"N E X T F L O W  ~  version 24.10.0",
        b"a task said: [ab/cdef01] Submitted process > COUNT",
        b"[skipping] Stored process > COUNT",
        b"[ab/cdef01] NOTE: Process `COUNT` terminated with an error exit status (1) -- Execution is retried (1)",
        b"[\xff\xfe/cdef01] Submitted process > COUNT",
    ],
)
def test_other_lines_change_nothing(text: bytes) -> None:
    """Nor does the announcement of a retry of a task that nobody knows."""
    folded = Fold()

    assert folded.line(text) is False
    assert folded.progress() == Progress()


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"task_id": "second line of a tag)"},
        {"hash": "second", "process": "line", "status": "of a tag"},
        {"hash": "ab/cdef01", "process": "COUNT", "status": ""},
    ],
)
def test_what_is_no_row_changes_nothing(row: dict[str, str]) -> None:
    """A tag may hold a newline and a tab, and the trace file does not escape them."""
    folded = Fold()

    assert folded.row(row) is False
    assert folded.progress() == Progress()


@given(text=st.binary(), prefix=st.sampled_from([b"", b"[", b"[ab/cdef01] ", b"[ab/cdef01] Submitted process > "]))
def test_no_line_breaks_it(text: bytes, prefix: bytes) -> None:
    """Tasks write what they like to the same output."""
    Fold().line(prefix + text)


def test_what_nobody_saw_end_went_with_the_head() -> None:
    """Once the run is over nothing of it runs: attempts without a row have failed, the others stay what they are."""
    fold = Fold()
    fold.line(b"[aa/000001] Submitted process > P (1)")
    fold.line(b"[aa/000002] Submitted process > P (2)")
    fold.line(b"[aa/000003] Cached process > P (3)")
    fold.row({"hash": "aa/000001", "process": "P", "status": "COMPLETED", "attempt": "1"})
    assert fold.close() is True
    assert fold.progress().total == ProcessProgress(submitted=2, succeeded=1, failed=1, cached=1)
    assert fold.close() is False
