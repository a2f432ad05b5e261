"""The HTTP interface of the scoring service: routes, status codes, JSON responses."""

import asyncio
import contextlib
import ipaddress
import json
import re
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gammavae_jax.errors import printable
from gammavae_jax.live.announce import Announcer
from gammavae_jax.live.events import message
from gammavae_jax.live.metrics import Outcome, Refusal
from gammavae_jax.live.service import ScoreRequest, Service
from gammavae_jax.live.uploads import Body
from gammavae_jax.process import HANGUP, handled

SHUTDOWN_SECONDS = 3
_MAX_CONNECTIONS = 512
_PAGE = {
    "/": ("live.html", "text/html"),
    "/live.css": ("live.css", "text/css"),
    "/live.js": ("live.js", "text/javascript"),
}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
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
    """ASGI middleware that rejects requests sent by the pages of other websites.

    The server accepts the names `localhost`, its host name and the given names. It
    accepts any IP address, because a DNS rebinding attack needs a name.
    """

    def __init__(self, app: Any, names: Collection[str] = ()):
        self._app = app
        own = socket.gethostname().lower()
        self._names = {"localhost", own, f"{own}.local", *map(str.lower, names)}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on a request, or respond with 403; add security headers."""

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        app = _json({"error": refusal}, 403) if refusal else self._app
        await app(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers) -> str:
        """Return why a request is rejected, or '' if it is accepted."""
        host = headers.get("host", "")
        if not self._is_own(host):
            remedy = "use the server's address, or allow the name with --allow-host"
            return f"unknown host name: {remedy}"
        # A reverse proxy may use another scheme, so only name and port are compared.
        origin = headers.get("origin", f"//{host}").partition("//")[2]
        # Browsers send this header even in requests without an Origin header.
        is_other = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        is_link = headers.get("sec-fetch-mode") == "navigate"
        is_link &= method in ("GET", "HEAD")
        if origin.lower() != host.lower() or (is_other and not is_link):
            return "pages of other sites may not send requests to this server"
        return ""

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if "@" in host or "/" in host:
            return False
        with contextlib.suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return name.removesuffix(".") in self._names


class EventStream(StreamingResponse):
    """Streams server-sent events and always removes its listener when it ends."""

    media_type = "text/event-stream"

    async def stream_response(self, send: Any) -> None:
        """Send events until the client disconnects."""
        async with contextlib.aclosing(self.body_iterator):  # type: ignore[type-var]
            await super().stream_response(send)


class LiveServer(uvicorn.Server):
    """A uvicorn server that also closes idle connections.

    On its own, uvicorn lets a client hold a connection forever by sending no request,
    by sending more of the request's body after the response, or by never reading the
    response. On shutdown, `close` is called in the event loop before the server waits
    for open requests.
    """

    ticks_between_checks = 100  # a tick is 0.1 s

    def __init__(self, application: Any, close: Callable[[], None]):
        self._close = close
        # Each connection's request and number of unread bytes at the last check.
        self._last: dict[Any, tuple[Any, int]] = {}
        super().__init__(
            uvicorn.Config(
                application,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,  # configuring logging would close existing handlers
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_MAX_CONNECTIONS,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )

    async def on_tick(self, counter: int) -> bool:
        """Close connections that have sent no request, or read nothing, for a while."""
        if counter % self.ticks_between_checks == 0:
            before, self._last = self._last, {}
            for connection in list[Any](self.server_state.connections):
                request, transport = connection.cycle, connection.transport
                n_unread = transport.get_write_buffer_size()
                self._last[connection] = request, n_unread
                is_running = request is not None and not request.response_complete
                is_idle = n_unread > 0 or not is_running
                if is_idle and before.get(connection) == (request, n_unread):
                    transport.abort()  # closing would wait for the client to read
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals that uvicorn handles, and also SIGHUP."""
        with super().capture_signals(), handled(HANGUP, self.handle_exit):
            yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the service, then shut down the server."""
        self._close()
        await super().shutdown(sockets)


def make_application(
    service: Service, announcer: Announcer, names: Collection[str] = ()
) -> Any:
    """Build the ASGI application; `names` are extra host names to accept."""
    app = FastAPI(title="gammavae", docs_url=None, redoc_url=None, openapi_url=None)
    _add_error_handlers(app, announcer)
    _add_page(app)
    _add_get_routes(app, service)

    @app.post("/score")
    async def score(request: Request) -> Response:
        id_ = request.headers.get("x-request-id", "")
        id_ = id_ if _REQUEST_ID.fullmatch(id_) else uuid.uuid4().hex
        outcome: Outcome = "failed"
        try:
            answer = await _score(service, request, id_)
            outcome = "scored"
            return _json(answer, 200, {"X-Request-Id": id_})
        except Refusal as refusal:
            outcome = refusal.outcome
            announcer.say(f"REFUSED  {refusal.message}  ({refusal.status}, {id_})")
            return _refused(refusal, id_)
        except (ClientDisconnect, asyncio.CancelledError):
            outcome = "gone"
            return Response(status_code=400)  # the client is gone
        finally:
            service.metrics.count_request(outcome)

    return SameOrigin(app, names)


async def _score(service: Service, request: Request, id_: str) -> dict[str, Any]:
    machine = service.machine_named(_parameter(request, "machine"))
    headers = request.headers
    body = Body(headers.get("content-type", ""), _parameter(request, "name"))
    declared = headers.get("content-length")
    async with service.uploads.received(request.stream(), declared, body) as upload:
        return await service.score(ScoreRequest(upload, machine, id_))


def _parameter(request: Request, name: str) -> str | None:
    """Return a URL parameter, or None if it is absent; refuse repeated parameters."""
    values = request.query_params.getlist(name)
    if values[1:]:
        raise Refusal(400, f"the URL has {len(values)} values of {name}: pass one")
    return values[0] if values else None


def _add_get_routes(app: FastAPI, service: Service) -> None:
    started = time.monotonic()

    def get(path: str) -> Callable:
        return app.api_route(path, methods=["GET", "HEAD"])

    @get("/machines")
    async def machines() -> Response:
        return _json({"machines": service.machine_entries()})

    @get("/health")
    async def health() -> Response:
        uptime = round(time.monotonic() - started, 1)
        waiting = service.waiting
        return _json({"status": "ok", "uptime_seconds": uptime, "waiting": waiting})

    @get("/metrics")
    async def metrics() -> Response:
        text, media_type = service.metrics.text()
        return Response(text, media_type=media_type)

    @get("/spectrogram")
    async def spectrogram(request: Request) -> Response:
        machine = service.machine_named(_parameter(request, "machine"))
        image = service.history.thumbnail(machine)
        if image is None:
            raise Refusal(404, "no recording of this machine has been scored yet")
        return _json(image)

    @get("/events")
    async def events(request: Request) -> Response:
        def snapshot() -> str:
            return message("snapshot", service.history.snapshot())

        # Keeps a reverse proxy such as nginx from buffering the events.
        headers = {"X-Accel-Buffering": "no"}
        if request.method == "HEAD":  # the stream would never end
            return Response(None, 200, headers, EventStream.media_type)
        return EventStream(service.broadcast.listen(snapshot), headers=headers)


def _add_page(app: FastAPI) -> None:
    for path, (name, media_type) in _PAGE.items():
        file = files("gammavae_jax.live").joinpath("page", name)
        page = Response(file.read_text(encoding="utf-8"), media_type=media_type)
        app.add_route(path, lambda _, page=page: page)


def _add_error_handlers(app: FastAPI, announcer: Announcer) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> Response:
        return _refused(refusal)

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        answer = {"error": f"{error.detail}: use GET /machines or POST /score"}
        return _json(answer, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        announcer.say(f"FAILED  {type(error).__name__}: {printable(str(error))}")
        return _json({"error": "internal error: see the server's output"}, 500)


def _refused(refusal: Refusal, id_: str | None = None) -> Response:
    answer, headers = {"error": refusal.message}, {}
    if id_ is not None:
        answer["request_id"] = headers["X-Request-Id"] = id_
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    return _json(answer, refusal.status, headers)


def _json(answer: Any, status: int = 200, headers: Any = None) -> Response:
    """Return a one-line JSON response."""
    text = json.dumps(answer, allow_nan=False) + "\n"
    return Response(text, status, headers, "application/json")
