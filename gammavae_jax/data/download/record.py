"""What Zenodo publishes of the files of a record: their sizes and checksums."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import requests

from gammavae_jax.data.download.answer import Broken, CannotResume, Version, body_of
from gammavae_jax.data.download.patience import Patience
from gammavae_jax.errors import InputError

_N_TRIES = 3
_LONGEST = 1 << 22  # bytes of an answer


class RecordFile(NamedTuple):
    """A file of a record."""

    size: int  # bytes
    md5: str | None  # hexadecimal; None where the checksum is of another kind


class NoRecord(Exception):
    """A record that cannot be read: the reason, in words."""


class Unreachable(NoRecord):
    """A record that cannot be read for want of a server."""


def read_record(
    base: str,
    record: str,
    session: requests.Session,
    patience: Patience = Patience(),  # noqa: B008
    n_tries: int = _N_TRIES,
) -> Mapping[str, RecordFile]:
    """The files of a record by their names, as `/api/records/<record>` has them.

    Args:
        base: address of Zenodo, or of a mirror.
        record: its number.
        session: to ask with.
        patience: the waits between tries.
        n_tries: how often to ask.

    Raises:
        Unreachable: there is no answer, or none but to come later.
        NoRecord: it cannot be had, or is in no form that is known.
    """
    url = f"{base}/api/records/{record}"
    for n_failures in range(1, n_tries + 1):
        try:
            return _files_in(_ask(url, session, patience))
        except Broken as reason:
            asked_s = reason.asked_s or 0.0
            if n_failures == n_tries or asked_s > patience.longest_asked_s:
                raise Unreachable(str(reason)) from reason
            patience.sleep(patience.wait_s(n_failures, asked_s))
    raise Unreachable("nothing was asked")


def _ask(url: str, session: requests.Session, patience: Patience) -> bytes:
    """The body of the answer.

    Raises:
        Broken: it may be had later.
        NoRecord: it may not.
    """
    try:
        with session.get(
            url,
            headers={"Accept": "application/json"},
            stream=True,
            timeout=patience.timeouts_s,
        ) as response:
            body_of(response.status_code, response.headers, 0, Version())
            data = bytearray()
            for chunk in response.iter_content(1 << 16):
                data += chunk
                if len(data) > _LONGEST:
                    raise NoRecord("the answer is too long")
            return bytes(data)
    except (InputError, CannotResume) as error:
        raise NoRecord(str(error)) from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise Broken("the server cannot be reached") from error
    except requests.RequestException as error:
        raise NoRecord("the answer cannot be read") from error


def _files_in(text: bytes) -> dict[str, RecordFile]:
    try:
        return {str(file["key"]): _file(file) for file in json.loads(text)["files"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NoRecord("the answer is in an unknown form") from error


def _file(tree: Mapping[str, Any]) -> RecordFile:
    size = tree["size"]
    if type(size) is not int or size < 0:
        raise ValueError
    match = re.fullmatch("md5:([0-9a-f]{32})", str(tree.get("checksum", "")))
    return RecordFile(size, match[1] if match else None)
