"""Converting the authors' checkpoints."""
