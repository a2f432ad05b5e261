"""Which score, decision and ground truth files there are, and of which section.

`<kind>_<machine>_section_<id>_test.csv`. The baseline's own names, with a data set
before the machine and a tag at the end, and those of 2020 (`_id_`) are read too. In
2021 a section has a file for each domain, `..._source_test.csv` and
`..._target_test.csv`: its clips are those of both.
"""

import re
from pathlib import Path

from gammavae_jax.errors import InputError

Section = tuple[str, str]  # machine and section

# What ends a line, moves a terminal's cursor, or is no valid UTF-8.
UNWRITABLE = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"

_FILE_NAME = re.compile(
    r"(?:anomaly_score|decision_result|ground_truth)_(?:DCASE20\d\dT2)?"
    rf"(?P<machine>[^/\\{UNWRITABLE}]+?)_(?P<word>section|id)_(?P<section>\d+)"
    r"(?P<domain>_source|_target)?(?:_test(?:_.*)?)?\.csv"
)


def machine_and_section(file_name: str) -> Section | None:
    """What the name of such a file tells; None if not both."""
    match = _FILE_NAME.fullmatch(file_name)
    return (match["machine"], match["section"]) if match else None


def find_files(folder: Path, kind: str) -> dict[Section, tuple[Path, ...]]:
    """The files `<kind>_*.csv` in a folder by machine and section, sorted.

    Raises:
        InputError: no folder, a file whose name does not tell its section, or two
            files for one section, unless each is of a domain of its own.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give one that holds {kind}_*.csv")
    found: dict[Section, dict[str | None, Path]] = {}
    for path in filter(Path.is_file, folder.glob(f"{kind}_*.csv")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise InputError(
                f"{path} names no machine and section: "
                f"name it {kind}_<machine>_section_<id>_test.csv"
            )
        of_section = found.setdefault((match["machine"], match["section"]), {})
        domain = match["domain"]
        others = of_section if domain is None else {None, domain} & of_section.keys()
        for other in others:
            first, second = sorted([of_section[other].name, path.name])
            raise InputError(
                f"{folder} has {first} and {second} for one section: keep one"
            )
        of_section[domain] = path
    return {key: tuple(sorted(found[key].values())) for key in sorted(found)}


def require_files(
    wanted: dict[Section, tuple[Path, ...]],
    folder: Path,
    kind: str,
    found: dict[Section, tuple[Path, ...]],
) -> None:
    """Refuse sections that are in `wanted` but not among the files found in a folder.

    Raises:
        InputError: names the first such section's missing file and its file in
            `wanted`.
    """
    for machine, section in sorted(wanted.keys() - found.keys()):
        raise InputError(
            f"{folder} has no {kind}_{machine}_section_{section}_test.csv: "
            f"add it, or take away {together(wanted[machine, section])}"
        )


def together(paths: tuple[Path, ...]) -> str:
    """The files of a section, in a message."""
    return " and ".join(map(str, paths))


def year_of_files(folder: Path) -> int | None:
    """2020 or 2021, if the names of all score files in a folder tell it; else None.

    Raises:
        InputError: see `find_files`.
    """
    paths = [p for ps in find_files(folder, "anomaly_score").values() for p in ps]
    told = {match.groups() for p in paths if (match := _FILE_NAME.fullmatch(p.name))}
    if {word for _, word, _, _ in told} == {"id"}:
        return 2020
    domains = {domain for *_, domain in told}
    return 2021 if domains and None not in domains else None
