"""Runs the targets of `fuzz/` on valid input with reproducible mutations.

Where atheris is installed, `fuzz/run.py` searches further, guided by code coverage.
"""

import random

import pytest

from fuzz.targets import TARGETS

N_MUTATIONS = 400
ODD_NUMBERS = [
    n.to_bytes(4, "little") for n in (0, 1, 0x7FFFFFFF, 0x80000000, 2**32 - 1)
]
ODD_TEXTS = [b"nan", b"inf", b"-", b"=", b'"', b"\n", b"\r\n", b"\0", b"..", b"\xff"]


def mutated(random_, seeds):
    """Return valid input with one to five mutations."""
    data = bytearray(random_.choice(seeds))
    for _ in range(random_.randint(1, 5)):
        at = random_.randrange(len(data) + 1)
        way = random_.randrange(6)
        if way == 0 and data:
            data[at % len(data)] ^= 1 << random_.randrange(8)
        elif way == 1:
            data[at : at + 4] = random_.choice(ODD_NUMBERS)
        elif way == 2:
            data[at:at] = random_.choice(ODD_TEXTS)
        elif way == 3:
            del data[at:]
        elif way == 4:
            del data[at : at + random_.randrange(20)]
        else:
            other = random_.choice(seeds)
            data[at:] = other[random_.randrange(len(other)) :]
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_accepts_valid_input(name):
    for seed in TARGETS[name].seeds():
        TARGETS[name].read(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_accepts_or_refuses_mutated_input_without_crashing(name):
    random_, seeds = random.Random(name), TARGETS[name].seeds()
    for _ in range(N_MUTATIONS):
        data = mutated(random_, seeds)
        try:
            TARGETS[name].read(data)
        except Exception as error:
            error.add_note(f"given {data!r}")
            raise
