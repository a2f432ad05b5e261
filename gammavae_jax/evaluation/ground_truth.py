"""Labels and domains of a section's test clips, matched by clip name.

Labels and domains come from

- the clips' names;
- the files that the official evaluators have provided since 2021, in
  `ground_truth_data` and the folders beside it. Like score files, they contain
  `name,value` lines without a header;
- the lists `eval_data_list_<year>.csv` of the official baseline and of the evaluator of
  2020: a line for each machine, followed by a line for each of its clips. A clip's line
  is `name,new name`; the new name includes the label. In the list of 2020, the label is
  also given in a third field.

Clips are matched by name without `.wav` or `.flac`, never by order. The official
evaluators sort the scores and the labels by name and then ignore the names, so that one
wrong name shifts every label after it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.data.names import (
    DOMAINS,
    LABELS,
    ClipName,
    clip_stem,
    is_labelled,
    machine_and_section,
    parse_clip_name,
    section_word,
)
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.name_value_files import (
    Section,
    find_files,
    flags_by_clip,
    join_paths,
    read_lines,
    read_rows,
    refuse_duplicates,
)


class GroundTruth(NamedTuple):
    """A section's labels and domains.

    The keys are the clips' names before the organisers renamed them (no suffix).
    """

    is_anomaly: dict[str, bool]
    is_target: dict[str, bool]
    clip_of: dict[str, str]  # maps every name of a clip to its original name


def read_truth(root: Path) -> dict[Section, GroundTruth]:
    """Read every section's ground truth.

    `root` is the folder of an official evaluator, or a list file of the baseline.

    Raises:
        InputError: `root` does not contain exactly one readable ground truth.
    """
    if not root.exists():
        raise InputError(f"{root} does not exist: check the path of the ground truth")
    data = root / "ground_truth_data"
    if data.is_dir():
        return {
            key: _merge(map(truth_from_files, paths), join_paths(paths))
            for key, paths in find_files(data, "ground_truth").items()
        }
    lists = [root] if root.is_file() else sorted(root.glob("eval_data_list*.csv"))
    if not lists:
        raise InputError(
            f"{root} has no ground truth: pass a folder with ground_truth_data, or an "
            "eval_data_list_<year>.csv"
        )
    if len(lists) > 1:
        problem = f"{root} has {len(lists)} eval_data_list files"
        raise InputError(f"{problem}: pass the file of the right year")
    return truth_from_list(lists[0])


def truth_from_list(path: Path) -> dict[Section, GroundTruth]:
    """Read ground truth from a list that comes with the official baseline.

    The list of 2022, which is recognised by its file name, is rejected: 881 of its 4200
    lines contradict the official evaluator of that year in the label or the domain.
    """
    if path.name == "eval_data_list_2022.csv":
        raise InputError(
            f"{path}: the baseline's list for 2022 has wrong labels or domains in 881 "
            "lines (ToyCar, ToyTrain): pass the official evaluator's folder"
        )
    machine, clips = "", {}
    for line in read_lines(path):
        if len(line) == 1 and clip_stem(line[0]) == line[0]:
            machine = line[0]
            continue
        name, later, parsed = _parse_list_line(path, line, machine)
        clips.setdefault((machine, parsed.section), []).append((name, later, parsed))
    return {key: _truth_of_section(path, of) for key, of in clips.items()}


def _parse_list_line(
    path: Path, line: list[str], machine: str
) -> tuple[str, str, ClipName]:
    """Parse a clip's line into its original name, new name and parsed new name."""
    if len(line) not in (2, 3):
        raise InputError(
            f"{path}: cannot read the line {','.join(line)!r}, which should be a "
            "machine's name, or a clip's name followed by its new name: pass a list "
            "file of the official baseline"
        )
    name, later = (clip_stem(field) for field in line[:2])
    parsed = parse_clip_name(later)
    if not (machine and parsed.label and parsed.domain):
        raise InputError(
            f"{path}: the clip name {later!r} lacks a label or a domain, or is listed "
            "before any machine: pass one of the baseline's list files"
        )
    if line[2:] and line[2] != str(LABELS.index(parsed.label)):
        raise InputError(
            f"{path}: the label of {later!r} is {line[2]!r}: use 0 for a normal "
            "clip and 1 for an anomaly"
        )
    return name, later, parsed


def _truth_of_section(
    path: Path, clips: list[tuple[str, str, ClipName]]
) -> GroundTruth:
    refuse_duplicates(path, (name for name, _, _ in clips))
    truth = _truth_of(
        {name: parsed for name, _, parsed in clips},
        _index_names(path, [(later, name) for name, later, _ in clips]),
    )
    if name := _contradiction(truth):
        raise InputError(
            f"{path}: the name {name!r} contradicts the clip's label or domain: pass "
            "one of the baseline's list files"
        )
    return truth


