"""Settings: read once from the environment, frozen, each documented here and nowhere else.

`.env.example` is generated from this file and checked against it by a test. A plain pydantic model
rather than pydantic-settings: that import alone costs a cold start a tenth of a second.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from common.errors import ControllerError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_Seconds = Annotated[float, Field(gt=0, le=86_400)]


def _split(given: object) -> object:
    return [part for part in (part.strip() for part in given.split(",")) if part] if isinstance(given, str) else given


def _json(given: object) -> object:
    try:
        return json.loads(given) if isinstance(given, str) else given
    except RecursionError:
        raise ValueError("too many levels deep") from None


def _readable(given: Path) -> Path:
    # Not pydantic's FilePath: it lets an error of the file system through, which names no variable.
    if not os.path.isfile(given) or not os.access(given, os.R_OK):
        raise ValueError("Path does not point to a file that can be read")
    return given


_List = Annotated[tuple[str, ...], BeforeValidator(_split)]
_File = Annotated[Path, AfterValidator(_readable)]

_HOST = r"([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])"
_ALLOWED_HOST = re.compile(rf"\*|(\*\.)?{_HOST}")
_ORIGIN = re.compile(rf"\*|[a-z][a-z0-9+.-]*://{_HOST}(:\d{{1,5}})?")


def _hosts(given: tuple[str, ...]) -> tuple[str, ...]:
    for part in given:
        if not _ALLOWED_HOST.fullmatch(part):
            raise ValueError(f"{part!r} is neither a name without scheme and port nor *.NAME nor *")
    return given


def _origins(given: tuple[str, ...]) -> tuple[str, ...]:
    origins = tuple(part.lower().rstrip("/") for part in given)
    for part in origins:
        if not _ORIGIN.fullmatch(part):
            raise ValueError(f"{part!r} is neither SCHEME://HOST nor SCHEME://HOST:PORT nor *")
    return origins


def _networks(given: tuple[str, ...]) -> tuple[str, ...]:
    for part in given:
        try:
            ip_network(part)
        except ValueError as error:
            raise ValueError(f"{part!r} is no address and no network: {error}") from None
    return given


_LIMIT = re.compile(r"(?:(?P<function>[a-z]+)=)?(?P<limit>[1-9]\d{0,8}/(?:second|minute|hour|day))")


def _limits(given: tuple[str, ...]) -> tuple[str, ...]:
    for part in given:
        if part != "off" and not _LIMIT.fullmatch(part):
            raise ValueError(f"{part!r} is neither COUNT/minute nor FUNCTION=COUNT/minute nor off")
    return given


_REDIS_URL = re.compile(
    r"redis://[^/?#]*(/\d*)?"
    r"|rediss://[^/?#]*(/\d*)?(\?ssl_(cert_reqs=none|check_hostname=false))?"
    r"|unix:///[^?#]+(\?db=\d+)?"
)
_SENTINEL = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})")


def _redis_url(given: str) -> str:
    try:
        fits = _REDIS_URL.fullmatch(given) and urlsplit(given).port != 0
    except ValueError:  # its text may hold a part of the password
        fits = False
    if not fits:
        raise ValueError(
            "must be redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH?db=DB; "
            "what is special in a password is percent-encoded in it, and not in REDIS_PASSWORD"
        )
    return given


def _sentinels(given: tuple[str, ...]) -> tuple[str, ...]:
    for part in given:
        if not (found := _SENTINEL.fullmatch(part)) or not 0 < int(found["port"]) <= 65_535:
            raise ValueError(f"{part!r} is not HOST:PORT")
    return given


class SettingsError(ControllerError):
    """The environment does not make valid settings; the text names each variable."""


class Settings(BaseModel):
    """What an operator may decide. The environment variable is the field's name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # Where things are.
    state_dir: Path = Field(
        Path(".state"), description="Directory of the local runner: runs, their logs, work, and the embedded Redis."
    )
    redis_url: Annotated[str, AfterValidator(_redis_url)] | None = Field(
        None,
        repr=False,
        description="Redis or Valkey, 6.2 or newer: `redis://HOST:PORT/DB`, `rediss://HOST:PORT/DB` (TLS) or "
        "`unix:///PATH?db=DB`. Unset: the embedded one in STATE_DIR.",
    )
    pipelines_dir: Path = Field(Path("."), description="Where a `pipeline` that is a relative path is looked up.")
    nextflow: Path | None = Field(
        None, description="The nextflow executable. Unset: the one on PATH, else one is installed."
    )

    # The server.
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on.")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level that is logged.")
    max_body_bytes: int = Field(
        128 * 1024,
        ge=1024,
        le=1024 * 1024,
        description="Longest body accepted. The record lives in Job annotations (256 KiB).",
    )
    heartbeat_seconds: _Seconds = Field(
        15, description="A silent stream says something after this long: proxies cut idle connections, many at 60 s."
    )
    shutdown_grace_seconds: _Seconds = Field(
        5, description="How long a stopping server waits for its answers and streams to end by themselves."
    )

    # Callers.
    auth: Literal["tokens", "off"] = Field(
        "tokens", description="`off`: whoever reaches the functions may start and cancel runs."
    )
    tokens_file: Path | None = Field(
        None,
        description="Callers, a line each: NAME ROLE SHA256, with the role read or run (`make token` adds one). "
        "Unset: `tokens` in STATE_DIR.",
    )
    allowed_hosts: Annotated[_List, AfterValidator(_hosts)] = Field(
        ("localhost", "127.0.0.1", "[::1]"),
        description="Host names the functions are called by, comma separated; `*.example.org` for all below it, "
        "`*` for any. Others are refused: a page whose name was rebound to this address is one.",
    )
    cors_origins: Annotated[_List, AfterValidator(_origins)] = Field(
        (),
        description="Origins (`https://portal.example.org`) whose pages may call the functions, comma separated; "
        "`*` for any. A page from the same host always may.",
    )
    trusted_proxies: Annotated[_List, AfterValidator(_networks)] = Field(
        (), description="Addresses and networks of proxies whose X-Forwarded-For is believed, comma separated."
    )
    rate_limits: Annotated[_List, AfterValidator(_limits)] = Field(
        ("1200/minute", "run=300/minute", "cancel=300/minute"),
        description="Calls per caller and function, comma separated: COUNT/second, /minute, /hour or /day for "
        "every function, FUNCTION=COUNT/minute for one. `off`: no limit.",
    )
    pipeline_sources: _List = Field(
        ("./", "nf-core/"),
        description="Where pipelines may come from, comma separated: `./` is PIPELINES_DIR; `owner/`, "
        "`https://host/owner/`, `/directory/` and `file:///directory/` are all below it; without the slash "
        "it is that one pipeline; `*` is any.",
    )

    # Redis.
    redis_prefix: str = Field("nfc", pattern="^[a-z0-9-]{1,32}$", description="First part of every key in Redis.")
    redis_timeout_seconds: _Seconds = Field(
        2, description="After this long without an answer Redis counts as away and the cluster is asked instead."
    )
    redis_username: str | None = Field(None, description="ACL user of Redis. Unset: its `default` user.")
    redis_password: SecretStr | None = Field(
        None, repr=False, description="Password of that user; here rather than in REDIS_URL it is never shown."
    )
    redis_ca_file: _File | None = Field(
        None, description="PEM file of the authorities that may sign Redis' certificate. Unset: those of the system."
    )
    redis_cert_file: _File | None = Field(
        None, description="PEM file of the certificate to show to Redis, where it asks for one (mutual TLS)."
    )
    redis_key_file: _File | None = Field(None, description="PEM file of that certificate's private key.")
    redis_sentinels: Annotated[_List, AfterValidator(_sentinels)] = Field(
        (),
        description="Sentinels, HOST:PORT, comma separated. They say where Redis is, and REDIS_URL all the rest "
        "without host and port: `redis:///DB`, or `rediss:///DB` for TLS to Redis and to the Sentinels.",
    )
    redis_sentinel_master: str | None = Field(None, description="The name the Sentinels know Redis by.")
    redis_sentinel_username: str | None = Field(None, description="ACL user of the Sentinels. Unset: `default`.")
    redis_sentinel_password: SecretStr | None = Field(
        None, repr=False, description="Password of that user. Unset: the Sentinels ask for none."
    )
    redis_log_lines: int = Field(
        100_000,
        ge=10,
        le=10_000_000,
        description="Lines of a log that Redis holds, the newest; older ones are read where they are kept.",
    )
    redis_log_bytes: int = Field(
        16 * 1024 * 1024,
        ge=1024,
        le=1024 * 1024 * 1024,
        description="Bytes of a log that Redis holds, 64 of each line besides its text: about what it takes in memory.",
    )

    # Runs.
    start_deadline_seconds: _Seconds = Field(
        900,
        description="A head that has not started for so long (no node, no image, no quota) is given up by the next "
        "POST: its run has failed, and the slot is free.",
    )
    cancel_grace_seconds: _Seconds = Field(
        20, description="From the polite request to end (SIGTERM) to force (SIGKILL); Nextflow cleans up in it."
    )
    cancel_wait_seconds: _Seconds = Field(
        25, description="How long DELETE waits for the run to be gone before it answers 202. Longer than the grace."
    )
    busy_wait_seconds: _Seconds = Field(
        10, description="How long POST waits for a slot that is about to come free before it answers 409."
    )
    nextflow_config: str = Field(
        "", description="Nextflow configuration of this installation, its text: it overrides the pipelines' own."
    )
    history_max_runs: int = Field(1000, ge=1, le=100_000, description="How many runs the history keeps.")
    history_ttl_seconds: int = Field(
        7 * 24 * 3600, ge=60, le=366 * 24 * 3600, description="How long an ended run, its log and its Job are kept."
    )

    # Kubernetes.
    runner: Literal["local", "kubernetes"] = Field("local", description="Where runs happen.")
    kube_context: str | None = Field(
        None, description="A context of KUBECONFIG. Unset: the cluster this runs in, else the current context."
    )
    release: str = Field(
        "nextflow-controller",
        pattern="^[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?$",
        description="Name of the release's Lease.",
    )
    release_namespace: str = Field("default", description="Where the Lease is.")
    run_namespace: str = Field("default", description="Where heads and tasks run.")
    task_resource: Literal["Pod", "Job"] = Field("Pod", description="What a task is made as (`computeResourceType`).")
    controller_image: str | None = Field(
        None, description="Image of the functions: heads get the pipelines of its PIPELINES_DIR. Unset: they get none."
    )
    head_image: str = Field("nextflow/nextflow:24.10.0", description="Image with Nextflow on its PATH.")
    head_service_account: str = Field("default", description="Whom a head is to the API server.")
    task_service_account: str = Field("default", description="Whom tasks are: somebody without rights.")
    max_attempts: int = Field(
        3, ge=1, le=10, description="How often a head is started at most: again when it was taken from its node."
    )
    recorder_secret: str | None = Field(
        None,
        description="A Secret of RUN_NAMESPACE whose keys are REDIS_URL and what goes with it, of a user that may "
        "append to logs and nothing else. Unset: heads get no recorder.",
    )
    archive_url: str | None = Field(
        None, pattern="^https?://", description="Where what recorders have kept is read. Unset: nowhere."
    )
    archive_token: SecretStr | None = Field(None, repr=False, description="The token to read it with.")
    work_claim: str | None = Field(
        None, description="The work volume's claim. Unset: a head's own empty directory, which no task sees."
    )
    work_path: str = Field("/workspace", pattern="^/", description="Where the work volume is mounted.")
    head_pod: Annotated[dict[str, Any], BeforeValidator(_json)] = Field(
        {}, description="Merged into a head's pod spec, as JSON: resources, nodeSelector, tolerations, …"
    )

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """The settings that `environ` makes; an empty variable counts as unset.

        Raises:
            SettingsError: a variable is not valid.
        """
        given: dict[str, Any] = {
            name: environ[name.upper()] for name in cls.model_fields if environ.get(name.upper(), "").strip()
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            lines = [cls._line(mistake) for mistake in error.errors()]
            raise SettingsError("Invalid settings in the environment:\n  " + "\n  ".join(lines)) from None

    @classmethod
    def _line(cls, mistake: "ErrorDetails") -> str:
        reason = mistake["msg"].removeprefix("Value error, ")
        if not mistake["loc"]:
            return reason
        name = str(mistake["loc"][0])
        shown = repr(mistake["input"]) if cls.model_fields[name].repr else "(not shown)"
        return f"{name.upper()}={shown}: {reason}"

    @model_validator(mode="after")
    def _redis_is_one_thing(self) -> Self:
        if mistakes := list(self._redis_mistakes()):
            raise ValueError("\n  ".join(mistakes))
        return self

    def _redis_mistakes(self) -> Iterator[str]:
        url = urlsplit(self.redis_url or "")
        if not self.redis_url and (self.redis_username or self.redis_password or self.redis_sentinels):
            yield "REDIS_USERNAME, REDIS_PASSWORD and REDIS_SENTINELS need a REDIS_URL: the embedded Redis has none."
        if (self.redis_username or self.redis_password) and "@" in url.netloc:
            yield "REDIS_USERNAME and REDIS_PASSWORD are in REDIS_URL as well: which are meant?"
        if url.scheme != "rediss" and (self.redis_ca_file or self.redis_cert_file or self.redis_key_file):
            yield "REDIS_CA_FILE, REDIS_CERT_FILE and REDIS_KEY_FILE are for TLS: REDIS_URL must be a rediss:// one."
        if (self.redis_cert_file is None) != (self.redis_key_file is None):
            yield "REDIS_CERT_FILE and REDIS_KEY_FILE go together: one of them is missing."
        if bool(self.redis_sentinels) != bool(self.redis_sentinel_master):
            yield "REDIS_SENTINELS and REDIS_SENTINEL_MASTER go together: one of them is missing."
        if not self.redis_sentinels and (self.redis_sentinel_username or self.redis_sentinel_password):
            yield "REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD are for REDIS_SENTINELS, and there are none."
        if self.redis_sentinels and (url.scheme == "unix" or url.netloc.rpartition("@")[2]):
            yield "REDIS_SENTINELS say where Redis is: leave host and port out of REDIS_URL (redis:///0)."

    @property
    def token_path(self) -> Path:
        """Where the callers are named."""
        return self.tokens_file or self.state_dir.absolute() / "tokens"

    def rate_limit(self, function: str) -> str | None:
        """How often a caller may call a function (`300/minute`); None: as often as it likes."""
        if "off" in self.rate_limits:
            return None
        limits = {found["function"]: found["limit"] for part in self.rate_limits if (found := _LIMIT.fullmatch(part))}
        return limits.get(function, limits.get(None))

    @property
    def redis_socket(self) -> Path:
        """Where the embedded Redis listens."""
        return self.state_dir.absolute() / "redis" / "redis.sock"


def example() -> str:
    """The text of `.env.example`: every variable with its meaning and its default (`python -m common.settings`)."""
    parts = ["# Settings of the Nextflow controller. Made by `python -m common.settings`; all are optional.\n"]
    for name, field in Settings.model_fields.items():
        meaning = fill(field.description or "", 98, initial_indent="# ", subsequent_indent="# ")
        default = "" if field.default is None else field.default
        default = ",".join(default) if isinstance(default, tuple) else default
        parts.append(f"{meaning}\n#{name.upper()}={default}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(example(), end="")
