"""Names of the challenge's score files, and the names that such files can hold."""

import re
from collections.abc import Iterable

from gammavae_jax.errors import InputError

# Line breaks, control characters and what is not valid UTF-8.
UNWRITABLE = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"

FILE_NAME = re.compile(
    r"(?:anomaly_score|decision_result|ground_truth)_(?:DCASE20\d\dT2)?"
    rf"(?P<machine>[^/\\{UNWRITABLE}]+?)_(?P<word>section|id)_(?P<section>\d+)"
    r"(?P<domain>_source|_target)?(?:_test(?:_.*)?)?\.csv"
)
_UNWRITABLE = re.compile(f"[{UNWRITABLE}]")


def machine_and_section(file_name: str) -> tuple[str, str] | None:
    """The machine and section in the name of a score file; None for other names."""
    match = FILE_NAME.fullmatch(file_name)
    return (match["machine"], match["section"]) if match else None


def require_names(machine: str, section: str, names: Iterable[str]) -> None:
    """Refuse names that no score file can hold, before anything is computed.

    Args:
        machine: machine type.
        section: digits.
        names: names of the clips.

    Raises:
        InputError: names the machine and section, or the clip.
    """
    file_name = f"anomaly_score_{machine}_section_{section}_test.csv"
    if machine_and_section(file_name) != (machine, section):
        raise InputError(
            f"machine {machine!r}, section {section!r} cannot be part of a score "
            "file's name: use letters and digits for one, digits for the other"
        )
    for name in names:
        if not name or _UNWRITABLE.search(name):
            raise InputError(f"a score file cannot hold the name {name!r}: rename it")
