"""What is known of a section's clips, and values matched to them by name.

Labels and domains come from

- the clips' names;
- the files that the official evaluators ship from 2021 on, `ground_truth_data` and the
  folders beside it: like a score file, lines of `name,value` without a header;
- the baseline's lists, `eval_data_list_<year>.csv`, of which the evaluator of 2020
  takes one too: a line with each machine, then its clips, `name,later name` and in 2020
  the label, which the later names tell as well.

Clips are matched by name without `.wav` or `.flac`, never by order: the official
evaluators sort both sides and drop the names, so that one wrong name shifts every label
after it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.data.names import (
    DOMAINS,
    LABELS,
    clip_stem,
    parse_clip_name,
    section_word,
)
from gammavae_jax.data.score_file_names import machine_and_section
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.rows import (
    Section,
    find_files,
    flags_by_clip,
    read_lines,
    read_rows,
    refuse_doubled,
    together,
)


class GroundTruth(NamedTuple):
    """Labels and domains of a section; clips go by their names without suffix."""

    is_anomaly: dict[str, bool]
    is_target: dict[str, bool]
    clip_of: dict[str, str]  # every name that a clip may have


def read_truth(root: Path) -> dict[Section, GroundTruth]:
    """The ground truth of every section that an evaluator's folder, or a list, has.

    Raises:
        InputError: there is none, or more than one list, or one that cannot be read.
    """
    if not root.exists():
        raise InputError(f"{root} is no folder and no list: give the ground truth")
    if (root / "ground_truth_data").is_dir():
        return {
            key: _merged([truth_from_files(path) for path in paths], together(paths))
            for key, paths in find_files(
                root / "ground_truth_data", "ground_truth"
            ).items()
        }
    lists = [root] if root.is_file() else sorted(root.glob("eval_data_list*.csv"))
    if not lists:
        raise InputError(
            f"{root} holds no ground truth: give a folder with ground_truth_data, or "
            "an eval_data_list_<year>.csv"
        )
    if len(lists) > 1:
        raise InputError(f"{root} holds {len(lists)} lists: give the one of the year")
    return truth_from_list(lists[0])


def truth_from_list(path: Path) -> dict[Section, GroundTruth]:
    """What a list of the official baseline tells of every section.

    That of 2022 is refused by its name: against the evaluator of that year, labels or
    domains are wrong in 881 of its 4200 lines.

    Raises:
        InputError: a list that cannot be read, a clip that comes twice, or one whose
            later name tells no label or domain, or another label than the list.
    """
    if path.name == "eval_data_list_2022.csv":
        raise InputError(
            f"{path}: labels or domains are wrong in 881 lines of the baseline's list "
            "of 2022 (ToyCar, ToyTrain): give the official evaluator's folder"
        )
    machine, clips = "", {}
    for line in read_lines(path):
        if len(line) == 1 and clip_stem(line[0]) == line[0]:
            machine = line[0]
            continue
        if len(line) not in (2, 3):
            raise InputError(
                f"{path}: {','.join(line)!r} is neither a machine nor a clip with its "
                "later name: this is no list of the official baseline"
            )
        name, later = (clip_stem(field) for field in line[:2])
        parsed = parse_clip_name(later)
        if not (machine and parsed.label and parsed.domain):
            raise InputError(
                f"{path}: {later!r} tells no label and domain, or comes before any "
                "machine: this is no list of the official baseline"
            )
        if line[2:] and line[2] != str(LABELS.index(parsed.label)):
            raise InputError(
                f"{path}: the label of {later!r} is {line[2]!r}: give 0 for a normal "
                "clip, 1 for an anomaly"
            )
        clips.setdefault((machine, parsed.section), []).append((name, later, parsed))
    found = {}
    for key, of_section in clips.items():
        refuse_doubled(path, (name for name, _, _ in of_section))
        later_names = [(later, name) for name, later, _ in of_section]
        found[key] = GroundTruth(
            is_anomaly={n: parsed.label == "anomaly" for n, _, parsed in of_section},
            is_target={n: parsed.domain == "target" for n, _, parsed in of_section},
            clip_of=_with_later_names(path, later_names),
        )
        name = _contradiction(found[key])
        if name is not None:
            raise InputError(
                f"{path}: {name!r} has a later name that contradicts it: this is no "
                "list of the official baseline"
            )
    return found


def _with_later_names(
    path: Path | str, later_names: Iterable[tuple[str, str]]
) -> dict[str, str]:
    """The first name of clips by all their names.

    Args:
        path: of the later names, for the message.
        later_names: later and first name of every clip; both may be the same.

    Raises:
        InputError: two clips with one name.
    """
    pairs = list(later_names)
    clip_of = {first: first for _, first in pairs}
    for later, first in pairs:
        if clip_of.setdefault(later, first) != first:
            raise InputError(
                f"{path}: {clip_of[later]!r} and {first!r} both go by {later!r}: give "
                "each clip a name of its own"
            )
    return clip_of


def _merged(parts: Iterable[GroundTruth], where: str) -> GroundTruth:
    """The ground truth of a section that has a file for each domain."""
    merged, names = GroundTruth({}, {}, {}), []
    for part in parts:
        refuse_doubled(where, [*merged.is_anomaly, *part.is_anomaly])
        merged.is_anomaly.update(part.is_anomaly)
        merged.is_target.update(part.is_target)
        names += part.clip_of.items()
    return merged._replace(clip_of=_with_later_names(where, names))


def _contradiction(truth: GroundTruth) -> str | None:
    """The first name that tells another label or domain than the ground truth."""
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
    """What the clips' names tell; clips that do not tell their domain are source.

    Args:
        path: where the names were read, for the message.
        clips: their names.
        section: theirs, if known.

    Raises:
        InputError: a name without a label, or of another section.
    """
    names = {clip: parse_clip_name(clip) for clip in clips}
    for clip, name in names.items():
        if section is not None and section_word(clip) and name.section != section:
            raise InputError(f"{path}: {clip!r} is of another section: take it away")
        if not name.label:
            raise InputError(
                f"{path}: {clip!r} is called neither normal nor anomaly: "
                "give the ground truth (--ground-truth)"
            )
    return GroundTruth(
        is_anomaly={clip: name.label == "anomaly" for clip, name in names.items()},
        is_target={clip: name.domain == "target" for clip, name in names.items()},
        clip_of={clip: clip for clip in names},
    )


def truth_from_files(data: Path) -> GroundTruth:
    """What a file in `ground_truth_data` and those of its name beside it tell.

    `ground_truth_attributes` gives clips the names that they got later (in 2022 by
    tables with a header, in a folder for each machine), and `ground_truth_domain` their
    domains (1: target); without it, the names tell them. Where a later name contradicts
    label or domain, as with 881 clips of 2022's ToyCar and ToyTrain, it is another
    clip's: no clip of the section then goes by its later name.

    Raises:
        InputError: a file that `read_rows` or `flags_by_clip` refuses, or a clip whose
            domain neither file nor name tells, or whose name contradicts them.
    """
    domain = data.parent.with_name("ground_truth_domain") / data.name
    rows = read_rows(data)
    first_names = {clip: clip for clip in rows}
    is_anomaly = flags_by_clip(data, rows, first_names)
    later = _later_names(data)
    clip_of = _with_later_names(
        data, ((clip_stem(a), clip) for clip in rows for a in later.get(clip, [clip]))
    )
    if domain.exists():
        is_target = flags_by_clip(domain, read_rows(domain), clip_of)
    else:
        is_target = _domains_from_names(domain, clip_of)
    truth = GroundTruth(is_anomaly, is_target, clip_of)
    name = _contradiction(truth)
    if name in rows:
        raise InputError(
            f"{data}: {name!r} is called otherwise than its label or domain says: mend "
            "the ground truth"
        )
    return truth if name is None else truth._replace(clip_of=first_names)


def _later_names(data: Path) -> dict[str, list[str]]:
    """The names that clips got later, where there are any."""
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
            raise InputError(f"{path}: {line[0]!r} has no later name: add it")
    refuse_doubled(path, (clip_stem(line[0]) for line in lines))
    # The last field: a clip may have fewer attributes than the header.
    return {clip_stem(line[0]): line[-1:] for line in lines}


def _domains_from_names(path: Path, clip_of: dict[str, str]) -> dict[str, bool]:
    domains = {clip: parse_clip_name(name).domain for name, clip in clip_of.items()}
    for clip, domain in domains.items():
        if not domain:
            raise InputError(f"{path} is missing, and {clip!r} tells no domain: add it")
    return {clip: domain == "target" for clip, domain in domains.items()}
