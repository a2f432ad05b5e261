"""The conversion of weights from and to PyTorch."""

import numpy as np
import pytest
from support.pytorch import from_pytorch, to_pytorch

from gammavae_jax.presets import preset


def test_weights_survive_conversion_to_our_variables_and_back(golden):
    stored = np.load(golden / "autoencoder.npz")
    config = preset("autoencoder").model
    state = {
        k.removeprefix("init/"): stored[k]
        for k in stored.files
        if k.startswith("init/")
    }
    back = to_pytorch(from_pytorch(state, config), config)
    assert back.keys() == {k for k in state if "num_batches" not in k}
    for name, value in back.items():
        np.testing.assert_array_equal(value, state[name])


def test_a_missing_weight_is_named():
    with pytest.raises(KeyError, match=r"encoder\.12\.weight"):
        from_pytorch({}, preset("autoencoder").model)
