"""Scoring with a loaded model: one call, files, tables, data frameworks."""

from .image_aesthetics_scorer import ImageAestheticsScorer

__all__ = ["ImageAestheticsScorer"]
