"""The networks: encoder, decoder, the Gamma and its gradient, the loss."""
