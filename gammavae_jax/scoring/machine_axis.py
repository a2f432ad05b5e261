"""Selects some machines of a detector, or replaces them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from gammavae_jax.scoring.detector import Detector


def select_machines(detector: Detector, machines: Sequence[int]) -> Detector:
    """Return a detector that contains only the machines at these indices."""
    chosen = list(machines)

    def select(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[:, chosen], tree)

    return replace(
        detector,
        machines=tuple(detector.machines[m] for m in chosen),
        scorer=select(detector.scorer),
        references=select(dict(detector.references)),
        calibration=select(dict(detector.calibration)),
        weights=detector.weights[chosen],
        thresholds=select(dict(detector.thresholds)),
    )


def replace_machines(
    detector: Detector, machines: Sequence[int], part: Detector
) -> Detector:
    """Return the detector with new values for the machines at these indices.

    The values of the other machines do not change, although their padding may grow.

    Args:
        detector: the detector.
        machines: the indices, in increasing order.
        part: a detector for these machines, with the same configuration.
    """
    chosen = list(machines)
    if len(chosen) == len(detector.machines):
        return part

    def put(old: Any, new: Any, padding: Any = 0) -> Any:
        """Replace the chosen machines in an array with axes `member machine ...`."""
        shape = *old.shape[:2], *np.maximum(old.shape[2:], new.shape[2:])
        made = np.full(shape, padding, old.dtype)
        made[(..., *map(slice, old.shape[2:]))] = old
        made[:, chosen] = padding
        made[(slice(None), chosen, *map(slice, new.shape[2:]))] = new
        return made

    def put_all(old: Mapping[str, Any], new: Mapping[str, Any], padding: Any) -> Any:
        return {name: put(old[name], new[name], padding) for name in new}

    references = {
        name: jax.tree.map(put, detector.references[name], reference)._replace(
            parents=put(detector.references[name].parents, reference.parents, -1)
        )
        for name, reference in part.references.items()
    }
    return replace(
        detector,
        scorer=jax.tree.map(put, detector.scorer, part.scorer),
        references=references,
        calibration=put_all(detector.calibration, part.calibration, np.nan),
        weights=put(detector.weights[None], part.weights[None])[0],
        thresholds=put_all(detector.thresholds, part.thresholds, np.nan),
        conditions={**detector.conditions, **part.conditions},
    )
