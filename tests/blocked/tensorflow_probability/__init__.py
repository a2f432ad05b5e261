"""In the place of TensorFlow Probability where `GAMMAVAE_BLOCK_TFP` is set."""

raise ImportError("blocked")
