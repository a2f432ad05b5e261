"""Trains the models: splits the clips and runs training steps and epochs."""
