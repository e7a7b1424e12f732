"""Settings come from the environment, say what is wrong with it, and are documented in `.env.example`."""

from pathlib import Path

import pytest
from pydantic import ValidationError

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
