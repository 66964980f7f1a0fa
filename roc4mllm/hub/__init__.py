"""Converting the authors' checkpoints, and publishing models and data sets."""
