"""What is accepted of a caller: it gets to Nextflow as a value, from where it may come and below where it may be."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import from_json

from common import nextflow
from common.errors import Invalid, NotAllowed
from common.kube import head
from common.kube.objects import OPENS
from common.models import RunRecord, RunRequest
from common.settings import Settings
from common.sources import Sources
from tests.fuzz import fuzz
from tests.fuzz.values import JSON, members, text_of
from tests.unit.samples import record

LISTED = ("./", "owner/", "ours/one", "https://git.example/team/", "ssh://git@git.example/team/", "/data/pipes/")
_WORDS = r"""
.. . %2e%2e %2E. %252e%252e \..\ ~ @ # ? : ; $(PATH) ${x} `id` -c --upload-pack=x -oProxyCommand=x @options CON
main.nf deep out round owner name ours one team etc passwd data pipes git.example evil.example localhost [::1]
"""
# Look-alikes of dots, slashes, K, i and s; a letter composed and not; marks of order and of nothing.
SIGNS = ["\x00", "\n", "\r", "\t", " ", "\u2028", "\u202e", "\ufeff", "\u3002", "\uff0e\uff0e", "\uff0f", "\u2215"]
SIGNS += ["\u212a", "\u0131", "\u017f", "e\u0301", "\u00e9", "xn--e1awd7f", "git\u3002example"]
PARTS = st.one_of(st.sampled_from([*_WORDS.split(), *SIGNS, "", "a" * 300]), st.text(max_size=4))
PATHS = st.lists(PARTS, max_size=5).map("/".join)
SCHEMES = [
    "https://",
    "HTTPS://",
    "http://",
    "git://",
    "ssh://",
    "file://",
    "file:",
    "https:/",
    "https:",
    "//",
    "\\\\",
    "ext::",
]
HOSTS = [
    "git.example",
    "GIT.example",
    "git@git.example",
    "u:p@git.example",
    "git.example@evil",
    "git.example:443",
    "evil",
]
HOSTS += [
    "git.example#@evil",
    "git.example\\@evil",
    "git.example.",
    "[::1]",
    "",
    "\uff47it.example",
    "git.exam\u017fple",
    "-x",
]
URLS = st.builds(
    lambda scheme, host, path, tail: f"{scheme}{host}/{path}{tail}",
    st.sampled_from(SCHEMES),
    st.one_of(st.sampled_from(HOSTS), PARTS),
    st.one_of(PATHS, PATHS.map("team/".__add__)),
    st.sampled_from(["", "", "?ref=x", "#x", ".git", "%00", "@v"]),
)
PIPELINES = st.one_of(
    PATHS, PATHS.map("/".__add__), PATHS.map("/data/pipes/".__add__), URLS, st.lists(PARTS).map("".join)
)


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A directory of pipelines, with ways out of it."""
    with tempfile.TemporaryDirectory() as name:
        inside = Path(os.path.realpath(name)) / "pipelines"
        (inside / "deep" / "..x").mkdir(parents=True)
        (inside / "main.nf").touch()
        (inside / "owner").mkdir()
        (inside / "out").symlink_to("/etc")
        (inside / "deep" / "up").symlink_to("../..")
        (inside / "round").symlink_to(inside / "round")
        yield inside


def _decoded(text: str) -> str:
    while (once := unquote(text)) != text:
        text = once
    return text


def assert_allowed(found: str, root: Path) -> None:
    """By other means than those that allowed it."""
    if found.startswith(f"{root}/") or found == str(root):
        assert os.stat(found)
        assert Path(found).resolve(strict=True).is_relative_to(root)
        return
    if "://" in found:
        assert not {".", ".."} & set(re.split(r"[/\\]", _decoded(found)))
        url = urlsplit(found)
        assert (url.query, url.fragment, url.password) == ("", "", None)
        assert (url.hostname or "").isascii()
        assert (url.scheme, url.username, url.hostname, url.port) in (
            ("https", None, "git.example", None),
            ("ssh", "git", "git.example", None),
        )
        assert url.path.startswith("/team/")
    elif found.startswith("/"):
        assert os.path.normpath(found).startswith("/data/pipes")  # where a backslash and a percent sign are letters
    else:
        assert re.fullmatch(r"owner/[A-Za-z0-9][A-Za-z0-9_.-]*|ours/one", found)


@fuzz(PIPELINES)
def test_where_a_pipeline_comes_from(root: Path, pipeline: str) -> None:
    """What is accepted is below the directory, links followed, or from a source that is on the list."""
    with suppress(Invalid, NotAllowed, ValidationError):
        asked = RunRequest(pipeline=pipeline)
        assert_allowed(Sources(LISTED, root).resolve(asked.pipeline), root)