def _index_names(path: Path | str, pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Map each clip's original name and new name to its original name.

    `pairs` has one tuple per clip: the new name, then the original name.
    """
    clip_of = {first: first for _, first in pairs}
    for later, first in pairs:
        if clip_of.setdefault(later, first) != first:
            raise InputError(
                f"{path}: {clip_of[later]!r} and {first!r} both have the new name "
                f"{later!r}: use a unique name for each clip"
            )
    return clip_of


def _merge(parts: Iterable[GroundTruth], where: str) -> GroundTruth:
    """Merge the ground truth of a section that has one file per domain."""
    merged, names = GroundTruth({}, {}, {}), []
    for part in parts:
        refuse_duplicates(where, [*merged.is_anomaly, *part.is_anomaly])
        merged.is_anomaly.update(part.is_anomaly)
        merged.is_target.update(part.is_target)
        names += part.clip_of.items()
    return merged._replace(clip_of=_index_names(where, names))


def _contradiction(truth: GroundTruth) -> str | None:
    """Return a name that contradicts its clip's label or domain, or None."""
    for name, clip in truth.clip_of.items():
        parsed = parse_clip_name(name)
        label = LABELS[truth.is_anomaly[clip]]
        domain = DOMAINS[truth.is_target[clip]]
        if (parsed.label or label, parsed.domain or domain) != (label, domain):
            return name
    return None


def truth_from_names(
    path: Path | str, clips: Iterable[str], section: str | None = None
) -> GroundTruth:
    """Read labels and domains from clip names; a missing domain means 'source'.

    Error messages begin with `path`.

    Raises:
        InputError: a name has no label, or gives a section other than `section` (if
            that is not None).
    """
    names = {clip: parse_clip_name(clip) for clip in clips}
    for clip, name in names.items():
        if section is not None and section_word(clip) and name.section != section:
            problem = f"{path}: the clip {clip!r} belongs to another section"
            raise InputError(f"{problem}: remove it")
        if not is_labelled(clip):
            raise InputError(
                f"{path}: the name {clip!r} has no label in the challenge's format: "
                "pass the ground truth with --ground-truth"
            )
    return _truth_of(names, {clip: clip for clip in names})


def _truth_of(names: dict[str, ClipName], clip_of: dict[str, str]) -> GroundTruth:
    return GroundTruth(
        {clip: name.label == "anomaly" for clip, name in names.items()},
        {clip: name.domain == "target" for clip, name in names.items()},
        clip_of,
    )


def truth_from_files(data: Path) -> GroundTruth:
    """Read a file in `ground_truth_data`, and its counterparts in sibling folders.

    The folder `ground_truth_attributes` gives the clips' new names; in 2022 it has a
    folder for each machine, and its tables have a header. `ground_truth_domain` gives
    the domains (1: target); if the file is missing there, domains come from the clips'
    names.

    A new name that contradicts the label or the domain belongs to another clip, as it
    does for 881 ToyCar and ToyTrain clips in 2022. In that case, none of the section's
    new names are used. An original name that contradicts the label or the domain raises
    an InputError.
    """
    domain = data.parent.with_name("ground_truth_domain") / data.name
    rows = read_rows(data)
    first_names = {clip: clip for clip in rows}
    is_anomaly = flags_by_clip(data, rows, first_names)
    later = _later_names(data)
    clip_of = _index_names(
        data, [(clip_stem(a), clip) for clip in rows for a in later.get(clip, [clip])]
    )
    if domain.exists():
        is_target = flags_by_clip(domain, read_rows(domain), clip_of)
    else:
        words = {clip: parse_clip_name(name).domain for name, clip in clip_of.items()}
        for clip in (clip for clip, word in words.items() if not word):
            problem = f"{domain} is missing, and the name {clip!r} has no domain"
            raise InputError(f"{problem}: add the file")
        is_target = {clip: word == "target" for clip, word in words.items()}
    truth = GroundTruth(is_anomaly, is_target, clip_of)
    name = _contradiction(truth)
    if name in rows:
        raise InputError(
            f"{data}: the name {name!r} contradicts the clip's label or domain: "
            "correct the ground truth"
        )
    return truth if name is None else truth._replace(clip_of=first_names)


def _later_names(data: Path) -> dict[str, list[str]]:
    """Return the clips' new names, if any, keyed by original name."""
    folder = data.parent.with_name("ground_truth_attributes")
    if (folder / data.name).exists():
        return read_rows(folder / data.name)
    key = machine_and_section(data.name)
    path = folder / key[0] / f"attributes_{key[1]}.csv" if key else folder
    if not path.is_file():
        return {}
    header, *lines = read_lines(path)
    if not header[-1].startswith("file_name_with"):  # "_attributes", "_full_attributes"
        return {}
    for line in lines:
        if len(line) < 2:
            problem = f"{path}: the line of {line[0]!r} has no new name"
            raise InputError(f"{problem}: add it after a comma")
    refuse_duplicates(path, (clip_stem(line[0]) for line in lines))
    # The new name is the last field; a clip may have fewer fields than the header.
    return {clip_stem(line[0]): line[-1:] for line in lines}
