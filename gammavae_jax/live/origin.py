"""Who may ask: programs, and pages of this very server; no page of another.

A browser lets any page send requests to any address, the own computer's too. Two checks
keep such pages out, and nothing here allows them to read (no CORS headers):

- The name in `Host` must be one of this server's. A page can let its own name point
  here (DNS rebinding), but the browser then sends that name.
- `Origin`, which browsers add when a page of another server asks, must be this server.
"""

import ipaddress
import json
import socket
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

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
