"""Anomalous sound detection for machines with a Gamma variational autoencoder."""
