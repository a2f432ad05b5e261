"""Catalogues and downloads the challenge's archives of recordings."""
