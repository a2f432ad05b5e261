"""Explanations of clip scores, and the pages that show them."""
