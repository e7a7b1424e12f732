"""Pipelines by the URL of a Git server: its revisions, and what is private there."""

import json
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.nextflow import TASK_IMAGE, WithNextflow
from tests.cluster.place import IMAGES, command, kubectl
from tests.cluster.release import CHART, Caller, installed

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PASSWORD = secrets.token_hex(16)


def documented(language: str) -> str:
    """The chart's page has one block of it about a Git server, for somebody to copy."""
    blocks = re.findall(rf"```{language}\n(.+?)```", (CHART / "README.md").read_text("utf-8"), re.DOTALL)
    (block,) = (block for block in blocks if "git.example.org" in block)
    return str(block)


class WithGit(WithNextflow):
    """An installation as the chart's page says it, and the Git server in its runs' namespace."""

    scratch: Path

    @property
    def git(self) -> str:
        """The server's URL."""
        return f"http://git.{self.runs}.svc:3000"

    def file(self, name: str, language: str) -> str:
        """What the page says, of our server and password; the path of a file with that."""
        text = documented(language).replace("https://git.example.org", self.git).replace("SECRET", PASSWORD)
        (self.scratch / name).write_text(text, "utf-8")
        return str(self.scratch / name)

    def helm(self, verb: str, *flags: str, chart: Path = CHART, **settings: str) -> str:
        """As any with Nextflow, but for the page's values."""
        page = ("--values", self.file("values.yaml", "yaml"))
        return super().helm(verb, *page, *flags, chart=chart, **settings)

    def install(self, chart: Path = CHART) -> None:
        """Install it, and the server."""
        super().install(chart)
        here = f"--namespace={self.runs}"
        kubectl("create", "secret", "generic", "scm", here, f"--from-file={self.file('scm', 'groovy')}")
        server = {
            "name": "git",
            "image": IMAGES["git"],
            "env": [{"name": "PASSWORD", "value": PASSWORD}],
            "readinessProbe": {"tcpSocket": {"port": 3000}, "periodSeconds": 1},
        }
        overrides = json.dumps({"apiVersion": "v1", "spec": {"containers": [server]}})
        kubectl("run", "git", here, f"--image={IMAGES['git']}", "--expose", "--port=3000", f"--overrides={overrides}")
        kubectl("wait", "pod/git", here, "--for=condition=Ready", "--timeout=60s")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WithGit]:
    """The chart, installed with Nextflow and a Git server."""
    release = WithGit(secrets.token_hex(3))
    release.scratch = tmp_path_factory.mktemp("lab")
    with installed(release) as made:
        yield made


@pytest.fixture
async def person(lab: WithGit) -> AsyncIterator[Caller]:
    """A caller of it."""
    async with lab.caller() as made:
        yield made


async def ask(person: Caller, pipeline: str, revision: str | None = None) -> httpx.Response:
    """Ask for a run of it."""
    request: dict[str, Any] = {"pipeline": pipeline, "parameters": {"container": TASK_IMAGE}}
    return await person.http.post("/run", json=request | ({"revision": revision} if revision else {}))


async def ran(person: Caller, pipeline: str, revision: str | None = None) -> tuple[str, str, str]:
    """Run it; the run's id, how it ended, and its log."""
    answer = await ask(person, pipeline, revision)
    assert answer.status_code == 201, answer.text
    run_id = str(answer.json()["run_id"])
    text = await person.text(run_id)
    return run_id, (await person.ended(run_id))["status"], text


async def test_the_default_branch(lab: WithGit, person: Caller) -> None:
    """It is what runs where no revision is asked for; tasks find the program that comes with it."""
    _, status, text = await ran(person, f"{lab.git}/lab/hello")
    assert (status, "hello from /lab/hello of main" in text) == ("succeeded", True), text


async def test_a_revision_that_does_not_exist(lab: WithGit, person: Caller) -> None:
    """The run has failed, and its log says why in Nextflow's words."""
    _, status, text = await ran(person, f"{lab.git}/lab/hello", "v3")
    missing = f"Remote resource not found: {lab.git}/api/v1/repos/lab/hello/raw/main.nf?ref=v3"
    assert (status, missing in text) == ("failed", True), text


async def test_a_revision_of_a_private_repository(lab: WithGit, person: Caller) -> None:
    """Nextflow shows the operator's password to the server, and nobody else is shown it."""
    run_id, status, text = await ran(person, f"{lab.git}/lab/private", "v2")
    assert (status, "hello from /lab/private of v2" in text) == ("succeeded", True), text
    objects = lab.get("jobs,pods", f"--selector=nextflow-controller/run-id={run_id}", namespace=lab.runs)
    answers = [await person.json("/status", run_id=run_id), await person.json("/history"), await person.json("/active")]
    logs = [text, kubectl("logs", f"job/{run_id}", f"--namespace={lab.runs}", "--all-containers")]
    told = [json.dumps(one) for one in (objects, *answers, await person.ndjson(run_id), *logs)]
    assert [PASSWORD in one for one in told] == [False] * len(told)


async def test_another_source(lab: WithGit, person: Caller) -> None:
    """The server is allowed as far as the setting says, which names one owner."""
    answer = await ask(person, f"{lab.git}/other/hello")
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")


def test_the_password_is_asked_for(lab: WithGit) -> None:
    """Or the private repository would prove nothing."""
    url = f"{lab.git}/api/v1/repos/lab/private"
    look = f"import urllib.request as r\ntry: r.urlopen({url!r})\nexcept r.HTTPError as error: print(error.code)"
    said = command("kubectl", "exec", "git", f"--namespace={lab.runs}", "--", "python3", "-c", look)
    assert said == "401\n"
