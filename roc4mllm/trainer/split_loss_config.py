"""
Options of split-loss training: transformers' own, the weights of the losses, and learning rates by part of the model.

The defaults are those of the paper (ROC4MLLM, AAAI 2026): smooth-L1 beside the text loss, learning rate 2e-5, batches
of 16, two epochs.
"""

import math
from dataclasses import dataclass, field

from transformers import TrainingArguments

from ..modeling_roc4mllm.long_tail_aesthetics import MIXUP, checked_mixup

LOSSES = ("text", "smooth_l1", "ce", "emd", "similarity")
SCORE_LOSSES = ("smooth_l1", "ce", "emd")  # which teach the score head
PRESETS = {
    "paper": {"text": 1.0, "smooth_l1": 1.0, "ce": 0.0, "emd": 0.0},
    "paper-ava": {"text": 1.0, "smooth_l1": 1.0, "ce": 1.0, "emd": 0.0},
    "authors-script": {"text": 1.0, "smooth_l1": 0.0, "ce": 10.0, "emd": 0.0},
    "emd": {"text": 0.0, "smooth_l1": 0.0, "ce": 0.0, "emd": 1.0},
}


@dataclass
class SplitLossConfig(TrainingArguments):
    r"""
    [`~transformers.TrainingArguments`] for [`SplitLossTrainer`].

    Args:
        loss_preset (`str`, *optional*, defaults to `"paper"`):
            Weights of the losses: `"paper"` is text and smooth-L1; `"paper-ava"` adds the cross-entropy against vote
            distributions, as the paper does on AVA; `"authors-script"` is text and ten times the cross-entropy, as
            in the authors' published command; `"emd"` is the earth mover's distance alone, for the families that
            score a picture without a language model.
        text_weight, smooth_l1_weight, ce_weight, emd_weight (`float`, *optional*):
            Weight of one loss, at least 0, instead of the preset's: cross-entropy of the text, smooth-L1 between
            scores (in units of the score range, which is 1–10 in the paper: on 0–100 it counts ten times as much),
            cross-entropy and earth mover's distance between distributions.
        similarity_weight (`float`, *optional*, defaults to 0.0):
            Weight of ELTA's similarity loss, which draws features of pictures together that are rated alike.
        mixup_pairs (`int`, *optional*, defaults to 0):
            Rows that ELTA's tail mixup adds to each forward pass for each attribute: two pictures of the batch, the
            first mostly of rare ratings, the second rated like it, mixed where the score head reads them. They count
            in the score losses as other rows do. ELTA adds one.
        mixup_tau_1, mixup_tau_2 (`float`, *optional*, default to 0.5 and 5.0):
            Temperatures of the two draws, for scores from 1 to 10; other ranges are brought there. A smaller `tau_1`
            draws more from the tails, a larger `tau_2` neighbours nearer in score.
        self_training (`int`, *optional*, defaults to 0):
            Rounds of ELTA's self-training that [`self_train`] adds to a training, each with pictures without ratings
            that the scorer so far is sure of.
        sharpening (`float`, *optional*, defaults to 1.0):
            ELTA's beta there: how much sharper predictions become with each point, on a range of 1 to 10, that they
            lie from their mean, before they are judged. At least 0.
        pick_threshold (`float`, *optional*, defaults to 0.8):
            Share of a level, between 0 and 1, above which a sharpened prediction is sure enough to learn from.
        learning_rates (`dict[str, float]`, *optional*):
            Learning rate of a part of the model, where it differs from `learning_rate`. A ROC4MLLM has `vision_tower`,
            `connector`, `language_model` and `score_head`, a TANet `perception`, `theme`, `colour` and `score_head`;
            a model's `part_prefixes` name its parts.
        freeze (`list[str]`, *optional*):
            Parts that are not trained.

    Raises:
        ValueError: If a weight is negative, all are 0, a preset is unknown, an option of self-training is out of its
            range, or an option of the parent does not fit these losses.
    """

    learning_rate: float = field(default=2e-5, metadata={"help": "Initial learning rate."})
    num_train_epochs: float = field(default=2.0, metadata={"help": "Passes over the training pictures."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Pictures per device and forward pass."})
    # rows hold pictures and ratings, which only the collator turns into what `forward` takes
    remove_unused_columns: bool = field(default=False, metadata={"help": "Keep it off: the collator reads all."})
    label_names: list[str] | None = field(default_factory=lambda: ["scores"], metadata={"help": "The targets."})
    loss_preset: str = field(default="paper", metadata={"help": f"Weights of the losses: {', '.join(PRESETS)}."})
    text_weight: float | None = field(default=None, metadata={"help": "Weight of the text loss."})
    smooth_l1_weight: float | None = field(default=None, metadata={"help": "Weight of smooth-L1 between scores."})
    ce_weight: float | None = field(default=None, metadata={"help": "Weight of the cross-entropy of distributions."})
    emd_weight: float | None = field(default=None, metadata={"help": "Weight of the earth mover's distance."})
    similarity_weight: float = field(default=0.0, metadata={"help": "Weight of ELTA's similarity loss."})
    mixup_pairs: int = field(default=0, metadata={"help": "Rows of ELTA's tail mixup per attribute and forward pass."})
    mixup_tau_1: float = field(default=MIXUP["tau_1"], metadata={"help": "The smaller, the more from the tails."})
    mixup_tau_2: float = field(default=MIXUP["tau_2"], metadata={"help": "The larger, the nearer the second picture."})
    self_training: int = field(default=0, metadata={"help": "Rounds of ELTA's self-training after the training."})
    sharpening: float = field(default=1.0, metadata={"help": "ELTA's beta: the larger, the surer predictions become."})
    pick_threshold: float = field(default=0.8, metadata={"help": "Share of a level that makes a prediction sure."})
    learning_rates: dict | None = field(default=None, metadata={"help": "Learning rate by part of the model."})
    freeze: list[str] | None = field(default=None, metadata={"help": "Parts of the model that are not trained."})

    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "learning_rates"]  # which may come as JSON

    def __post_init__(self):
        super().__post_init__()
        if self.ddp_find_unused_parameters is None:
            # Towers have layers that are never read (the last of LLaVA's). The Trainer looks for them only without
            # checkpointing, because of its reentrant kind, which is no longer the default.
            self.ddp_find_unused_parameters = not (self.activation_checkpointing_kwargs or {}).get("use_reentrant")
        if self.loss_preset not in PRESETS:
            raise ValueError(f"loss_preset must be one of {', '.join(PRESETS)}; got {self.loss_preset!r}.")
        self._check_losses()
        if self.self_training < 0 or not (0 < self.pick_threshold < 1 and 0 <= self.sharpening < math.inf):
            raise ValueError(
                "self_training must be 0 or more rounds, pick_threshold lie between 0 and 1 and sharpening be at "
                f"least 0; got {self.self_training}, {self.pick_threshold} and {self.sharpening}."
            )
        for part, rate in (self.learning_rates or {}).items():
            if not isinstance(rate, int | float) or not 0 <= rate < math.inf:
                raise ValueError(f"learning_rates must be numbers of at least 0; got {rate!r} for {part!r}.")

    def _check_losses(self) -> None:
        weights = self.loss_weights
        if not all(0 <= weight < math.inf for weight in weights.values()) or not any(weights.values()):
            raise ValueError(f"Loss weights must be at least 0 and one of them above; got {weights}.")
        if (checked_mixup(self.tail_mixup) or weights["similarity"]) and self.per_device_train_batch_size < 2:
            raise ValueError(
                "mixup_pairs and similarity_weight need pictures that are beside each other in a forward pass: "
                f"per_device_train_batch_size must be at least 2, got {self.per_device_train_batch_size}."
            )
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns would drop the pictures, which the collator reads: leave it off.")
        if self.label_smoothing_factor:
            raise ValueError(
                f"label_smoothing_factor={self.label_smoothing_factor} smooths classes of text, and would be applied "
                "to score logits here. Leave it at 0; votes or a std already make soft targets."
            )

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weights by the names that `forward` takes: a loss's own, or else the preset's (which may be searched)."""
        own = {name: getattr(self, f"{name}_weight") for name in LOSSES}
        preset = PRESETS[self.loss_preset]
        return {name: preset.get(name, 0.0) if own[name] is None else own[name] for name in LOSSES}

    @property
    def tail_mixup(self) -> dict[str, float] | None:
        """Options of tail mixup as `forward` takes them."""
        options = {"pairs": self.mixup_pairs, "tau_1": self.mixup_tau_1, "tau_2": self.mixup_tau_2}
        return options if self.mixup_pairs else None

    @property
    def n_gpu(self) -> int:
        """
        Devices that this process feeds: one at most. `nn.DataParallel`, which the Trainer would put round the model
        for several, averages losses over parts of different sizes; `accelerate launch` starts a process per device.
        """
        return min(super().n_gpu, 1)


__all__ = ["PRESETS", "SplitLossConfig"]
