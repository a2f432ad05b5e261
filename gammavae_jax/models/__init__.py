"""Defines the model: encoder, decoder, Gamma posterior and its gradient, and loss."""
