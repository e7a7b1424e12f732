"""What an attempt finds: no task of the last one, its session if there is one, and nothing kept for too long."""

import asyncio
import os
import shutil
import time
from pathlib import Path

import pytest

from common.errors import Unavailable
from common.kube import beside, prepare
from common.kube.transport import Api, Object
from common.names import new_run_id
from tests.unit.test_kube_objects import RUN_ID

SESSION = "00000000-0000-4000-8000-000000000000"


class Tasks(Api):
    """An API server with tasks of a run that go a while after they were deleted, and which may not answer."""

    def __init__(self, *names: str, away: int = 0) -> None:
        super().__init__()
        self.names = list(names)
        self._dying: list[str] = []
        self._away = away

    async def get(self, path: str, **query: str) -> Object:
        """What is there; what is about to go is shown once more."""
        if self._away:
            self._away -= 1
            raise Unavailable("runner", "away")
        assert query["labelSelector"] == f"nextflow-controller/run-id={RUN_ID}"
        labels = {"nextflow-controller/run-id": RUN_ID}
        items = [{"metadata": {"name": name, "uid": name, "labels": labels}} for name in (*self.names, *self._dying)]
        self._dying = []
        return {"metadata": {}, "items": items}

    async def delete(self, path: str, options: Object) -> None:
        """It is about to go."""
        name = path.rpartition("/")[2]
        if name in self.names:
            self.names.remove(name)
            self._dying.append(name)


@pytest.mark.parametrize("away", [0, 3])
async def test_the_earlier_attempts_tasks_are_ended(away: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not asked to end: gone; however often it has to be asked."""
    monkeypatch.setattr(prepare, "_RETRY_SECONDS", 0)
    monkeypatch.setattr(prepare, "_SWEEP_SECONDS", 0)
    tasks = Tasks("nf-1", "nf-2", away=away)
    await prepare.end_tasks(tasks, ("/pods",), RUN_ID)
    assert tasks.names == tasks._dying == []


@pytest.mark.parametrize(
    ("goes_on", "known", "resumes"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_session_is_resumed_where_there_is_one(tmp_path: Path, goes_on: bool, known: bool, resumes: bool) -> None:
    """A first attempt starts anew, and so does one whose predecessor has not come to its first task."""
    if known:
        (tmp_path / ".nextflow" / "cache" / SESSION).mkdir(parents=True)
    config = prepare.attempt_config(tmp_path, SESSION, goes_on=goes_on)
    assert config == (f"resume = '{SESSION}'\n" if resumes else "")


def test_a_bundle_is_copied_however_often(tmp_path: Path) -> None:
    """Files and directories; the volume's own directory is not touched (it is the kubelet's)."""
    (tmp_path / "bundle" / "examples" / "one").mkdir(parents=True)
    (tmp_path / "bundle" / "examples" / "one" / "main.nf").write_text("x")
    (tmp_path / "bundle" / "README").write_text("y")
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o707)
    for _ in range(2):
        prepare.copy(tmp_path / "bundle", volume)
        assert {str(path.relative_to(volume)) for path in volume.rglob("*") if path.is_file()} == {
            "examples/one/main.nf",
            "README",
        }
        assert volume.stat().st_mode & 0o777 == 0o707


def test_an_attempt_clones_anew(tmp_path: Path) -> None:
    """What the one before it has cloned may be half of it; what else is kept of the run stays."""
    own = tmp_path / RUN_ID
    prepare.keep(own)
    assert list(own.iterdir()) == []
    (own / "clones/lab/hello/.git").mkdir(parents=True)
    (own / "progress.json").touch()
    prepare.keep(own)
    assert [path.name for path in own.iterdir()] == ["progress.json"]


def kept_run(kept: Path, age: float) -> str:
    """What is kept of a run whose directory was last written so many seconds ago; its id."""
    run_id = new_run_id()
    (kept / run_id / "archive" / "1").mkdir(parents=True)
    aged(kept / run_id, age)
    return run_id


def aged(path: Path, age: float) -> None:
    """Have a file or directory be last written so many seconds ago."""
    written = time.time() - age
    os.utime(path, (written, written))


def test_what_is_kept_is_forgotten_in_time(tmp_path: Path) -> None:
    """The oldest, and what is more than there may be; never the own run's, nor what is none of ours."""
    runs = [kept_run(tmp_path, 100 * age) for age in range(5)]
    (tmp_path / "somebody").mkdir()
    prepare.forget(tmp_path, runs[4], 350, 100)
    assert {path.name for path in tmp_path.iterdir()} == {*runs, "somebody"}
    prepare.forget(tmp_path, runs[4], 250, 100)
    assert {path.name for path in tmp_path.iterdir()} == {*runs[:3], runs[4], "somebody"}
    prepare.forget(tmp_path, runs[4], 250, 2)
    assert {path.name for path in tmp_path.iterdir()} == {*runs[:2], runs[4], "somebody"}
    prepare.forget(tmp_path / "absent", runs[4], 250, 3)


