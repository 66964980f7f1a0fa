"""Losses over a step: what they are divided by, counted over all batches, and their means for the log."""

from typing import Any

import torch

from ..modeling_roc4mllm.long_tail_aesthetics import mixed_count
from .split_loss_config import LOSSES

Counts = dict[str, torch.Tensor]


class LossMeans:
    """Sums of the parts of the loss and of what they are summed over, since the last `flush`."""

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.sums = {name: torch.zeros(()) for name in LOSSES}
        self.counts = {name: torch.zeros(()) for name in LOSSES}

    def add(self, outputs, divided_by: Counts, local: Counts) -> None:
        """Take the parts of one forward pass, which were divided by one count and are sums over another."""
        for name in LOSSES:
            value = outputs.get(f"{name}_loss")
            if value is not None:
                kind = "text" if name == "text" else "scores"
                self.sums[name] = self.sums[name].to(value.device) + value * divided_by[kind].to(value.device).clamp(1)
                self.counts[name] = self.counts[name].to(value.device) + local[kind].to(value.device)

    def flush(self, accelerator) -> dict[str, float]:
        """Means over all processes, by name; a part that nothing was summed over is left out."""
        totals = torch.stack([torch.stack([self.sums[name], self.counts[name]]) for name in LOSSES]).float()  # (5, 2)
        if accelerator.num_processes > 1:
            totals = accelerator.reduce(totals.to(accelerator.device), "sum")
        self.clear()
        return {name: total / count for name, (total, count) in zip(LOSSES, totals.tolist(), strict=True) if count}


def target_counts(batch: dict[str, Any], tail_mixup: dict[str, float] | None = None) -> Counts:
    """
    How many text tokens (`text`) and scores (`scores`, those of tail mixup included) of a batch have a target, as
    tensors on its device.
    """
    counts = {"text": torch.zeros(()), "scores": torch.zeros(())}
    if (labels := batch.get("labels")) is not None:
        counts["text"] = (labels[:, 1:] != -100).sum()  # the first token is predicted by none
    known = [~scores.isnan() for scores in [batch.get("scores")] if scores is not None]  # (B, A)
    known += [~votes.isnan().any(-1) for votes in [batch.get("votes")] if votes is not None]  # (B, A)
    if known:
        rated = torch.stack(known).any(0)  # (B, A)
        rated = rated & has_slot(batch.get("slot_attributes"), rated)
        counts["scores"] = rated.sum() + mixed_count(rated, tail_mixup)
    return counts


def has_slot(slot_attributes: torch.Tensor | None, rated: torch.Tensor) -> torch.Tensor:
    """Which attributes `(B, A)` the sentence of each row holds; all where nothing says otherwise."""
    if slot_attributes is None:
        return torch.ones_like(rated)
    attributes = torch.arange(rated.shape[1], device=rated.device)
    return (slot_attributes.to(rated.device).unsqueeze(-1) == attributes).any(1)  # (B, S, A) → (B, A)


__all__ = ["Counts", "LossMeans", "target_counts"]
