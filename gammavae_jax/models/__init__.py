"""The network: encoder and decoder, Gamma posterior and its gradient, and the loss."""
