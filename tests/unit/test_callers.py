"""Callers: who a token belongs to, as the token file says at this moment."""

import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.callers import ANYBODY, Caller, Callers, add
from common.errors import ControllerError, Unavailable
from tests.unit.asking import application, asking, kind, settings, told

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a token file goes."""
    return tmp_path / "deep" / "tokens"


def test_a_token_is_its_callers(file: Path) -> None:
    """Each is the name and role it was made for; what is nearly one is nobody's."""
    ada, bob = add(file, "ada", "read"), add(file, "bob@example.org", "run")
    callers = Callers(file)
    assert callers.of_token(ada) == Caller("ada", "read")
    assert callers.of_token(bob) == Caller("bob@example.org", "run")
    for wrong in ("", ada[:-1], ada + " ", ada.upper(), ada + bob, hashlib.sha256(ada.encode()).hexdigest(), "\udcff"):
        assert callers.of_token(wrong) is None


def test_roles() -> None:
    """`run` may read, `read` may not run; with authentication off everybody may do both."""
    assert [caller.may("read") for caller in (Caller("a", "read"), Caller("b", "run"), ANYBODY)] == [True, True, True]
    assert [caller.may("run") for caller in (Caller("a", "read"), Caller("b", "run"), ANYBODY)] == [False, True, True]


def test_tokens_are_long_recognisable_and_never_the_same(file: Path) -> None:
    """256 random bits behind a prefix that scanners for secrets can look for."""
    made = {add(file, "ada", "read") for _ in range(50)}
    assert len(made) == 50
    assert {(token[:4], len(token)) for token in made} == {("nfc_", 47)}


def test_the_file_holds_no_token_and_is_its_owners_alone(file: Path) -> None:
    """Hashes only, and nobody else may read even those."""
    previous = os.umask(0)
    try:
        token = add(file, "ada", "read")
    finally:
        os.umask(previous)
    assert file.read_text() == f"ada read {hashlib.sha256(token.encode()).hexdigest()}\n"
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_token_is_exchanged_without_a_restart(file: Path) -> None:
    """Two may be of use at a time; the one whose line is taken out is of none from the next call on."""
    callers = Callers(file.parent / "tokens")
    old = add(file, "ada", "run")
    assert callers.of_token(old) == Caller("ada", "run")
    new = add(file, "ada", "run")
    assert callers.of_token(old) == callers.of_token(new) == Caller("ada", "run")
    file.write_text(file.read_text().splitlines(keepends=True)[1])
    assert callers.of_token(old) is None
    assert callers.of_token(new) == Caller("ada", "run")


def test_a_file_that_is_swapped_in_place_is_read_again(file: Path) -> None:
    """As Kubernetes swaps a Secret: by a link to another directory, of the same length and time."""
    told = []
    for name in ("one", "two"):
        told.append(add(file.parent / name / "tokens", name, "read"))
        os.utime(file.parent / name / "tokens", ns=(10**18, 10**18))
    link = file.parent / "data"
    link.symlink_to("one")
    callers = Callers(link / "tokens")
    assert callers.of_token(told[0]) == Caller("one", "read")
    (file.parent / "next").symlink_to("two")
    (file.parent / "next").rename(link)
    assert [callers.of_token(token) for token in told] == [None, Caller("two", "read")]


def test_an_unchanged_file_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call costs one look at the file's time."""
    token = add(file, "ada", "read")
    callers = Callers(file)
    assert callers.of_token(token)
    monkeypatch.setattr(Path, "read_text", lambda *_: pytest.fail("read again"))
    assert callers.of_token(token)


def test_comments_and_empty_lines_are_nobody(file: Path) -> None:
    """Everything from a `#` to the line's end is for people."""
    token = add(file, "ada", "read")
    line = file.read_text().strip()
    file.write_text(f"# who may call\n\n  {line}   # until 2031\n\t\n#{line.replace('ada', 'eve')}\n")
    assert Callers(file).of_token(token) == Caller("ada", "read")


def test_a_line_by_hand_without_an_end_keeps_its_own(file: Path) -> None:
    """The next caller that is added gets a line of its own all the same."""
    first = add(file, "ada", "read")
    file.write_text(file.read_text().strip())
    second = add(file, "bob", "run")
    assert Callers(file).of_token(first) == Caller("ada", "read")
    assert Callers(file).of_token(second) == Caller("bob", "run")


HASH = "0" * 64