NAMES = st.one_of(PARTS, st.lists(PARTS, max_size=3).map("".join), PATHS, st.sampled_from(["v1", "a/b", "test,docker"]))
REQUESTS = st.fixed_dictionaries(
    {"pipeline": st.one_of(PIPELINES, st.sampled_from(["owner/name", "main.nf", "@/etc/passwd", "-c"]))},
    optional={
        "revision": NAMES,
        "profile": NAMES,
        "workdir": NAMES,
        "triggered_by": NAMES,
        "parameters": st.dictionaries(st.one_of(PARTS, st.text(max_size=5)), st.one_of(JSON, PARTS), max_size=3),
    },
)
SETTINGS = Settings(
    runner="kubernetes", work_claim="work", controller_image="images.example/nfc:1", pipeline_sources=("*",)
)
OPTIONS = {"-log", "-name", "-ansi-log", "-params-file", "-w", "-with-trace", "-r", "-profile", "-c"}


def assert_only_values(command: list[str], made: RunRecord, pipeline: str, work: str) -> None:
    """Options are ours, each with one value; what the caller said is the value where it belongs."""
    request = made.request
    assert command[1::2][0] == "-log"
    assert command[3:5] == ["run", pipeline]
    given = list(zip(command[5::2], command[6::2], strict=True))
    assert {name for name, _ in given} <= OPTIONS
    assert not [value for value in (pipeline, *(value for _, value in given)) if value.startswith(("-", "@"))]
    told = {name: value for name, value in given if name != "-c"}
    assert told["-name"] == made.run_id
    assert (told.get("-r"), told.get("-profile")) == (request.revision, request.profile)
    place = PurePosixPath(os.path.normpath(told["-w"]))
    assert place.is_relative_to(work)
    assert str(place.relative_to(work)) == (request.workdir or ".")


@fuzz(REQUESTS)
def test_what_nextflow_is_told(root: Path, asked: dict[str, Any]) -> None:
    """Whatever is accepted, wherever pipelines may come from: our options, and for values what the caller has said."""
    with suppress(Invalid, NotAllowed, ValidationError):
        made = record(request=RunRequest.model_validate(asked))
        pipeline = Sources(("*",), root).resolve(made.request.pipeline)
        place = nextflow.Place(pipeline, Path("/p"), [Path("/c")], Path("/l"), Path("/t"), _work("/w", made))
        assert_only_values(nextflow.command(Path("/nextflow"), made, place, nextflow.History()), made, pipeline, "/w")
        job = head.job(made, SETTINGS, pipeline)
        [container] = job["spec"]["template"]["spec"]["containers"]
        command = container["command"]
        assert [part for part in command if re.search(r"(?<!\$)(\$\$)*\$\(", part)] == []  # nothing is put in its place
        assert command[: len(OPENS)] == [*OPENS]  # which takes what is behind it as it is
        vector = [part.replace("$$", "$") for part in command[len(OPENS) :]]
        assert_only_values(vector, made, pipeline, "/workspace/work")
        assert json.loads(nextflow.params_file(made.request)) == made.request.parameters
        assert "$" not in nextflow.params_file(made.request)
        written = job["spec"]["template"]["metadata"]["annotations"]
        assert written["nextflow-controller/params"] == nextflow.params_file(made.request)
        ours = head.job(record(), SETTINGS, "owner/name")
        assert _without_values(job) == _without_values(ours)


def _work(root: str, made: RunRecord) -> Path:
    return Path(root) / (made.request.workdir or "")


def _without_values(job: dict[str, Any]) -> dict[str, Any]:
    """A Job but for the record, the parameters and the command: what no caller has a say in."""
    text = json.loads(json.dumps(job))
    del text["metadata"]["annotations"]["nextflow-controller/record"]
    pod = text["spec"]["template"]
    del pod["metadata"]["annotations"]["nextflow-controller/params"], pod["spec"]["containers"][0]["command"]
    return dict(text)


BODIES = st.one_of(
    members({"pipeline": "owner/name", "revision": "v1", "parameters": {"x": [1, {"y": None}]}, "resume": True}),
    members({"pipeline": "owner/name"}).map(
        lambda body: body[:-1] + ',"parameters":{"x":' + "[" * 197 + "]" * 197 + "}}"
    ),
    JSON.map(text_of),
    st.text(),
)


@fuzz(BODIES)
def test_bodies(text: str) -> None:
    """What is accepted is read back from its record as it was, and its parameters by any parser as they were sent."""
    raw = text.encode("utf-8", "surrogatepass")
    try:
        made = record(request=RunRequest.model_validate(from_json(raw, allow_inf_nan=False)))
    except (ValueError, ValidationError):
        return
    assert RunRecord.model_validate_json(made.model_dump_json()) == made
    sent = json.loads(raw).get("parameters", {})
    assert repr(json.loads(nextflow.params_file(made.request))) == repr(sent)
    head.check_size(made.request, SETTINGS)
    assert RunRecord.model_validate(made.model_dump(mode="json")) == made
