"""The network: encoder, decoder, Gamma posterior with its gradient, and loss."""
