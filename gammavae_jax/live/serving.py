"""The service on a port: uvicorn, with connections that say nothing shown out."""

import socket
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gammavae_jax.errors import InputError

_HEADER_SECONDS = 10.0
_MOST_CONNECTIONS = 512
_SHUTDOWN_SECONDS = 3


class ImpatientProtocol(H11Protocol):
    """HTTP that closes a connection whose request does not begin in time.

    So it does with one whose body goes on and on after its answer. uvicorn alone would
    wait for ever, and connections are limited.
    """

    header_seconds = _HEADER_SECONDS
    _timer: Any = None

    def connection_made(self, transport: Any) -> None:
        """Start to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait on while a request has not come whole, counted from its beginning."""
        super().data_received(data)
        if self._owes_a_request or self._is_answered:
            self._wait()
        else:
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.header_seconds, self._give_up)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        is_late = self._owes_a_request or self._is_answered
        if is_late and not self.transport.is_closing():
            self.transport.close()

    @property
    def _owes_a_request(self) -> bool:
        return self.conn.their_state is h11.IDLE

    @property
    def _is_answered(self) -> bool:
        """Whether a body still comes that nobody reads."""
        is_done = self.conn.our_state is h11.DONE
        return is_done and self.conn.their_state is h11.SEND_BODY


class LiveServer(uvicorn.Server):
    """uvicorn that lets those go first who would keep it waiting when it ends.

    Args:
        application: of ASGI.
        let_go: called in the event loop, before the connections are closed.
    """

    def __init__(self, application: Any, let_go: Callable[[], None]):
        self._let_go = let_go
        super().__init__(
            uvicorn.Config(
                application,
                http=ImpatientProtocol,
                ws="none",
                lifespan="off",
                # Logging is the process's: to set it up anew would close handlers.
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_MOST_CONNECTIONS,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        self._let_go()
        await super().shutdown(sockets)


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        InputError: another program does, or this computer has no such address.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot listen at {host} port {port} ({reason}): give another --host or "
            "--port"
        ) from error


def address(listening: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
