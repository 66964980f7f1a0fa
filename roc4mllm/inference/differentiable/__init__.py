"""Scores with a gradient to the pixels."""
