"""The one way to the API server: dicts in, dicts out, and what each failure means.

The official client's transport alone (`ApiClient.param_serialize` and `call_api`): its typed models
refuse fields they do not know and cost a second of import, and its packages' `__init__` import the
synchronous client besides, a third of what is left. Nothing is tried again here: a write whose outcome
is unknown is read and decided on again by whoever wrote it.
"""

import asyncio
import importlib.util
import json
import os
import sys
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from common.errors import Conflict, ControllerError, OutcomeUnknown, Unavailable

if TYPE_CHECKING:
    import aiohttp
    from kubernetes.aio.client.api_client import ApiClient

Object = dict[str, Any]

_CALL_SECONDS = 10
_PAGE = "500"
_TICK_SECONDS = 0.5
_AHEAD_BYTES = 32 * 2**20  # three times a log file, as kubelets begin them anew by default
_SILENT_SECONDS = 120  # a stream that is silent for so long is cut and opened again: its other end may be gone
_CONFLICTS = {404, 409, 410}  # of a write to what was read before: it is gone, or another
_MERGE = "application/merge-patch+json"


class Api:
    """The API server of one cluster."""

    def __init__(self, context: str | None = None) -> None:
        self._context = context
        self._client: ApiClient | None = None
        self._opening = asyncio.Lock()

    async def get(self, path: str, **query: str) -> Object | None:
        """The object at a path, or the list; None if there is none.

        Raises:
            Unavailable: the API server does not answer, or refuses.
        """
        try:
            return await self._call("GET", path, query=query)
        except _Refused as refused:
            if refused.status == 404:
                return None
            raise Unavailable("runner", str(refused)) from refused
        except OutcomeUnknown as unknown:  # a read changes nothing
            raise Unavailable("runner", str(unknown)) from unknown

    async def create(self, path: str, body: Object) -> Object:
        """Create an object in a collection.

        Raises:
            Conflict: there is one of this name.
            Unavailable: it was refused.
            OutcomeUnknown: it may have been created, or still be (as every write here).
        """
        return await self._write("POST", path, body)

    async def replace(self, path: str, body: Object) -> Object:
        """Replace an object; `body` names the version that was read.

        Raises:
            Conflict: it is another by now, or gone.
        """
        return await self._write("PUT", path, body)

    async def merge(self, path: str, patch: Object) -> Object:
        """Merge a patch (RFC 7386) into an object; the patch names the version that was read.

        Raises:
            Conflict: it is another by now, or gone.
        """
        return await self._write("PATCH", path, patch)

    async def delete(self, path: str, options: Object) -> None:
        """Delete an object, or a collection; one that is gone is success.

        Raises:
            Conflict: it is another than the options' preconditions say.
        """
        try:
            await self._call("DELETE", path, options)
        except _Refused as refused:
            if refused.status != 404:
                raise _meaning(refused) from refused

    async def items(self, path: str, selector: str) -> list[Object]:
        """All objects of a collection that have these labels.

        Raises:
            Unavailable: the API server does not answer, or does not show them.
        """
        found: list[Object] = []
        query = {"labelSelector": selector, "limit": _PAGE}
        while True:
            page = await self.get(path, **query)
            if page is None:
                return found
            found += page["items"]
            if not (following := page["metadata"].get("continue")):
                return found
            query["continue"] = following

    async def stream(self, path: str, **query: str) -> AsyncGenerator[bytes, None]:
        """What the API server sends at a path, for as long as it does; an empty chunk each half second of silence.

        Raises:
            Unavailable: there is nothing (yet), or it was cut.
        """
        import aiohttp

        limit = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=_SILENT_SECONDS)
        response: aiohttp.ClientResponse | None = None
        ahead: _Ahead | None = None
        try:
            response = await self._send("GET", path, None, query, limit)
            if response.status != 200:
                raise Unavailable("runner", _reason(response.status, await response.read()))
            ahead = _Ahead(response.content)
            while (chunk := await ahead.next()) is not None:
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable("runner", f"The log was cut: {error}") from error
        finally:
            if ahead is not None:
                ahead.close()
            if response is not None:
                response.close()

    async def close(self) -> None:
        """Close connections."""
        if self._client is not None:
            await self._client.close()  # type: ignore[no-untyped-call] # the client's types are partial

    async def _write(self, method: str, path: str, body: Object) -> Object:
        try:
            return await self._call(method, path, body)
        except _Refused as refused:
            raise _meaning(refused) from refused

    async def _call(
        self, method: str, path: str, body: Object | None = None, query: Mapping[str, str] | None = None
    ) -> Object:
        import aiohttp

        try:
            response = await self._send(method, path, body, query or {}, _CALL_SECONDS)
            raw = await response.read()
        except aiohttp.ClientConnectorError as error:  # nothing was sent
            raise Unavailable("runner", f"The API server cannot be reached: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise OutcomeUnknown(
                "runner", f"The API server does not answer: {str(error) or type(error).__name__}"
            ) from error
        if response.status >= 500:
            raise OutcomeUnknown("runner", _reason(response.status, raw))
        if response.status >= 300:
            raise _Refused(response.status, _reason(response.status, raw))
        found: Object = json.loads(raw)
        return found

    async def _send(
        self, method: str, path: str, body: Object | None, query: Mapping[str, str], limit: Any
    ) -> "aiohttp.ClientResponse":
        client = await self._opened()
        headers = {"Accept": "application/json, */*", "Content-Type": "application/json"}
        if method == "PATCH":
            headers["Content-Type"] = _MERGE
        prepared = await client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        answer: aiohttp.ClientResponse = (await client.call_api(*prepared, _request_timeout=limit)).response
        return answer

    async def _opened(self) -> "ApiClient":
        async with self._opening:
            if self._client is None:
                self._client = await _open(self._context)
            return self._client


