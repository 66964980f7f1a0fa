"""A metric for the `evaluate` library; `evaluate.load` takes the path of this folder."""
