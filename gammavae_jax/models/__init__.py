"""Defines the network: encoder, decoder, Gamma posterior and its gradient, and loss."""
