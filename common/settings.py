"""Settings: read once from the environment, frozen, each documented here and nowhere else.

`.env.example` is generated from this file and checked against it by a test. A plain pydantic model
rather than pydantic-settings: that import alone costs a cold start a tenth of a second.
"""

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import ControllerError

_Seconds = Annotated[float, Field(gt=0, le=86_400)]


class SettingsError(ControllerError):
    """The environment does not make valid settings; the text names each variable."""


class Settings(BaseModel):
    """What an operator may decide. The environment variable is the field's name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Where things are.
    state_dir: Path = Field(
        Path(".state"), description="Directory of the local runner: runs, their logs, work, and the embedded Redis."
    )
    redis_url: str | None = Field(
        None,
        description="Redis (`redis://`, `rediss://`, `unix://`). Unset: the embedded one in STATE_DIR.",
        pattern=r"^(rediss?|unix)://",
    )
    pipelines_dir: Path = Field(Path("."), description="Where a `pipeline` that is a relative path is looked up.")
    nextflow: Path | None = Field(
        None, description="The nextflow executable. Unset: the one on PATH, else one is installed."
    )

    # The server.
    host: str = Field(
        "127.0.0.1", description="Address to listen on. Callers are not authenticated yet: keep it local."
    )
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

    # Redis.
    redis_prefix: str = Field("nfc", pattern="^[a-z0-9-]{1,32}$", description="First part of every key in Redis.")
    redis_timeout_seconds: _Seconds = Field(
        2, description="After this long without an answer Redis counts as away and the cluster is asked instead."
    )

    # Runs.
    cancel_grace_seconds: _Seconds = Field(
        20, description="From the polite request to end (SIGTERM) to force (SIGKILL); Nextflow cleans up in it."
    )
    cancel_wait_seconds: _Seconds = Field(
        25, description="How long DELETE waits for the run to be gone before it answers 202. Longer than the grace."
    )
    busy_wait_seconds: _Seconds = Field(
        10, description="How long POST waits for a slot that is about to come free before it answers 409."
    )
    history_max_runs: int = Field(1000, ge=1, le=100_000, description="How many runs the history keeps.")
    history_ttl_seconds: int = Field(
        7 * 24 * 3600, ge=60, le=366 * 24 * 3600, description="How long an ended run, its log and its Job are kept."
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
            lines = [f"{str(e['loc'][0]).upper()}={e['input']!r}: {e['msg']}" for e in error.errors()]
            raise SettingsError("Invalid settings in the environment:\n  " + "\n  ".join(lines)) from None

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
        parts.append(f"{meaning}\n#{name.upper()}={default}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(example(), end="")
