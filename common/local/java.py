"""The Java that Nextflow runs on: where one may be, which version it is, what tells Nextflow to take it."""

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from common.local import commands
from common.local.commands import CommandError

MAJORS = range(17, 22)  # Nextflow 26.10 asks for 17 at least, 24.10 cannot read the classes of 25
VARIABLES = ("JAVA_CMD", "NXF_JAVA_HOME", "JAVA_HOME")

_SECONDS = 60.0  # a tenth is usual; a machine that is busy needs more


@dataclass(frozen=True, slots=True)
class Java:
    """A Java that can be used, and for people: its version and why it was taken."""

    home: Path
    source: str


def candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(where it is named, command), the preferred first; nothing is looked at yet."""
    path = environ.get("PATH", "")
    if (named := environ.get("JAVA_CMD")) and (command := shutil.which(named, path=path)):
        yield "JAVA_CMD", command
    for name in ("NXF_JAVA_HOME", "JAVA_HOME"):
        if home := environ.get(name):
            yield name, str(executable(Path(home)))
    if command := shutil.which("java", path=path):
        yield "on PATH", command


def usable(environ: Mapping[str, str]) -> Java | None:
    """The first candidate that starts and has a version Nextflow takes."""
    for name, command in candidates(environ):
        # It is asked where it lives, too: the command may be a link or a version manager's shim.
        try:
            output = commands.run([command, "-XshowSettings:properties", "-version"], environ, seconds=_SECONDS)
        except CommandError:
            continue
        home = re.search(r"^\s*java\.home = (.+)$", output, re.MULTILINE)
        version = re.search(r"^\s*java\.version = ((\d+)\S*)", output, re.MULTILINE)
        if home and version and int(version[2]) in MAJORS:
            return Java(Path(home[1].strip()), f"Java {version[1]} ({name})")
    return None


def executable(home: Path) -> Path:
    """The command in a Java home."""
    return home / "bin/java"


def environment(home: Path | None) -> dict[str, str]:
    """What makes any launcher take this Java: the official one prefers NXF_JAVA_HOME, ours JAVA_CMD."""
    if home is None:
        return {}
    return {"JAVA_HOME": str(home), "NXF_JAVA_HOME": str(home), "JAVA_CMD": str(executable(home))}
