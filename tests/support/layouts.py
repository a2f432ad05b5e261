"""Miniature data sets in each year's layout: a few short clips of noise.

The meaning of each name is stated here explicitly; it is not parsed from the name.
"""

import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

RATE = 16000
N_SAMPLES = RATE // 4
DOMAINS, LABELS = ("source", "target"), ("normal", "anomaly")


class Group(NamedTuple):
    """Clips of one kind, in one folder; every section has them."""

    folder: str
    name: str  # with {section} and {index}
    count: int
    kind: tuple[str, str, str] | None  # split, domain, label; None if unused
    first: int = 0


class Machine(NamedTuple):
    sections: tuple[str, ...]
    groups: list[Group]

    @property
    def counts(self) -> dict[tuple[str, str, str], int]:
        """The number of clips of each kind in a section."""
        return {
            kind: sum(group.count for group in self.groups if group.kind == kind)
            for kind in {group.kind for group in self.groups}
            if kind is not None
        }


@dataclass(frozen=True)
class Layout:
    machines: dict[str, Machine]
    folder: str = "dev_data/raw"  # parent of the machine folders
    data_root: str = "dev_data/raw"  # what the user passes
    n_channels: int = 1

    @property
    def units(self) -> dict[tuple[str, str], dict[tuple[str, str, str], int]]:
        """The number of clips of each kind, by machine type and section."""
        return {
            (name, section): machine.counts
            for name, machine in self.machines.items()
            for section in machine.sections
        }

    @property
    def is_labelled(self) -> bool:
        kinds = [kind for counts in self.units.values() for kind in counts]
        return all(label for _, _, label in kinds)


def build(layout: Layout, root: Path) -> Path:
    """Write the recordings and attribute files; return the data root."""
    for name, machine in layout.machines.items():
        folder = root / layout.folder / name
        for group in machine.groups:
            (folder / group.folder).mkdir(parents=True, exist_ok=True)
            for section in machine.sections:
                _write_group(folder, group, section, layout.n_channels)
        for section in machine.sections:
            (folder / f"attributes_{section}.csv").write_text("file_name,d1p,d1v\n")
    return root / layout.data_root


def _write_group(folder: Path, group: Group, section: str, n_channels: int) -> None:
    for index in range(group.first, group.first + group.count):
        name = group.name.format(section=section, index=index) + ".wav"
        rng = np.random.default_rng(zlib.crc32(f"{folder.name}/{name}".encode()))
        noise = 0.1 * rng.standard_normal((N_SAMPLES, n_channels))
        soundfile.write(folder / group.folder / name, noise, RATE)


def training(attributes: str = "_vel_8", first: int = 0) -> list[Group]:
    return [
        Group(
            "train",
            f"section_{{section}}_{domain}_train_normal_{{index:04d}}{attributes}",
            count,
            ("train", domain, "normal"),
            first,
        )
        for domain, count in (("source", 9), ("target", 2))
    ]


def labelled(
    folder: str = "test",
    attributes: str = "_vel_8",
    first: int = 0,
    word: str = "test_",
    domains: tuple[str, ...] = DOMAINS,
    is_used: bool = True,
) -> list[Group]:
    return [
        Group(
            folder,
            f"section_{{section}}_{domain}_{word}{label}_{{index:04d}}{attributes}",
            2,
            ("test", domain, label) if is_used else None,
            first,
        )
        for domain in domains
        for label in LABELS
    ]


def anonymous(first: int = 0, is_used: bool = True) -> Group:
    kind = ("test", "", "") if is_used else None
    return Group("test", "section_{section}_{index:04d}", 8, kind, first)


TRAINING_2020 = Group(
    "train", "normal_id_{section}_{index:08d}", 9, ("train", "source", "normal")
)
TESTING_2020 = [
    Group("test", f"{label}_id_{{section}}_{{index:08d}}", 3, ("test", "source", label))
    for label in LABELS
]
SPLIT_2021 = [
    *labelled("source_test", "", domains=("source",)),
    *labelled("target_test", "", domains=("target",)),
]
# The baseline copies these into `test`; each must be counted only once.
COPIES_2021 = labelled("test", "", is_used=False)
SUPPLEMENTAL = Group("supplemental", "section_{section}_machine_{index:04d}_", 3, None)


in_eval_data = partial(Layout, folder="eval_data/raw", data_root="eval_data")


def evaluation(machine: str, sections: tuple[str, ...], *groups: Group) -> Layout:
    return in_eval_data({machine: Machine(sections, [*training(), *groups])})


# A whole run is tested on each of these. All except 2020 share one run, so their
# machines have different names.
LAYOUTS = {
    "2020": Layout(
        {
            "ToyCar": Machine(("01", "04"), [TRAINING_2020, *TESTING_2020]),
            "fan": Machine(("00",), [TRAINING_2020, *TESTING_2020]),
        }
    ),
    "2021": Layout({"pump": Machine(("00", "02"), [*training(), *SPLIT_2021])}),
    "2022": Layout(
        {"bearing": Machine(("00", "01", "02"), [*training(), *labelled()])},
        data_root="dev_data",
    ),
    "2023": Layout(
        {
            name: Machine(("00",), [*training(), *labelled()])
            for name in ("fan", "valve")
        }
    ),
    "2024": in_eval_data(
        {
            name: Machine(
                ("00",),
                [
                    *training(attributes, first=1),
                    anonymous(first=1, is_used=False),
                    *labelled("test_rename", attributes, first=1, word=word),
                ],
            )
            for name, attributes, word in (
                ("AirCompressor", "_noAttribute", "test_"),
                ("RoboticArm", "_weight15_BckgF", ""),
            )
        }
    ),
    "2025": Layout(
        {
            "ToyTrain": Machine(("00",), [*training(), *labelled(), SUPPLEMENTAL]),
            "slider": Machine(
                ("00",),
                [*training("_noAttribute"), *labelled("test", "_noAttribute")],
            ),
        }
    ),
    "2026": Layout(
        {"ToyCarEmu": Machine(("00",), [*training(), *labelled(), SUPPLEMENTAL])},
        folder=".",
        data_root=".",
        n_channels=2,
    ),
    "evaluation": evaluation("grinder", ("00",), anonymous()),
    "evaluation, renamed": evaluation(
        "bandsaw", ("00",), anonymous(is_used=False), *labelled("test_rename")
    ),
}
# These differ from the ones above only in names and folders.
MORE_LAYOUTS = {
    "2020 evaluation": in_eval_data(
        {
            "ToyConveyor": Machine(
                ("04", "06"),
                [
                    TRAINING_2020,
                    Group(
                        "test", "id_{section}_{index:08d}", 6, ("test", "source", "")
                    ),
                ],
            )
        }
    ),
    "2021, merged": Layout(
        {"pump": Machine(("00", "02"), [*training(), *SPLIT_2021, *COPIES_2021])}
    ),
    "2021, only merged": Layout(
        {"pump": Machine(("00", "02"), [*training(), *labelled("test", "")])}
    ),
    "2021 evaluation": evaluation(
        "gearbox",
        ("03", "05"),
        *(
            Group(
                f"{domain}_test",
                f"section_{{section}}_{domain}_test_{{index:04d}}",
                4,
                ("test", domain, ""),
            )
            for domain in DOMAINS
        ),
    ),
    "2022 evaluation": evaluation("bearing", ("03", "04", "05"), anonymous()),
    "attributes like other words": Layout(
        {
            "AutoTrash": Machine(
                ("00",),
                [
                    *training("_id_7_source_anomaly"),
                    *labelled("test", "_id_7_target_normal"),
                ],
            )
        }
    ),
}
