"""Rejects samples that are not finite, or whose full scale is not 1.

Files and arrays of floats are decided alike, by their samples: nothing else says
whether 16-bit samples were stored as floats without being divided by 32768.
"""

import numpy as np
from jaxtyping import Float32

from gammavae_jax.errors import InputError

_LOUDEST = 1e9  # the power of much larger samples overflows float32
_MOST = 100.0  # full scale is 1; unscaled integers are far above this


class SampleScale:
    """A check of a recording's float samples, made block by block.

    Samples may exceed full scale, as they do after mixing or a filter. Another scale is
    certain as soon as a sample exceeds 100, or as all samples so far are whole numbers
    and one of them exceeds 1. A block is refused once this holds, so that no block of
    an unscaled recording is scored before the recording is refused.

    Args:
        name: the recording's name in messages.
    """

    def __init__(self, name: str):
        self._name = name
        self._n_before, self._most, self._is_whole = 0, 0.0, True

    def check(self, block: Float32[np.ndarray, "sample *channel"]) -> None:
        """Check the recording's next samples.

        Raises:
            InputError: a sample is not finite, or full scale is not 1.
        """
        self._require_finite(block)
        self._n_before += len(block)
        largest = max(block.max(initial=0), -block.min(initial=0))
        self._most = max(self._most, float(largest))
        self._is_whole = self._is_whole and bool((block == np.rint(block)).all())
        if self._most > _MOST or (self._most > 1 and self._is_whole):
            raise InputError(
                f"{self._name}: the samples reach {self._most:g}, but full scale must "
                "be 1: divide the samples by their full scale, such as 32768 for "
                "16-bit samples"
            )

    def _require_finite(self, block: Float32[np.ndarray, "sample *channel"]) -> None:
        # abs() would copy the whole block. A comparison with NaN is false.
        is_sound = (block > -_LOUDEST) & (block < _LOUDEST)
        if not is_sound.all():
            first = np.unravel_index(np.argmin(is_sound), is_sound.shape)
            raise InputError(
                f"{self._name}: sample {self._n_before + first[0]} is {block[first]}: "
                "repair or replace the file"
            )
