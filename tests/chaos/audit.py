"""What every case ends with: one run at most at all times, the slot free, each run in history with its right end,
nothing left of any, and no line lost without a gap.

Each run is asked for under a tag of its own, which its head says first and writes down: so what was launched is known
beside what was told, and a run that was launched twice, or that nobody has heard of, is found.
"""

import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from common.local.state import LOST
from tests.chaos.failpoints import HEADER, Plan
from tests.chaos.places import Place, said
from tests.integration.server import LocalServer, poll


@dataclass
class Audit:
    """The runs of one place, as those who asked for them were told, and what was found of them in the end.

    Attributes:
        tags: of the runs that were asked for, until the next check.
        accepted: the run of each tag that was told 201.
        named: every run that an answer told of.
        may_be_cancelled: runs that a cancel was sent for.
        may_be_lost: whether the supervisors of runs are killed, which ends them as `failed`.
        cancelled: those of them of which it was told that they are cancelled.
        ends: the state of each run that was checked; of each is seen that it never becomes another.
        figures: what was counted.
    """

    place: Place
    witness: LocalServer
    tags: list[str] = field(default_factory=list)
    accepted: dict[str, str] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    may_be_cancelled: set[str] = field(default_factory=set)
    may_be_lost: bool = False
    cancelled: set[str] = field(default_factory=set)
    ends: dict[str, str] = field(default_factory=dict)
    figures: Counter[str] = field(default_factory=Counter)
    _heard: list[str] = field(default_factory=list)
    _mute: int = 0  # runs that were ended before they said a word, or of whose log only a gap is left

    def ask(self, server: LocalServer, plan: Plan | None = None, **how: Any) -> httpx.Response:
        """POST /run of a new run; what is told is kept."""
        tag = f"t{secrets.token_hex(4)}"
        self.tags.append(tag)
        body = {"pipeline": "owner/stub", "parameters": {"script": self.place.head(tag, **how)}}
        answer = server.call("POST", "/run", _planned(plan), json=body)
        _check_form(answer, {200, 201, 409, 503})
        if answer.status_code in (200, 201):
            self.named.add(answer.json()["run_id"])
        if answer.status_code == 201:
            assert answer.json()["attached"] is False
            self.accepted[tag] = answer.json()["run_id"]
        return answer

    def cancel(self, server: LocalServer, run_id: str | None = None, plan: Plan | None = None) -> httpx.Response:
        """DELETE /cancel of a run, or of whatever is active; what is told is kept."""
        if run_id is not None:
            self.may_be_cancelled.add(run_id)
        answer = server.call("DELETE", "/cancel", _planned(plan), params={"run_id": run_id} if run_id else {})
        _check_form(answer, {200, 202, 404, 503})
        if answer.status_code in (200, 202):
            assert run_id in (None, answer.json()["run_id"])
            self.may_be_cancelled.add(answer.json()["run_id"])
        if answer.status_code == 200 and answer.json()["cancelled"]:
            self.cancelled.add(answer.json()["run_id"])
        return answer

    def gets_past(self, server: LocalServer, **how: Any) -> httpx.Response:
        """Ask for a run until one is told of; 503 at once where the runner itself is held by who was stopped."""
        for _ in poll("a run"):
            answer = self.ask(server, **how)
            if answer.status_code in (200, 201) or _is_held(answer):
                return answer
        raise AssertionError

    def started(self, server: LocalServer, **how: Any) -> str:
        """A run that is accepted: the slot is free."""
        answer = self.gets_past(server, **how)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["run_id"])

    def gone(self, server: LocalServer, run_id: str | None = None) -> httpx.Response:
        """Cancel a run until it is told to be gone."""
        for _ in poll("a run to be gone"):
            answer = self.cancel(server, run_id)
            if answer.status_code in (200, 404) or _is_held(answer):
                return answer
        raise AssertionError

    def check(self) -> None:
        """Let what runs come to its end; then see that the history tells what has happened."""
        self._come_to_rest()
        found = self._history()
        assert self.named <= set(found), "told of, and not in the history"
        assert self.ends.items() <= {run_id: run["status"] for run_id, run in found.items()}.items()
        heard = {}
        for run_id in set(found) - set(self.ends):
            heard[run_id] = self._check_run(found[run_id])
            self.ends[run_id] = found[run_id]["status"]
        for tag, run_id in self.accepted.items():
            assert heard[run_id] in (tag, ""), f"{run_id} was accepted as {tag} and is {heard[run_id]}"
        for _ in poll("nothing to be left"):
            if not self.place.left():
                break
        self._heard += filter(None, heard.values())
        self.tags, self.accepted = [], {}

    def finish(self) -> None:
        """The slot is free, and what was launched in all this time is what was told, each once."""
        self.check()
        run_id = self.started(self.witness, held=False, listing=True)
        assert self.witness.ended(run_id)["status"] == "succeeded"
        lines = self._log(run_id)
        mine = lines[0].partition(" ")[0]
        start = len(said(mine)) - 1
        assert [*lines[:start], lines[-1]] == said(mine)
        launched = Counter(lines[start:-1])
        assert set(launched.values()) == {1}, f"launched twice: {launched}"
        assert set(self._heard) <= set(launched), f"heard, and never launched: {set(self._heard) - set(launched)}"
        unheard = set(launched) - {*self._heard, mine}
        assert len(unheard) <= self._mute, f"launched, and not in the history: {unheard}"

    def _come_to_rest(self) -> None:
        for _ in poll("nothing to be active"):
            answer = self.witness.call("GET", "/active")
            if answer.status_code == 200 and not answer.json()["active"]:
                return
            if answer.status_code == 200:
                self.place.let(answer.json()["run"]["run_id"], self.tags)

    def _history(self) -> dict[str, dict[str, Any]]:
        runs: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            answer = self.witness.call("GET", "/history", params={"limit": 100, **cursor})
            assert answer.status_code == 200, answer.text
            runs += answer.json()["runs"]
            if answer.json()["next_cursor"] is None:
                break
            cursor = {"cursor": answer.json()["next_cursor"]}
        found = {run["run_id"]: run for run in runs}
        assert len(found) == len(runs), "twice in the history"
        return found

    def _log(self, run_id: str) -> list[str]:
        return self.witness.text(run_id).splitlines()

    def _check_run(self, run: dict[str, Any]) -> str:
        """Whether one run's end and log are right; its tag, if it has ever said it."""
        run_id, status = run["run_id"], run["status"]
        assert status == self.witness.status(run_id)["status"]
        if run_id in self.cancelled:
            assert status == "cancelled", run
        elif run_id in self.may_be_cancelled:
            assert status in ("cancelled", "succeeded"), run
        else:
            assert status == "succeeded" or (self.may_be_lost and run["message"] == LOST), run
        lines = self._log(run_id)
        gaps = [line for line in lines if line.startswith("# gap")]
        lines = [line for line in lines if not line.startswith("#")]
        tag = lines[0].partition(" ")[0] if lines else ""
        whole = said(tag) if status == "succeeded" else said(tag)[: len(lines)]
        assert lines == whole or gaps, (lines, gaps)
        self._mute += not tag
        self.figures.update(runs=1, lines=len(lines), gaps=len(gaps))
        return tag


def _planned(plan: Plan | None) -> dict[str, str]:
    return {HEADER: str(plan)} if plan else {}


def _check_form(answer: httpx.Response, codes: set[int]) -> None:
    assert answer.status_code in codes, answer.text
    if answer.status_code == 503:
        assert int(answer.headers["retry-after"]) >= 1


def _is_held(answer: httpx.Response) -> bool:
    return answer.status_code == 503 and "does not go on" in answer.text
