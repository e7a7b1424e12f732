"""Who may call: named bearer tokens, of which only hashes are kept.

The token file has one caller a line, `NAME ROLE SHA256`; `#` begins a comment. It is read again
when it changes (a Secret that Kubernetes mounts is swapped in place), so a token that is taken out
stops working at once. A token is 256 random bits: nothing about it can be guessed, so a plain hash
is as good as a slow one and costs a request microseconds.

    python -m common.callers NAME ROLE       adds a caller to the file of this environment
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from common.errors import ControllerError, Unavailable
from common.settings import Settings

log = logging.getLogger(__name__)

Role = Literal["read", "run"]

_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._@-]{0,63})[ \t]+(read|run)[ \t]+([0-9a-f]{64})")
_PREFIX = "nfc_"  # lets secret scanners find one that got into a repository


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who calls, and what for: `run` starts and cancels runs, and may read like `read`."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether the caller has this role."""
        return role in ("read", self.role)


ANYBODY = Caller("anonymous", "run")  # who calls where authentication is off


class Callers:
    """The callers that a token file names."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._known: list[tuple[bytes, Caller]] = []

    def of_token(self, token: str) -> Caller | None:
        """Whose token this is; None if nobody's.

        Raises:
            Unavailable: the token file cannot be used, so nobody can be told apart from anybody.
        """
        self._refresh()
        digest = _digest(token).encode()
        found = None
        for known, caller in self._known:  # all of them, whichever fits: the time tells nothing
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def _refresh(self) -> None:
        try:
            stat = os.stat(self._path)
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                self._known, self._seen = _parse(self._path.read_text("utf-8")), seen
        except (OSError, ValueError) as error:
            # Whoever calls is not told about files and lines.
            log.error("the token file cannot be used", extra={"path": str(self._path), "cause": str(error)})
            raise Unavailable("tokens", "Callers cannot be told apart: the server's log says why.") from error


def add(path: Path, name: str, role: Role) -> str:
    """Add a caller to a token file, made if it is not there; the token, which is kept nowhere.

    Raises:
        ControllerError: the name cannot be used.
    """
    token = _PREFIX + secrets.token_urlsafe(32)
    line = f"{name} {role} {_digest(token)}"
    if not _LINE.fullmatch(line):
        raise ControllerError(f"{name!r} is no name for a caller: use up to 64 letters, digits and . _ @ -")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        ended = path.read_bytes()[-1:] in (b"", b"\n")  # a line that was written by hand may not be
        file.write(("" if ended else "\n") + line + "\n")
    return token


def _parse(text: str) -> list[tuple[bytes, Caller]]:
    known = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        fields = _LINE.fullmatch(content)
        if fields is None:
            raise ValueError(f"line {number} is not NAME ROLE SHA256 with a ROLE of {' or '.join(get_args(Role))}")
        name, role, digest = fields.groups()
        known.append((digest.encode(), Caller(name, "run" if role == "run" else "read")))
    return known


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def main(arguments: list[str]) -> int:
    """Add a caller and print its token, once."""
    match arguments:
        case [name, "read" | "run" as role]:
            pass
        case _:
            print("usage: python -m common.callers NAME read|run", file=sys.stderr)
            return 2
    try:
        path = Settings.read(os.environ).token_path
        token = add(path, name, "run" if role == "run" else "read")
    except (ControllerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"added to {path}; the token is shown this once:", file=sys.stderr)
    print(token)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
