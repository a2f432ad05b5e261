"""The service as HTTP has it: addresses, statuses, and JSON in one line."""

import asyncio
import contextlib
import ipaddress
import json
import re
import socket
import time
import uuid
from collections.abc import Collection, Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gammavae_jax.errors import printable
from gammavae_jax.live.announce import Announcer
from gammavae_jax.live.events import message
from gammavae_jax.live.refusal import Outcome, Refusal
from gammavae_jax.live.service import Service

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class SameOrigin:
    """ASGI middleware that refuses other pages' requests.

    Args:
        app: the application.
        names: of this server, besides `localhost`, the computer's own, and addresses:
            no page can let an address point elsewhere.
    """

    def __init__(self, app: Any, names: Collection[str] = ()):
        self._app = app
        own = socket.gethostname().lower()
        self._names = {"localhost", own, f"{own}.local", *map(str.lower, names)}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope["method"], scope["headers"])
        if refusal:
            await _forbid(send, refusal)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_encoded(_HEADERS)]
            await send(message)

        await self._app(scope, receive, with_headers)

    def _refusal(self, method: str, raw: list[tuple[bytes, bytes]]) -> str:
        """Why not; empty if it may pass."""
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in raw}
        host = headers.get("host", "")
        if not self._is_ours(host):
            return (
                "this server does not go by that name: use its address, or start it "
                "with --allow-host NAME"
            )
        origin = headers.get("origin")
        if origin is not None and _place(origin) != host.lower():
            return "pages of other servers may not ask"
        # Browsers say this also where they leave out the origin.
        site = headers.get("sec-fetch-site", "none")
        is_link = method in ("GET", "HEAD") and (
            headers.get("sec-fetch-mode") == "navigate"
        )
        if site not in ("none", "same-origin") and not is_link:
            return "pages of other servers may not ask"
        return ""

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if "@" in host or "/" in host:
                return False
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.removesuffix(".") in self._names
        return True


def _place(origin: str) -> str:
    """Name and port of an origin; a proxy may speak another scheme than we do."""
    _, _, place = origin.partition("://")
    return place.lower()


async def _forbid(send: Any, reason: str) -> None:
    body = json.dumps({"error": reason}).encode() + b"\n"
    headers = _HEADERS | {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    await send(
        {"type": "http.response.start", "status": 403, "headers": _encoded(headers)}
    )
    await send({"type": "http.response.body", "body": body})


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(k.lower().encode(), v.encode()) for k, v in headers.items()]


_PAGE = {"/": "live.html", "/live.css": "live.css", "/live.js": "live.js"}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class EventStream(StreamingResponse):
    """Server-sent events; the listener is let go whatever ends the stream."""

    media_type = "text/event-stream"

    async def stream_response(self, send: Any) -> None:
        """Send until the client goes."""
        async with contextlib.aclosing(self.body_iterator):  # type: ignore[type-var]
            await super().stream_response(send)


def make_application(
    service: Service, announcer: Announcer, names: Collection[str] = ()
) -> Any:
    """The ASGI application.

    Args:
        service: what is asked for.
        announcer: is told of requests that went wrong.
        names: of this server, see `SameOrigin`.
    """
    app = FastAPI(title="gammavae", docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app, announcer)
    _add_page(app)
    _add_looks(app, service)

    @app.post("/score")
    async def score(
        request: Request, machine: str | None = None, name: str | None = None
    ) -> Response:
        id_ = request.headers.get("x-request-id", "")
        id_ = id_ if _REQUEST_ID.fullmatch(id_) else uuid.uuid4().hex
        outcome: Outcome = "failed"
        try:
            answer = await _scored(service, request, machine, name, id_)
            outcome = "scored"
            return _json(answer, 200, {"X-Request-Id": id_})
        except Refusal as refusal:
            outcome = refusal.outcome
            announcer.say(f"REFUSED  {refusal.message}  ({refusal.status}, {id_})")
            return _refused(refusal, {"request_id": id_}, {"X-Request-Id": id_})
        except (ClientDisconnect, asyncio.CancelledError):  # or the server ends
            outcome = "gone"
            return Response(status_code=400)  # that nobody gets
        finally:
            service.metrics.count(outcome)

    return SameOrigin(app, names)


async def _scored(
    service: Service,
    request: Request,
    machine: str | None,
    name: str | None,
    id_: str,
) -> dict[str, Any]:
    machine = service.machine_named(machine)
    declared = request.headers.get("content-length")
    body = await service.uploads.read(request.stream(), declared)
    try:
        content_type = request.headers.get("content-type", "")
        return await service.score(body, content_type, name, machine, id_)
    finally:
        service.uploads.release(body)


def _add_looks(app: FastAPI, service: Service) -> None:
    """What can be looked at."""
    started = time.monotonic()

    @app.get("/machines")
    async def machines() -> Response:
        return _json({"machines": service.described_machines()})

    @app.get("/health")
    async def health() -> Response:
        uptime = round(time.monotonic() - started, 1)
        waiting = service.worker.waiting
        return _json({"status": "ok", "uptime_seconds": uptime, "waiting": waiting})

    @app.get("/metrics")
    async def metrics() -> Response:
        text = service.metrics.text()
        return Response(text, media_type=service.metrics.content_type)

    @app.get("/spectrogram")
    async def spectrogram(machine: str | None = None) -> Response:
        shown = service.history.picture(service.machine_named(machine))
        if shown is None:
            raise Refusal(404, "no recording of this machine has been scored yet")
        return _json(shown)

    @app.get("/events")
    async def events() -> Response:
        def snapshot() -> str:
            return message("snapshot", service.history.snapshot())

        # A proxy such as nginx would keep the events until there are many.
        headers = {"X-Accel-Buffering": "no"}
        return EventStream(service.broadcast.listen(snapshot), headers=headers)


def _add_page(app: FastAPI) -> None:
    """The page, and its two files."""
    for path, name in _PAGE.items():
        text = (
            files("gammavae_jax.live")
            .joinpath("page", name)
            .read_text(encoding="utf-8")
        )
        media_type = _TYPES[name.rpartition(".")[2]]

        def page(text: str = text, media_type: str = media_type) -> Response:
            return Response(text, media_type=media_type)

        # Not a route of FastAPI's, for which the defaults would be parameters.
        app.add_route(path, lambda _, page=page: page())


def _add_errors(app: FastAPI, announcer: Announcer) -> None:
    """Every error in the same form."""

    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> Response:
        return _refused(refusal)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        answer = {"error": f"{error.detail}: see GET /machines, POST /score"}
        return _json(answer, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        announcer.say(f"FAILED  {type(error).__name__}: {printable(str(error))}")
        return _json({"error": "the server failed: its own messages say how"}, 500)


def _refused(
    refusal: Refusal,
    more: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    headers = dict(headers or {})
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    return _json({"error": refusal.message, **(more or {})}, refusal.status, headers)


def _json(
    answer: Mapping[str, Any], status: int = 200, headers: Any = None
) -> Response:
    """One line, whatever is in it."""
    text = json.dumps(answer, allow_nan=False) + "\n"
    return Response(text, status, headers, "application/json")
