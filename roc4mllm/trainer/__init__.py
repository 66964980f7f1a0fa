"""Training and evaluation: split-loss Trainer, rated pictures, metrics, LoRA."""
