"""The environment: settings that can be used, or a text that names each variable and tells no secret."""

import asyncio
from contextlib import suppress
from typing import Any

from hypothesis import strategies as st

from common.connection import Connection
from common.settings import Settings, SettingsError
from tests.fuzz import fuzz
from tests.fuzz.values import DEEP, JSON, text_of

SECRET = "hush-7"
NAMES = [name.upper() for name in Settings.model_fields]
_SECRETS = {name.upper() for name, field in Settings.model_fields.items() if not field.repr}
WORDS = f"""
0 -1 1e3 nan inf true off * , a,b ./,owner/ / /etc /etc/shadow /dev/null /proc/self/mem local kubernetes Pod DEBUG
a:1,[::1]:2 10/minute run=1/day,off 1.2.3.4/33 ::1/129 {{}} [] null {{"containers":1}} https://a:b@c
redis://u:{SECRET}@h redis://:{SECRET}@[::1 redis://h:0 rediss://h/x redis:///0 unix:///s?db=1 redis://%00@h
redis://h/99999999999999999999 rediss://:{SECRET}@h:1?ssl_cert_reqs=none
""".split()
VALUES = st.one_of(
    st.sampled_from([*WORDS, "", " ", "9" * 30, "/" + "x" * 300, "\u0661/minute"]),
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12),
    JSON.map(text_of),
    DEEP,
)


@fuzz(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4), st.sampled_from(["REDIS_PASSWORD", "ARCHIVE_TOKEN"]))
def test_settings(loop: asyncio.Runner, environ: dict[str, str], secret: str) -> None:
    """Read, and used to make a connection; nothing else is raised, and no secret shown."""
    environ |= {secret: SECRET}
    shown = any(SECRET in value for name, value in environ.items() if name not in _SECRETS)  # it is none where that is

    async def connect(made: Settings) -> None:
        await Connection.open(made).close()

    try:
        made = Settings.read(environ)
    except SettingsError as error:
        text = str(error)
        assert SECRET not in text or shown
        assert any(name in text for name in environ)
        return
    assert SECRET not in repr(made) or shown
    for function in ("run", "status"):
        limit: Any = made.rate_limit(function)
        assert limit is None or limit[0].isdigit()
    if made.redis_url:
        with suppress(SettingsError):
            loop.run(connect(made))
