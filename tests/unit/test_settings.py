"""Settings come from the environment, say what is wrong with it, and are documented in `.env.example`."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from common.connection import Connection
from common.settings import Settings, SettingsError, example

ROOT = Path(__file__).resolve().parents[2]


def test_defaults_need_no_environment() -> None:
    """Nothing has to be set; an empty variable counts as unset."""
    assert Settings.read({}) == Settings.read({"REDIS_URL": "", "PORT": " "}) == Settings()


def test_values_are_read_by_name() -> None:
    """Each variable is its field's name in capitals."""
    settings = Settings.read({"PORT": "9000", "STATE_DIR": "/tmp/x", "REDIS_URL": "redis://h:1/0", "OTHER": "x"})  # noqa: S108
    assert (settings.port, settings.state_dir, settings.redis_url) == (9000, Path("/tmp/x"), "redis://h:1/0")  # noqa: S108


def test_every_mistake_is_named_at_once() -> None:
    """The error names each variable, what it was and what is wrong."""
    with pytest.raises(SettingsError) as caught:
        Settings.read({"PORT": "many", "REDIS_URL": "http://h", "CANCEL_GRACE_SECONDS": "-1"})
    text = str(caught.value)
    assert text.startswith("Invalid settings in the environment:")
    assert [line.split("=")[0].strip() for line in text.splitlines()[1:]] == [
        "REDIS_URL",
        "PORT",
        "CANCEL_GRACE_SECONDS",
    ]


@pytest.mark.parametrize(
    "environ",
    [
        {"REDIS_URL": "redis://:hu/sh@h", "PORT": "x"},
        {"REDIS_URL": "redis://ada:hush@h:99999"},
        {"REDIS_URL": "redis://ada:hush@h:1?db=1"},
        {"REDIS_URL": "redis://ada:hush@h", "REDIS_PASSWORD": "hush"},
        {"REDIS_PASSWORD": "hush"},
        {"REDIS_SENTINEL_PASSWORD": "hush", "PORT": "x"},
    ],
)
def test_no_error_shows_a_password(environ: dict[str, str]) -> None:
    """What is wrong is said without what is secret, however it is wrong."""
    with pytest.raises(SettingsError) as caught:
        Settings.read(environ)
    assert "hu" not in str(caught.value)
    with pytest.raises(ValidationError) as invalid:
        Settings.model_validate({name.lower(): value for name, value in environ.items()})
    assert "hu" not in str(invalid.value)


def test_settings_do_not_show_a_password() -> None:
    """Settings may be logged."""
    settings = (
        Settings.read({"REDIS_URL": "redis://ada:hush@h"}),
        Settings.read({"REDIS_URL": "redis://h", "REDIS_PASSWORD": "hush", "REDIS_USERNAME": "ada"}),
    )
    assert "hush" not in f"{settings} {settings!r}"
    assert settings[1].redis_password is not None
    assert settings[1].redis_password.get_secret_value() == "hush"


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h/",
        "redis://ada:p%2Fw@h:1/15",
        "redis://[::1]:6379/0",
        "rediss://h?ssl_cert_reqs=none",
        "rediss://h:1/0?ssl_check_hostname=false",
        "unix:///a b/r.sock?db=3",
    ],
)
def test_ways_to_redis(url: str) -> None:
    """Each of these is taken, and makes a client."""
    assert Settings.read({"REDIS_URL": url}).redis_url == url
    Connection.open(Settings(redis_url=url))


@pytest.mark.parametrize(
    ("environ", "mistake"),
    [
        ({"REDIS_URL": "redis://h/x"}, "REDIS_URL=(not shown): must be redis://HOST:PORT/DB, "),
        ({"REDIS_URL": "redis://h:0"}, "REDIS_URL=(not shown): must be "),
        ({"REDIS_URL": "redis://h?ssl_cert_reqs=none"}, "REDIS_URL=(not shown): must be "),
        ({"REDIS_URL": "rediss://h?socket_timeout=90"}, "REDIS_URL=(not shown): must be "),
        ({"REDIS_SENTINELS": "a:1, b"}, "REDIS_SENTINELS='a:1, b': 'b' is not HOST:PORT"),
        ({"REDIS_SENTINELS": "a:65536"}, "REDIS_SENTINELS='a:65536': 'a:65536' is not HOST:PORT"),
        (
            {"REDIS_CA_FILE": "/" + "x" * 300},
            f"REDIS_CA_FILE='/{'x' * 300}': Path does not point to a file that can be",
        ),
        ({"HEAD_POD": "[" * 50_000}, f"HEAD_POD='{'[' * 50_000}': too many levels deep"),
        ({"REDIS_CA_FILE": "/none"}, "REDIS_CA_FILE='/none': Path does not point to a file that can be read"),
        (
            {"REDIS_USERNAME": "ada"},
            "REDIS_USERNAME, REDIS_PASSWORD and REDIS_SENTINELS need a REDIS_URL: the embedded Redis has none.",
        ),
        (
            {"REDIS_URL": "redis://u:p@h", "REDIS_USERNAME": "ada"},
            "REDIS_USERNAME and REDIS_PASSWORD are in REDIS_URL as well: which are meant?",
        ),
        (
            {"REDIS_URL": "redis://h", "REDIS_CA_FILE": __file__},
            "REDIS_CA_FILE, REDIS_CERT_FILE and REDIS_KEY_FILE are for TLS: REDIS_URL must be a rediss:// one.",
        ),
        (
            {"REDIS_URL": "rediss://h", "REDIS_CERT_FILE": __file__},
            "REDIS_CERT_FILE and REDIS_KEY_FILE go together: one of them is missing.",
        ),
        (
            {"REDIS_URL": "redis:///0", "REDIS_SENTINELS": "a:1,[::1]:2"},
            "REDIS_SENTINELS and REDIS_SENTINEL_MASTER go together: one of them is missing.",
        ),
        (
            {"REDIS_URL": "redis://h", "REDIS_SENTINEL_USERNAME": "ada"},
            "REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD are for REDIS_SENTINELS, and there are none.",
        ),
        (
            {"REDIS_URL": "redis://h/0", "REDIS_SENTINELS": "a:1", "REDIS_SENTINEL_MASTER": "m"},
            "REDIS_SENTINELS say where Redis is: leave host and port out of REDIS_URL (redis:///0).",
        ),
    ],
)
def test_nonsense_about_redis(environ: dict[str, str], mistake: str) -> None:
    """What contradicts itself, or would be passed over, is refused in a sentence."""
    with pytest.raises(SettingsError) as caught:
        Settings.read(environ)
    assert str(caught.value).startswith(f"Invalid settings in the environment:\n  {mistake}")
    assert len(str(caught.value).splitlines()) == 2


def test_settings_are_frozen() -> None:
    """Nobody changes a setting after it was read."""
    with pytest.raises(ValidationError):
        setattr(Settings(), "port", 1)  # noqa: B010  # what a type checker refuses too


def test_env_example_is_up_to_date() -> None:
    """`.env.example` says what the fields say; `python -m common.settings > .env.example` renews it."""
    assert (ROOT / ".env.example").read_text("utf-8") == example()


def test_every_setting_is_documented() -> None:
    """A description is what makes a field a setting."""
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
