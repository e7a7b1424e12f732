"""Where pipelines may come from: what is not on the list is refused, however it is spelled."""

import os
from pathlib import Path

import pytest

from common.errors import Invalid, NotAllowed
from common.models import RunRequest
from common.sources import Sources

LISTED = ("./", "nf-core/", "ours/one", "https://git.example/team/", "https://Git.Example:8443/exact", "/data/pipes/")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory of pipelines, with something beside it that is none of them."""
    (tmp_path / "outside").mkdir()
    inside = tmp_path / "pipelines"
    (inside / "deep" / "er").mkdir(parents=True)
    (inside / "main.nf").touch()
    (inside / "to-deep").symlink_to(inside / "deep")
    (inside / "out").symlink_to(tmp_path / "outside")
    (inside / "round").symlink_to(inside / "round")
    return inside


@pytest.mark.parametrize("name", ["main.nf", "deep", "./deep/er", "deep/../main.nf", "to-deep/er"])
def test_a_path_below_the_directory_is_a_pipeline(root: Path, name: str) -> None:
    """It is run by its real path."""
    for allowed in (("./",), ("*",)):
        assert Sources(allowed, root).resolve(name) == os.path.realpath(root / name)


@pytest.mark.parametrize(
    "name",
    [
        "nf-core/rnaseq",
        "ours/one",
        "https://git.example/team/a",
        "HTTPS://GIT.EXAMPLE/team/a/b.git",
        "https://git.example:8443/exact",
        "/data/pipes/main.nf",
    ],
)
def test_what_is_listed_is_left_to_nextflow(root: Path, name: str) -> None:
    """As it was written."""
    assert Sources(LISTED, root).resolve(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "evil/nf-core",
        "nf-core-evil/x",
        "ours/one-more",
        "ours/onex",
        "https://git.example/teamwork/a",
        "https://git.example/",
        "http://git.example/team/a",
        "https://git.example.evil.example/team/a",
        "https://git.example:8443/exactly",
        "https://git.example/Team/a",
        "ssh://git@git.example/team/a",
        "file:///data/pipes/main.nf",
        "/data/pipes",
        "/data/pipes-of-others/x",
        "/etc/passwd",
    ],
)
def test_what_is_not_listed_is_not_allowed(root: Path, name: str) -> None:
    """The refusal says where it stands and what is allowed."""
    with pytest.raises(NotAllowed) as caught:
        Sources(LISTED, root).resolve(name)
    assert caught.value.pointer == "/pipeline"
    assert "nf-core/, ours/one, https://git.example/team/" in caught.value.reason


@pytest.mark.parametrize(
    "name",
    [
        "https://user:secret@git.example/team/a",
        "https://git.example@evil.example/team/a",
        "https://git.example/team/../../evil",
        "https://git.example/team/./a",
        "https://git.example/team/%2e%2e/evil",
        "https://git.example/team/a?x=1",
        "https://git.example/team/a#x",
        "https://git.example\\@evil.example/team/a",
        "https:///team/a",
        "ssh://-oProxyCommand/team/a",
        "javascript://git.example/team/a",
        "https://\u212aernel.example/team/a",  # the Kelvin sign, whose small letter is k
        "http\u017f://git.example/team/a",  # the long s, whose capital is S
        "https://git.example:\u0661/team/a",
        "/data/pipes/../../etc/passwd",
    ],
)
def test_what_is_not_plain_is_invalid_even_where_all_is_allowed(root: Path, name: str) -> None:
    """Nothing that Git or a file system may read in another way."""
    for allowed in (LISTED, ("*",)):
        with pytest.raises(Invalid) as caught:
            Sources(allowed, root).resolve(name)
        assert caught.value.pointer == "/pipeline"
        assert "secret" not in caught.value.reason


@pytest.mark.parametrize("name", ["..", "../outside", "../missing", "deep/../../outside", "out", "out/x"])
def test_no_name_leads_out_of_the_directory(root: Path, name: str) -> None:
    """Not by dots, and not by a link."""
    with pytest.raises(Invalid) as caught:
        Sources(("./",), root).resolve(name)
    assert caught.value.pointer == "/pipeline"


@pytest.mark.parametrize("name", ["missing.nf", "deep/er/missing", "round", "x" * 900, "git@git.example:team/a"])
def test_what_is_not_there_is_invalid(root: Path, name: str) -> None:
    """A name that could be nothing but a path has to be there."""
    with pytest.raises(Invalid):
        Sources(("./", "nf-core/"), root).resolve(name)


def test_without_the_directory_in_the_list_nothing_in_it_is_run(root: Path) -> None:
    """A name on the list means the remote one, whatever lies there on this machine."""
    (root / "nf-core").mkdir()
    (root / "nf-core" / "rnaseq").mkdir()
    assert Sources(("nf-core/",), root).resolve("nf-core/rnaseq") == "nf-core/rnaseq"
    with pytest.raises(Invalid):
        Sources(("nf-core/",), root).resolve("main.nf")
    with pytest.raises(NotAllowed):
        Sources((), root).resolve("a/b")


@pytest.mark.parametrize("name", ["owner/name", "name", "https://git.example/owner/name", "ssh://git@h/x", "/abs"])
def test_a_star_allows_any(root: Path, name: str) -> None:
    """Whoever may start a run may then run anything."""
    assert Sources(("*",), root).resolve(name) == name
    assert RunRequest(pipeline=name).pipeline == name


@pytest.mark.parametrize("name", ["nf-core/rnaseq", "https://git.example/team/a"])
def test_what_a_run_has_left_under_the_name_of_a_pipeline_is_not_run(root: Path, name: str) -> None:
    """Nextflow would take it for a path; where any pipeline is allowed, so is that one."""
    launch = root.parent / "launch"
    sources = Sources(LISTED, root, launch)
    assert sources.resolve(name) == name
    (launch / name).mkdir(parents=True)
    with pytest.raises(NotAllowed, match="which Nextflow would run instead"):
        sources.resolve(name)
    assert Sources(("*",), root, launch).resolve(name) == name
    assert sources.resolve("/data/pipes/main.nf") == "/data/pipes/main.nf"
    assert sources.resolve("main.nf") == str(root / "main.nf")
