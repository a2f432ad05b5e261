"""The network: encoder, decoder, the Gamma posterior and its gradient, the loss."""
