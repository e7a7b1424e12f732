"""How Nextflow is called: its argument vector, environment, parameter file and our configuration.

Core options (one dash) and pipeline parameters never mix: parameters travel typed, in a file. Our
configuration comes last, so a pipeline cannot override it. All of it follows from the run's record
and from Nextflow's history, which decides two things: a run can be resumed only if the history has
its session (it may have been ended before it got that far), and a name can be given once.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.models import RunRecord, RunRequest
from common.progress import TRACE_FIELDS

_PASSED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TERM|LD_LIBRARY_PATH|XDG_\w+"
    r"|NXF_\w+|JAVA_HOME|JAVA_CMD|JAVA_TOOL_OPTIONS"
    r"|(HTTPS?|FTP|NO|https?|ftp|no|ALL|all)_(PROXY|proxy)|SSL_CERT_(FILE|DIR)|CURL_CA_BUNDLE|REQUESTS_CA_BUNDLE"
    r"|DOCKER_HOST|(CONDA|MAMBA|SINGULARITY|APPTAINER)_\w+"
)
_SESSION = "NXF_UUID"  # makes a fresh run's session the one of its record
_IGNORE = "NXF_IGNORE_RESUME_HISTORY"  # sessions and names are taken as they are given


@dataclass(frozen=True, slots=True)
class Place:
    """What the command line of one run points at."""

    pipeline: str
    params: Path
    configs: Sequence[Path]  # the last one counts
    log: Path
    trace: Path
    work: Path


@dataclass(frozen=True, slots=True)
class History:
    """What Nextflow remembers of the runs of its launch directory (`.nextflow/history`)."""

    names: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()

    @classmethod
    def read(cls, launch_directory: Path) -> "History":
        """The history of this launch directory; empty where there is none to be read."""
        try:
            return cls.parse((launch_directory / ".nextflow" / "history").read_text("utf-8", "replace"))
        except OSError:
            return cls()

    @classmethod
    def parse(cls, text: str) -> "History":
        """The history that the file says: time, duration, name, status, revision, session, command."""
        rows = [row for row in (line.split("\t") for line in text.splitlines()) if len(row) >= 6]
        return cls(frozenset(row[2] for row in rows), frozenset(row[5] for row in rows))


def command(nextflow: Path, record: RunRecord, place: Place, history: History | None) -> list[str]:
    """The argument vector that runs what the record asks for.

    Args:
        history: None where it is not to be seen: `environment` has Nextflow ignore it, and `resume` is what resumes.
    """
    request = record.request
    arguments = [str(nextflow), "-log", str(place.log), "run", place.pipeline]
    arguments += ["-name", _name(record, history), "-ansi-log", "false"]
    arguments += ["-params-file", str(place.params), "-w", str(place.work), "-with-trace", str(place.trace)]
    if request.revision is not None:
        arguments += ["-r", request.revision]
    if request.profile is not None:
        arguments += ["-profile", request.profile]
    if resumes(record, history):
        arguments += ["-resume", record.session_id]
    return [*arguments, *(part for config in place.configs for part in ("-c", str(config)))]


def resumes(record: RunRecord, history: History | None) -> bool:
    """Whether the run goes on with an earlier session; Nextflow refuses to where it does not know it."""
    return record.resumed_from is not None and history is not None and record.session_id in history.sessions


def notes(record: RunRecord, history: History) -> list[str]:
    """What the log has to say before Nextflow does."""
    if record.resumed_from is None or resumes(record, history):
        return []
    return [f"controller: {record.resumed_from} did not get as far as its first task: nothing to resume, all tasks run"]


def environment(environ: Mapping[str, str], record: RunRecord, history: History | None) -> dict[str, str]:
    """What Nextflow and its tasks see of this process' environment: an allow-list, no secrets of ours."""
    passed = {name: value for name, value in environ.items() if _PASSED.fullmatch(name)}
    passed.pop(_SESSION, None)
    if history is None:
        passed[_IGNORE] = "true"
    return passed if resumes(record, history) else passed | {_SESSION: record.session_id}


def resume(session_id: str) -> str:
    """The configuration with which a run goes on where this session has stopped."""
    return f"resume = '{session_id}'\n"


def params_file(request: RunRequest) -> str:
    """The run's parameters as JSON, as short as can be.

    Nextflow puts its own values in place of `${name}` in this file's text; spelled as escapes the
    dollars arrive as what they are.
    """
    return json.dumps(request.parameters, separators=(",", ":")).replace("$", "\\u0024")


def config(installation: str) -> str:
    """The configuration that comes last: the installation's, which overrides the pipeline's, and ours over both."""
    return f"""\
{installation}
// Written by the controller. common.progress reads the trace.
trace {{
    overwrite = true
    raw = true
    sep = '\\t'
    fields = '{",".join(TRACE_FIELDS)}'
}}
"""


def _name(record: RunRecord, history: History | None) -> str:
    """Nextflow's name for the run: its id, unless an earlier run with the same Idempotency-Key had it."""
    names = itertools.chain([record.run_id], (f"{record.run_id}-{number}" for number in itertools.count(2)))
    return next(name for name in names if history is None or name not in history.names)
