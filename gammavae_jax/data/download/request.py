"""Makes HTTP requests and repeats those that fail with a transient error."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import requests
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random_exponential,
)
from urllib3 import Retry
from urllib3.exceptions import HTTPError, InvalidHeader, TimeoutError

from gammavae_jax.errors import InputError

TIMEOUTS_S = (15.0, 60.0)  # to connect, and between two pieces of a response
_MAX_RETRY_AFTER_S = 300.0
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
# Exponential backoff with jitter: each wait lasts between 50% and 100% of 1, 2, 4,
# 8, 16, 30, 30, ... seconds.
_BACKOFF = wait_exponential(0.5, max=15) + wait_random_exponential(0.5, max=15)
# The download of a file that is compressed in transit could not be resumed.
_HEADERS = {"User-Agent": "gammavae-jax", "Accept-Encoding": "identity"}


class Refused(InputError):
    """The error raised if a server refuses one file but may still provide others."""


class Transient(Exception):
    """The error raised for a failure that may not recur in the next attempt."""

    retry_after_s = 0.0


@contextmanager
def get(url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
    """Request a URL and yield the open response if its status is 200, 206 or 416.

    Raises:
        Transient: the connection broke, or the server is busy.
        Refused: the request failed for any other reason.
    """
    try:
        with requests.get(
            url, headers=_HEADERS | headers, stream=True, timeout=TIMEOUTS_S
        ) as response:
            _require_success(response)
            yield response
    except (requests.RequestException, HTTPError) as error:
        raise _translated(error) from error


def retrying(attempts: int) -> Retrying:
    """Return a function that repeats a call as long as the call raises `Transient`.

    It waits between the attempts, with exponential backoff and jitter, but at least as
    long as the server asks. After the last attempt, it raises the last error.
    """

    def wait_s(state: RetryCallState) -> float:
        error = state.outcome and state.outcome.exception()
        return max(_BACKOFF(state), getattr(error, "retry_after_s", 0.0))

    return Retrying(
        retry=retry_if_exception_type(Transient),
        stop=stop_after_attempt(attempts),
        wait=wait_s,
        reraise=True,
    )


def _require_success(response: requests.Response) -> None:
    status = response.status_code
    error = Transient(f"the server answered {status} {response.reason}".rstrip())
    if status in (200, 206, 416):
        return
    if status not in _TRANSIENT:
        raise Refused(str(error))
    text = response.headers.get("Retry-After", "0")
    with suppress(InvalidHeader, ValueError, OverflowError):
        error.retry_after_s = float(Retry().parse_retry_after(text))
    if error.retry_after_s > _MAX_RETRY_AFTER_S:
        raise Refused(f"{error} and asked for a retry after {text}")
    raise error


def _translated(error: Exception) -> Exception:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        problem = "the server's certificate is not trusted"
        return Refused(f"{problem}: check the clock and the proxy")
    if "NameResolution" in text or "NewConnection" in text:
        return Transient("the server cannot be reached")
    if isinstance(error, requests.Timeout | TimeoutError):
        return Transient("the server does not respond")
    if isinstance(error, requests.ConnectionError | HTTPError):
        return Transient("the connection broke")
    return Refused(text)