@pytest.mark.parametrize("mark", ["progress.json", "archive/1/end"])
def test_a_run_is_as_old_as_its_end(tmp_path: Path, mark: str) -> None:
    """Its directory may be from its first minute, and it may have gone on for longer than it is to be kept."""
    run_id = kept_run(tmp_path, 300)
    (tmp_path / run_id / mark).touch()
    aged(tmp_path / run_id, 300)
    aged(tmp_path / run_id / mark, 100)
    prepare.forget(tmp_path, RUN_ID, 200, 100)
    assert (tmp_path / run_id).exists()
    aged(tmp_path / run_id / mark, 250)
    prepare.forget(tmp_path, RUN_ID, 200, 100)
    assert not (tmp_path / run_id).exists()


def test_what_cannot_be_read_is_left_and_keeps_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links that lead nowhere, or elsewhere, a file, a directory that makes trouble: all with the names of runs."""
    old, new, loop = kept_run(tmp_path, 300), kept_run(tmp_path, 50), kept_run(tmp_path, 50)
    odd = [new_run_id() for _ in range(3)]
    (tmp_path / odd[0]).symlink_to("nowhere")
    (tmp_path / odd[1]).symlink_to(tmp_path)
    (tmp_path / odd[2]).touch()
    original = prepare._last_written

    def last_written(run: Path) -> float:
        if run.name == loop:
            raise OSError("stale file handle")
        return original(run)

    monkeypatch.setattr(prepare, "_last_written", last_written)
    prepare.forget(tmp_path, RUN_ID, 200, 1)
    assert {path.name for path in tmp_path.iterdir()} == {new, loop, *odd}, f"{old} is too old"


def test_a_tree_that_cannot_be_removed_keeps_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever shutil makes of it."""
    deep, _ = kept_run(tmp_path, 300), kept_run(tmp_path, 400)
    original = shutil.rmtree

    def rmtree(path: Path, *, ignore_errors: bool) -> None:
        if path.name == deep:
            raise RecursionError
        original(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    prepare.forget(tmp_path, RUN_ID, 200, 100)
    assert [path.name for path in tmp_path.iterdir()] == [deep]


@pytest.mark.parametrize("case", ["absent", "file", "link"])
def test_an_attempt_is_prepared_whatever_is_where_runs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """A file of that name would else keep every run from starting."""
    kept = tmp_path / ".nextflow-controller"
    if case == "file":
        kept.touch()
    elif case == "link":
        kept.symlink_to(tmp_path / "no" / "where")
    monkeypatch.setattr(beside, "ATTEMPT_CONFIG", tmp_path / "attempt.config")
    monkeypatch.setattr(prepare, "configure_logging", lambda level: None)
    monkeypatch.setenv("WORK_PATH", str(tmp_path))
    monkeypatch.setenv("FAILURES", "0")
    prepare._main(RUN_ID, SESSION, "fresh", "owner/name", "")
    assert (tmp_path / "attempt.config").read_text() == ""
    assert (kept / RUN_ID).is_dir() is (case == "absent")


@pytest.mark.parametrize("again", [False, True])
def test_what_lies_under_the_name_of_an_allowed_pipeline_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """An earlier run may have put it there, or a task until it was ended: Nextflow takes that before it fetches."""

    async def plant(*_: object) -> None:
        (tmp_path / "owner" / "name").mkdir(parents=True)

    monkeypatch.setattr(prepare, "_end_earlier", plant)
    monkeypatch.setattr(beside, "LAST_WORDS", tmp_path / "words")
    monkeypatch.setattr(prepare, "configure_logging", lambda level: None)
    monkeypatch.setenv("WORK_PATH", str(tmp_path))
    monkeypatch.setenv("FAILURES", "1" if again else "0")
    if not again:
        asyncio.run(plant())
    with pytest.raises(SystemExit, match="which Nextflow would run instead"):
        prepare._main(RUN_ID, SESSION, "fresh", "owner/name", "")
    reason = "there is a 'owner/name' in the launch directory, which Nextflow would run instead; remove that"
    assert (tmp_path / "words").read_text() == reason
