"""Who may come in: the name the server is called by, the page a browser calls from, the caller's token.

Checks that need no token come first, and none of them does any work for whoever is refused.
"""

import re
from ipaddress import IPv6Address, ip_address, ip_network

from starlette.requests import HTTPConnection

from common.callers import ANYBODY, Caller, Callers
from common.connection import Connection
from common.settings import Settings
from common.tickets import Tickets
from common.web.call import Endpoint
from common.web.problem import Refused, problem

SAFE = frozenset({"GET", "HEAD"})
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\s:/?#@\[\]]+)(:[0-9]*)?")


class Gate:
    """The gate of one process."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._hosts = tuple(host.lower() for host in settings.allowed_hosts)
        self._origins = frozenset(settings.cors_origins)
        self._callers = Callers(settings.token_path) if settings.auth == "tokens" else None
        self._tickets = Tickets(connection, settings.redis_prefix)

    def place(self, connection: HTTPConnection) -> None:
        """Check the host's name, and the origin of what changes something or is not held back by CORS.

        Raises:
            Refused: either is foreign.
        """
        hosts = connection.headers.getlist("host")
        if len(hosts) != 1:  # RFC 9112, 3.2; what stands before this server may have believed another of them
            detail = f"A request names the server once, in Host; this one has {len(hosts) or 'no'} such headers."
            raise Refused(problem(400, "host", "Not one Host", detail))
        host = hosts[0].lower()
        found = _HOST.fullmatch(host)
        if found is None or not any(_named(found["name"], pattern) for pattern in self._hosts):
            detail = f"This is not the server of {host[:200]!r}. Names it may be called by are in its ALLOWED_HOSTS."
            raise Refused(problem(421, "foreign-host", "Not the server of this name", detail))
        if connection.scope.get("method") in SAFE:
            return
        for origin in connection.headers.getlist("origin"):
            self._from(origin.lower(), host)

    def _from(self, origin: str, host: str) -> None:
        if origin.partition("://")[2] != host and not {"*", origin} & self._origins:
            detail = f"A page from {origin[:200]} may not do this. Origins that may are in the server's CORS_ORIGINS."
            raise Refused(problem(403, "foreign-origin", "A page from elsewhere", detail))

    async def caller(self, connection: HTTPConnection, endpoint: Endpoint) -> Caller:
        """Who calls.

        Raises:
            Refused: nobody who is known.
            Unavailable: it cannot be told.
        """
        if self._callers is None:
            return ANYBODY
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and (found := self._callers.of_token(token.strip())):
            return found
        if endpoint.tickets and (ticket := connection.query_params.get("ticket")):
            if found := await self._tickets.redeem(ticket):
                return found
            raise _unknown("This ticket was used, is too old or never was. Ask for a new one.", "invalid_token")
        if scheme:
            raise _unknown("This token is nobody's, or is no `Bearer` token.", "invalid_token")
        raise _unknown("Send a token: `Authorization: Bearer TOKEN`. Whoever runs this server hands them out.")

    def role(self, caller: Caller, endpoint: Endpoint) -> None:
        """Check that the caller may do this.

        Raises:
            Refused: it may not.
        """
        if endpoint.role is not None and not caller.may(endpoint.role):
            detail = f"{caller.name} may only read; {endpoint.method} {endpoint.path} takes a token of role `run`."
            raise Refused(problem(403, "role", "Not with this token", detail))


def address(connection: HTTPConnection) -> str:
    """Where a caller without a name calls from, as no caller can be named.

    Of IPv6 it is the network, which is what one machine is given. What is no address (a socket has
    none, and a trusted proxy may pass on anything) is all one place: nobody gets more by making names up.
    """
    try:
        found = ip_address(connection.client.host if connection.client else "")
    except ValueError:
        return "ip:unknown"
    if isinstance(found, IPv6Address):
        return f"ip:{found.ipv4_mapped or ip_network((int(found), 64), strict=False)}"
    return f"ip:{found}"


def _named(name: str, pattern: str) -> bool:
    return pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:]))


def _unknown(detail: str, error: str | None = None) -> Refused:
    # RFC 6750, 3: who sent no token at all is told no error.
    challenge = 'Bearer realm="nextflow-controller"' + (f', error="{error}"' if error else "")
    return Refused(problem(401, "token", "Who are you?", detail, headers={"www-authenticate": challenge}))
