"""Processors, picture reading and the pipeline. Every file of this folder travels to Hub repositories."""
