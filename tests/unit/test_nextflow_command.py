"""How Nextflow is called: whole argument vectors, environments and files."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from common.models import RunRecord, RunRequest
from common.nextflow import History, Place, command, config, environment, notes, params_file, resumes
from common.progress import TRACE_FIELDS

SESSION = "11111111-2222-3333-4444-555555555555"
RUN_ID = "run-aaaaaaaaaaaaaaaa"
PLACE = Place(
    pipeline="owner/name",
    params=Path("/s/params.json"),
    configs=[Path("/s/nextflow.config")],
    log=Path("/s/nextflow.log"),
    trace=Path("/s/trace.txt"),
    work=Path("/s/work"),
)
# As Nextflow 24.10 writes it; the second run was killed, the third resumed the first.
HISTORY = History.parse(
    f"2026-11-24 01:07:33\t1.2s\trun-bbbbbbbbbbbbbbbb\tOK\tc28a3e7e5d\t{SESSION}\tnextflow run a.nf\n"
    "2026-11-24 01:08:33\t-\trun-c\t-\tc28a3e7e5d\t99999999-2222-3333-4444-555555555555\tnextflow run a.nf\n"
    f"2026-11-24 01:09:33\t1.2s\trun-d\tERR\tc28a3e7e5d\t{SESSION}\tnextflow run a.nf -resume\n"
    "torn line"
)


def a_record(resumed_from: str | None = None, **request: Any) -> RunRecord:
    """A record of a run of `owner/name`."""
    return RunRecord(
        run_id=RUN_ID,
        request=RunRequest(pipeline="owner/name", **request),
        caller="tester",
        fingerprint="f" * 64,
        session_id=SESSION,
        resumed_from=resumed_from,
        created_at=datetime(2030, 1, 1, tzinfo=UTC),
    )


# fmt: off
LEAST = [
    "/bin/nextflow", "-log", "/s/nextflow.log", "run", "owner/name", "-name", RUN_ID, "-ansi-log", "false",
    "-params-file", "/s/params.json", "-w", "/s/work", "-with-trace", "/s/trace.txt",
]
# fmt: on
LAST = ["-c", "/s/nextflow.config"]


def test_the_least_command() -> None:
    """Log, name, parameters, work and trace have their places; our configuration is last."""
    assert command(Path("/bin/nextflow"), a_record(), PLACE, History()) == [*LEAST, *LAST]


def test_everything_that_can_be_asked_for() -> None:
    """Core options have one dash and a value of their own, and parameters are not among them."""
    record = a_record(
        revision="v1.0", profile="docker,test", workdir="x", parameters={"a": 1}, resumed_from="run-bbbbbbbbbbbbbbbb"
    )
    assert command(Path("/bin/nextflow"), record, PLACE, HISTORY) == [
        *LEAST,
        *("-r", "v1.0"),
        *("-profile", "docker,test"),
        *("-resume", SESSION),
        *LAST,
    ]


def test_a_session_is_resumed_only_if_nextflow_knows_it() -> None:
    """It refuses to run at all otherwise; then the run is a fresh one under the session's id, and the log says so."""
    record = a_record(resumed_from="run-bbbbbbbbbbbbbbbb")
    assert resumes(record, HISTORY)
    assert not resumes(record, History())
    assert not resumes(a_record(), HISTORY)
    assert command(Path("/bin/nextflow"), record, PLACE, History()) == [*LEAST, *LAST]
    assert environment({}, record, History()) == {"NXF_UUID": SESSION}
    assert environment({}, record, HISTORY) == {}
    assert notes(record, HISTORY) == notes(a_record(), History()) == []
    (note,) = notes(record, History())
    assert "run-bbbbbbbbbbbbbbbb" in note


def test_a_name_is_given_once() -> None:
    """A deleted run's Idempotency-Key makes the same run id again, and Nextflow takes no name twice."""
    used = History(names=frozenset({RUN_ID, f"{RUN_ID}-2"}))
    arguments = command(Path("/bin/nextflow"), a_record(), PLACE, used)
    assert arguments[arguments.index("-name") + 1] == f"{RUN_ID}-3"


def test_the_history_is_read_where_nextflow_keeps_it(tmp_path: Path) -> None:
    """An absent one is empty; a torn line is left out."""
    assert History.read(tmp_path) == History()
    (tmp_path / ".nextflow").mkdir()
    (tmp_path / ".nextflow" / "history").write_bytes(b"t\t1s\trun-b\tOK\trev\tsession\tcommand \xff\nt\t1s\trun-c")
    assert History.read(tmp_path) == History(names=frozenset({"run-b"}), sessions=frozenset({"session"}))


def test_only_what_nextflow_needs_is_passed_on() -> None:
    """Nothing of ours, nothing unknown, and no session of somebody else's."""
    passed = {
        "PATH": "/bin", "HOME": "/root", "LC_ALL": "C", "TZ": "UTC", "JAVA_HOME": "/java", "NXF_OPTS": "-Xmx1g",
        "https_proxy": "http://proxy", "NO_PROXY": "*", "SSL_CERT_FILE": "/ca", "XDG_CACHE_HOME": "/c",
        "APPTAINER_CACHEDIR": "/a",
    }  # fmt: skip
    kept_back = {
        "REDIS_URL": "redis://:secret@host", "TOKEN": "t", "STATE_DIR": "/s", "NXF_UUID": "other", "PYTHONPATH": "/p",
        "AWS_SECRET_ACCESS_KEY": "k", "MY_PATH": "/x", "PATHS": "/x", "LD_PRELOAD": "/x", "VIRTUAL_ENV": "/v",
    }  # fmt: skip
    assert environment(passed | kept_back, a_record(), History()) == passed | {"NXF_UUID": SESSION}


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(min_size=1, max_size=256), _JSON, max_size=5))
def test_parameters_arrive_as_they_are(parameters: dict[str, JsonValue]) -> None:
    """Typed and literal, and with nothing in the text that Nextflow would put a value of its own in place of."""
    text = params_file(a_record(parameters=parameters).request)
    assert json.loads(text) == parameters
    assert "$" not in text
    assert text.isascii()


def test_a_placeholder_stays_one() -> None:
    """`${projectDir}` in a parameters file is Nextflow's own variable, in whatever string it stands."""
    assert params_file(a_record(parameters={"a": "${projectDir} $(id)"}).request) == (
        '{"a":"\\u0024{projectDir} \\u0024(id)"}'
    )


def test_our_configuration() -> None:
    """The trace is what common.progress reads, whatever the pipeline says about it."""
    assert f"fields = '{','.join(TRACE_FIELDS)}'" in config("")
    for line in ("overwrite = true", "raw = true"):
        assert f"    {line}\n" in config("")
