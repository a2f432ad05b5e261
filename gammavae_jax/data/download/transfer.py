"""One address to one file, which is whole and checked under its name or not there.

A transfer that breaks goes on where it stopped, also in a later process, if the server
still has the same file. It is given up after tries in a row that bring no new bytes.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import requests
import urllib3
from rich.filesize import decimal

from gammavae_jax.data.download.answer import (
    Body,
    Broken,
    CannotResume,
    NotServed,
    body_of,
)
from gammavae_jax.data.download.byte_bar import Show, byte_bar
from gammavae_jax.data.download.disk_space import require_space
from gammavae_jax.data.download.part_file import PartFile
from gammavae_jax.data.download.patience import Patience
from gammavae_jax.errors import InputError, printable
from gammavae_jax.log import Log

_CHUNK = 1 << 18  # bytes read at once, at most


class Wanted(NamedTuple):
    """A file, where it is to be, and what is published of it."""

    url: str
    path: Path
    size: int | None = None  # bytes
    md5: str | None = None  # hexadecimal


class WrongBytes(Exception):
    """A whole file that is not the one that was wanted: the reason, in words."""


def fetch(
    wanted: Wanted,
    session: requests.Session,
    log: Log,
    patience: Patience = Patience(),  # noqa: B008
    check: Callable[[Path], None] | None = None,
) -> None:
    """Load a file.

    Args:
        wanted: its folder is made if it is not there.
        session: of `session.new_session`.
        log: is told of what broke.
        patience: how often to try.
        check: raises `WrongBytes` if the whole file, not yet under its name, is none.

    Raises:
        NotServed: this file cannot be had, or its bytes are wrong again and again.
        InputError: the server cannot be reached, or the folder cannot be written.
    """
    tries = _Tries(wanted, log, patience)
    with PartFile(wanted.path) as part, byte_bar(log, wanted.path.name) as show:
        while True:
            try:
                if not part.is_whole:
                    _load(wanted, part, session, patience, show, tries.may_resume)
                _require_right(wanted, part, check)
                part.finish()
                return
            except CannotResume as reason:
                part.restart()
                tries.may_resume = False
                tries.again(part.size, Broken(str(reason), is_of_file=True))
            except Broken as reason:
                tries.again(part.size, reason)
            except WrongBytes as reason:
                part.restart()
                tries.wrong(str(reason))


class _Tries:
    """What was tried for a file, and when that is enough."""

    def __init__(self, wanted: Wanted, log: Log, patience: Patience):
        self.wanted, self.log, self.patience = wanted, log, patience
        self.may_resume = True
        self._most = 0  # bytes that were there at once
        self._failures = 0  # in a row, without more than those
        self._wrong = 0

    def again(self, size: int, broken: Broken) -> None:
        """Wait for the next try.

        Raises:
            NotServed, InputError: there were enough.
        """
        self._failures = 1 if size > self._most else self._failures + 1
        self._most = max(self._most, size)
        name, asked_s = self.wanted.path.name, broken.asked_s or 0.0
        so_far = f"{decimal(size)} are kept"
        if asked_s > self.patience.longest_asked_s:
            raise InputError(
                f"{name}: {broken} and asks to wait {asked_s:.0f} s; {so_far}: run the "
                "same command again then, and it goes on from there"
            )
        if self._failures >= self.patience.n_tries:
            raise (NotServed if broken.is_of_file else InputError)(
                f"{name}: given up after {self._failures} tries without new bytes: "
                f"{broken}; {so_far}: run the same command again later, and it goes on "
                "from there"
            )
        seconds = self.patience.wait_s(self._failures, asked_s)
        self.log.say(f"{name}: {broken}; {so_far}; next try in {seconds:.0f} s")
        self.patience.sleep(seconds)

    def wrong(self, reason: str) -> None:
        """Begin again after a whole file that was wrong.

        Raises:
            NotServed: that was so too often.
        """
        self._wrong += 1
        name = self.wanted.path.name
        if self._wrong >= self.patience.n_wrong:
            raise NotServed(
                f"{name}: {reason}, {self._wrong} times; nothing of it was kept: try "
                f"again later, or load {self.wanted.url} by other means"
            )
        self.log.say(f"{name}: {reason}; loading it again")


def _load(
    wanted: Wanted,
    part: PartFile,
    session: requests.Session,
    patience: Patience,
    show: Show,
    may_resume: bool,
) -> None:
    """Ask once for what is missing, and append what comes.

    Raises:
        Broken, CannotResume, WrongBytes, NotServed, InputError: see `fetch`.
    """
    headers = _range_headers(wanted, part, may_resume)
    start = part.size if headers else 0
    try:
        with session.get(
            wanted.url, headers=headers, stream=True, timeout=patience.timeouts_s
        ) as response:
            body = body_of(response.status_code, response.headers, start, part.version)
            total = _begin(wanted, part, body)
            for data in _pieces(response):
                if total is not None and part.size + len(data) > total:
                    raise WrongBytes(f"the server sends more than {total} bytes")
                part.append(data)
                show(part.size, total)
    except NotServed as error:
        raise NotServed(
            f"{wanted.path.name}: {error}: load {wanted.url} with a browser and put it "
            f"into {printable(wanted.path.parent)}"
        ) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _meaning(wanted, error) from error
    if total is not None and part.size < total:
        raise Broken(f"the connection ended {decimal(total - part.size)} early")
    part.ends_here()


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """What comes, as it comes: nothing waits for more, and is lost if none does."""
    while data := response.raw.read1(_CHUNK, decode_content=True):
        yield data


def _range_headers(wanted: Wanted, part: PartFile, may_resume: bool) -> dict[str, str]:
    """What asks for the bytes that are missing; nothing asks for all.

    Bytes of which it is not known whether they are of the same file can be added to
    only if a checksum will tell.
    """
    validator = part.version.validator
    is_other = wanted.size is not None and part.size >= wanted.size
    is_known = validator or wanted.md5
    # Without a length, those that came may be of a page in the file's stead.
    if part.version.size is None:
        return {}
    if part.size == 0 or not may_resume or is_other or not is_known:
        return {}
    headers = {"Range": f"bytes={part.size}-"}
    return headers | ({"If-Range": validator} if validator else {})


def _begin(wanted: Wanted, part: PartFile, body: Body) -> int | None:
    """Make the file ready for what comes; its whole size, if it is known."""
    size = body.version.size
    if None not in (size, wanted.size) and size != wanted.size:
        # Perhaps a page that tells of repairs: no reason to drop what has come.
        raise Broken(
            f"the server's file has {size} bytes, {wanted.size} are published",
            is_of_file=True,
        )
    if size is None and None not in (wanted.size, part.version.size) and part.size:
        raise Broken("the server does not say how much it sends", is_of_file=True)
    total = size if wanted.size is None else wanted.size
    if body.start == 0:
        part.restart(body.version)
    if total is not None:
        require_space(wanted.path.parent, total - part.size)
    return total


def _require_right(
    wanted: Wanted, part: PartFile, check: Callable[[Path], None] | None
) -> None:
    """Compare with what is published; look into the file where nothing is.

    Raises:
        WrongBytes: it is another file.
    """
    if wanted.size is not None and part.size != wanted.size:
        raise WrongBytes(f"{part.size} bytes came, {wanted.size} are published")
    if wanted.md5 is not None and part.md5 != wanted.md5:
        raise WrongBytes(
            f"what came has the checksum {part.md5}, the published one is {wanted.md5}"
        )
    if check is not None:
        check(part.part)


def _meaning(wanted: Wanted, error: Exception) -> Exception:
    """What an error of the libraries is here: to be tried again, or not."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return InputError(
            f"{wanted.url}: the server's certificate is not trusted: check the clock, "
            "the network and the proxy of this computer"
        )
    passing = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)
    if isinstance(error, passing):
        return Broken(_in_words(error))
    return NotServed(
        f"{wanted.path.name}: cannot be had from {wanted.url} "
        f"({printable(str(error))}): load it with a browser and put it into "
        f"{printable(wanted.path.parent)}"
    )


def _in_words(error: Exception) -> str:
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "the server does not answer"
    if isinstance(error, urllib3.exceptions.DecodeError):
        return "what came cannot be unpacked"
    if "NameResolution" in str(error) or "NewConnection" in str(error):
        return "the server cannot be reached"
    return "the connection broke"
