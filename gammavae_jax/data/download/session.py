"""How this program presents itself to a server."""

from importlib.metadata import PackageNotFoundError, version

import requests

_MOST_REDIRECTS = 10


def new_session() -> requests.Session:
    """A session that asks for files as they are; of http and https alone.

    Proxies and certificates are those that the environment names.
    """
    session = requests.Session()
    session.max_redirects = _MOST_REDIRECTS
    # Packed on the way, a file could not be gone on with.
    session.headers.update(
        {"User-Agent": f"gammavae-jax/{_version()}", "Accept-Encoding": "identity"}
    )
    return session


def _version() -> str:
    try:
        return version("gammavae-jax")
    except PackageNotFoundError:
        return "0"
