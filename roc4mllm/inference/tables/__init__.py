"""Rows of scores, written and read."""
