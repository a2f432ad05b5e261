"""The windows of a log-mel, as the official baseline builds them."""

import numpy as np
from jaxtyping import Float


def windows(
    spectrogram: Float[np.ndarray, "frame mel"], n_context: int
) -> Float[np.ndarray, "window feature"]:
    """Return all windows of `n_context` successive frames, flattened frame by frame.

    Source: the official baseline's 640-value vectors. Window `w` starts at frame `w`.
    """
    view = np.lib.stride_tricks.sliding_window_view(spectrogram, n_context, axis=0)
    return view.swapaxes(1, 2).reshape(len(view), -1)