@pytest.mark.parametrize(
    "content",
    [
        b"ada read\n",
        f"ada write {HASH}\n".encode(),
        f"ada read {HASH[1:]}\n".encode(),
        f"ada read {HASH.replace('0', 'A')}\n".encode(),
        f"ada read {HASH} more\n".encode(),
        f"-ada read {HASH}\n".encode(),
        f"{'a' * 65} read {HASH}\n".encode(),
        f"ada\x00 read {HASH}\n".encode(),
        b"nfc_a-token-in-the-clear\n",
        b"\xff\xfe\n",
    ],
)
def test_a_file_that_cannot_be_used_lets_nobody_in_and_tells_nothing(
    file: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """503, not 401: the caller is not to blame; the reason is in the log, with the line and without the token."""
    token = add(file, "ada", "run")
    callers = Callers(file)
    assert callers.of_token(token)
    good = file.read_bytes()
    file.write_bytes(good + content)
    with pytest.raises(Unavailable, match=r"^Callers cannot be told apart: the server's log says why\.$"):
        callers.of_token(token)
    (record,) = caplog.records
    assert (record.levelno, vars(record)["path"]) == (logging.ERROR, str(file))
    assert "line 2" in vars(record)["cause"] or "utf-8" in vars(record)["cause"]
    assert "in-the-clear" not in str(vars(record))
    file.write_bytes(good)
    assert callers.of_token(token) == Caller("ada", "run")


async def test_without_the_file_the_answer_is_503(file: Path) -> None:
    """Whoever calls is told neither where the file is nor that it is missing; as soon as it is there all is well."""
    app = application(settings(auth="tokens", tokens_file=file))
    async with asking(app) as client:
        away = await client.get("/give", headers={"authorization": "Bearer x"})
        document = told(away)
        assert (document["status"], document["dependency"], away.headers["retry-after"]) == (503, "tokens", "1")
        assert document["detail"] == "Callers cannot be told apart: the server's log says why."
        token = add(file, "ada", "read")
        come = await client.get("/give", headers={"authorization": f"bearer  {token} "})
        assert come.json() == {"caller": "ada", "role": "read", "limit": 1}


async def test_who_are_you(file: Path) -> None:
    """401 says how to say it; `error` in the challenge is for those who tried (RFC 6750, 3)."""
    add(file, "ada", "read")
    challenge = 'Bearer realm="nextflow-controller"'
    async with asking(application(settings(auth="tokens", tokens_file=file))) as client:
        silent = await client.get("/give")
        assert (kind(silent), silent.headers["www-authenticate"]) == ((401, "token"), challenge)
        for shown in ("Bearer", "Bearer nfc_wrong", "Basic YTpi", "nonsense", "Bearer \xff"):
            wrong = await client.get("/give", headers={b"authorization": shown.encode("latin-1")})
            assert kind(wrong) == (401, "token"), shown
            assert wrong.headers["www-authenticate"] == challenge + ', error="invalid_token"'
            assert "nfc_wrong" not in wrong.text


async def test_not_with_this_token(file: Path) -> None:
    """403 names the caller and the role that is needed; reading is for both."""
    read, run = ({"authorization": f"Bearer {add(file, role, role)}"} for role in ("read", "run"))
    async with asking(application(settings(auth="tokens", tokens_file=file))) as client:
        refused = await client.post("/take", json={"pipeline": "p"}, headers=read)
        assert kind(refused) == (403, "role")
        assert told(refused)["detail"] == "read may only read; POST /take takes a token of role `run`."
        assert (await client.post("/take", json={"pipeline": "p"}, headers=run)).status_code == 200
        assert [(await client.get("/give", headers=shown)).json()["role"] for shown in (read, run)] == ["read", "run"]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", "a\n", "#a", "ä", "a" * 65])
def test_names_that_cannot_be_used(file: Path, name: str) -> None:
    """Nothing is written for them."""
    with pytest.raises(ControllerError, match="is no name for a caller"):
        add(file, name, "read")
    assert not file.exists()


def _command(state_dir: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "common.callers", *arguments]
    environ = {**os.environ, "STATE_DIR": str(state_dir), "TOKENS_FILE": ""}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command_adds_a_caller(tmp_path: Path) -> None:
    """The token alone is on stdout, for a shell to keep; where it went is said beside it."""
    done = _command(tmp_path, "ada", "run")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert done.stderr == f"added to {tmp_path / 'tokens'}; the token is shown this once:\n"
    assert Callers(tmp_path / "tokens").of_token(done.stdout.strip()) == Caller("ada", "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "usage: python -m common.callers NAME read|run\n"),
        (("ada",), 2, "usage: python -m common.callers NAME read|run\n"),
        (("ada", "admin"), 2, "usage: python -m common.callers NAME read|run\n"),
        (("a b", "run"), 1, "error: 'a b' is no name for a caller: use up to 64 letters, digits and . _ @ -\n"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    """In a line, with an exit code; nothing is written."""
    done = _command(tmp_path, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)
    assert not (tmp_path / "tokens").exists()
