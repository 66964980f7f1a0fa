"""Scoring with a loaded model: one call, files, tables."""