class _Ahead:
    """What has come of an answer, taken as it comes, however late who asked for it takes it from here.

    A kubelet that waits for its reader reads a log file while the next ones come and go.
    """

    def __init__(self, content: "aiohttp.StreamReader") -> None:
        self._content = content
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._filling = asyncio.create_task(self._fill())
        self._filling.add_done_callback(self._filled)

    async def next(self) -> bytes | None:
        """What comes next, empty after half a second of silence, None at the end; or what has cut it."""
        await asyncio.sleep(0)  # or nothing would come while there is something
        if not self._pieces and not self._filling.done():
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._news.wait()
        if self._pieces:
            piece = self._pieces.popleft()
            self._size -= len(piece)
            self._room.set()
            return piece
        return self._filling.result() if self._filling.done() else b""

    def close(self) -> None:
        """Take no more."""
        self._filling.cancel()

    def _filled(self, filling: "asyncio.Task[None]") -> None:
        if not filling.cancelled():
            filling.exception()  # is raised where it belongs in the order of things, or nobody asks any more
        self._news.set()

    async def _fill(self) -> None:
        while piece := await self._content.readany():
            self._pieces.append(piece)
            self._size += len(piece)
            self._news.set()
            while self._size > _AHEAD_BYTES:
                self._room.clear()
                await self._room.wait()


class _Refused(ControllerError):
    """The API server's definite no."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def _meaning(refused: _Refused) -> ControllerError:
    kind = Conflict if refused.status in _CONFLICTS else None
    return kind(str(refused)) if kind else Unavailable("runner", str(refused))


def _reason(status: int, raw: bytes) -> str:
    """The API server's own words (a `Status` object's message)."""
    try:
        message = json.loads(raw)["message"]
    except (ValueError, KeyError, TypeError):
        message = raw[:200].decode("utf-8", "replace")
    return f"The API server says {status}: {message}"


def _without_init(package: str) -> None:
    """Have a package there, and its modules to be imported, without importing what its `__init__` does."""
    if package in sys.modules:
        return
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(package)
    parent, _, name = package.rpartition(".")
    sys.modules[package] = importlib.util.module_from_spec(spec)
    if parent:
        setattr(sys.modules[parent], name, sys.modules[package])


async def _open(context: str | None) -> "ApiClient":
    for package in ("kubernetes", "kubernetes.aio", "kubernetes.aio.config"):
        _without_init(package)
    from kubernetes.aio.client.api_client import ApiClient
    from kubernetes.aio.client.configuration import Configuration
    from kubernetes.aio.config.config_exception import ConfigException

    configuration = Configuration()
    try:
        if context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            from kubernetes.aio.config.incluster_config import load_incluster_config

            load_incluster_config(configuration)  # type: ignore[no-untyped-call] # as above
        else:
            from kubernetes.aio.config.kube_config import load_kube_config

            await load_kube_config(  # type: ignore[no-untyped-call] # as above
                os.environ.get("KUBECONFIG"), context, client_configuration=configuration, persist_config=False
            )
    except (ConfigException, OSError) as error:
        raise Unavailable("runner", f"There is no way to a cluster: {error}. Set KUBECONFIG.") from error
    configuration.retries = None
    return ApiClient(configuration)
