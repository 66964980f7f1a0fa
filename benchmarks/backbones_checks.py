"""
What must hold for a backbone under ROC4MLLM: one function per check, each returns a number.

Two pictures carry the same sentence with two `[SCORE]`; one pass is compared with every other way to the scores.
Used by `backbones.py`; nothing to run here. Axes: B pictures (one per row), T tokens, A attributes, N levels.
"""

import math
import tempfile
import types

import torch
from backbones_inputs import Example, two_pictures
from transformers import AutoModel

from roc4mllm import ROC4MLLMForImageAesthetics
from roc4mllm.modeling_roc4mllm.backbone_roc4mllm import output_embedding_of

ATTRIBUTES = ["aesthetics", "composition"]


class Trial:
    """A scorer on a fresh tiny backbone, two pictures with their sentence, and the scores of one pass (B, A)."""

    def __init__(self, name: str, backbone, score_token_id: int | None):
        self.name = name
        # what the package reads of a processor: an id of its choice and the attributes
        chosen = types.SimpleNamespace(score_token_id=score_token_id, attributes=ATTRIBUTES)
        self.model = ROC4MLLMForImageAesthetics.from_backbone(
            backbone,
            processor=None if score_token_id is None else chosen,
            num_levels=5,
            score_range=(1, 5),
            attributes=ATTRIBUTES,
        )
        self.backbone = self.model.backbone
        torch.nn.init.normal_(self.model.score_head.weight, std=0.5)  # else all scores sit in the middle
        self.model.config.score_head_trained = True  # no warning
        self.example = self.on(two_pictures())
        self.scores = self.score(**self.example.inputs())

    def on(self, pictures) -> Example:
        return Example(self.name, self.backbone, self.model.config.score_token_id, pictures)

    @torch.no_grad()
    def score(self, **inputs) -> torch.Tensor:
        scores = self.model(**inputs).scores
        if scores.shape != (len(inputs["input_ids"]), len(ATTRIBUTES)) or not scores.isfinite().all():
            raise ValueError(f"scores are {scores}")
        return scores

    @torch.no_grad()
    def head_inputs(self, run) -> list[torch.Tensor]:
        """What the output embedding reads while `run` runs, taken without the package's own hook."""
        taken = []
        module = output_embedding_of(self.backbone)
        handle = module.register_forward_pre_hook(lambda module, args: taken.append(args[0]))
        try:
            run()
        finally:
            handle.remove()
        return taken

    @torch.no_grad()
    def full_logits(self) -> torch.Tensor:
        """The backbone's own logits at every token, (B, T, V); image states may stand in front of the text."""
        return self.backbone(**self.example.inputs()).logits[:, -self.example.ids.shape[1] :].float()

    def distance_at_slots(self, states: list[torch.Tensor]) -> float:
        """Largest distance of the scores read from the last position of each of `states` to those of one pass."""
        shares = [self.model.score_head(state[:, -1]).softmax(-1) for state in states]  # slots × (B, N)
        steps = torch.stack([share @ torch.linspace(1, 5, 5) for share in shares], dim=1)  # (B, slots)
        return distance(steps, self.scores[:, : len(states)])


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).detach().abs().max())


# ---- checks: each returns a number --------------------------------------------------------------------------------


def pictures_differ(trial: Trial) -> float:
    return distance(trial.scores[0], trial.scores[1])


def cut_before_slots(trial: Trial) -> float:
    """A pass over the ids that end just before a slot."""
    states = []
    for slot in trial.example.slots:
        inputs = trial.example.inputs(trial.example.ids[:, :slot])
        states += trial.head_inputs(lambda inputs=inputs: trial.backbone(**inputs, use_cache=False))[-1:]
    return trial.distance_at_slots(states)


def cached_steps(trial: Trial) -> float:
    """The backbone's own cached generation, made to write the sentence token by token as far as it can."""
    example, vocabulary = trial.example, trial.full_logits().shape[-1]
    slots = [slot for slot in example.slots if int(example.ids[0, :slot].max()) < vocabulary]
    # BLIP drops the last token of a prompt
    prompt = example.prompt + (trial.backbone.config.model_type == "blip")
    answer = example.ids[0, example.prompt : slots[-1] + 1].clamp(max=vocabulary - 1).tolist()
    forced = iter([token for token in answer for _ in example.ids])
    states = trial.head_inputs(
        lambda: trial.backbone.generate(
            **example.inputs(example.ids[:, :prompt]),
            prefix_allowed_tokens_fn=lambda row, ids: [next(forced)],
            max_new_tokens=len(answer),
            do_sample=False,
        )
    )
    return trial.distance_at_slots([states[slot - example.prompt] for slot in slots])


def later_tokens(trial: Trial) -> float:
    """Every token after the first slot changed, the second slot moved."""
    ids = trial.example.ids.clone()
    ids[:, trial.example.slots[0] + 1 :] = torch.tensor([31, 32, 33, trial.model.config.score_token_id])
    return distance(trial.score(**trial.example.inputs(ids))[:, 0], trial.scores[:, 0])


def right_padding(trial: Trial) -> float:
    padding = torch.zeros(2, 3, dtype=torch.long)
    ids = torch.cat([trial.example.ids, padding], dim=1)
    mask = torch.cat([torch.ones_like(trial.example.ids), padding], dim=1)
    return distance(trial.score(**trial.example.inputs(ids, mask)), trial.scores)


def batch_of_one(trial: Trial) -> float:
    singles = [trial.score(**trial.on(picture).inputs()) for picture in two_pictures().split(1)]
    return distance(torch.cat(singles), trial.scores)


def text_loss(trial: Trial) -> float:
    """Against cross entropy on the full logits; they lack [SCORE] where a backbone cuts them at its own vocabulary."""
    labels, logits = trial.example.ids.clone(), trial.full_logits()
    labels[:, : trial.example.prompt] = -100
    with torch.no_grad():
        loss = trial.model(**trial.example.inputs(), labels=labels).text_loss
    targets = labels[:, 1:].masked_fill(labels[:, 1:] >= logits.shape[-1], -100)
    return distance(loss, torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten()))


def gradients(trial: Trial) -> float:
    """Share of the backbone's tensors that a score sends a gradient into; 0 if head or embedding get none."""
    trial.model(**trial.example.inputs()).scores.sum().backward()
    ends = (trial.model.score_head.weight, trial.backbone.get_input_embeddings().weight)
    trained = [tensor for tensor in (*ends, *trial.backbone.parameters()) if tensor.requires_grad]
    reached = [tensor.grad is not None and bool(tensor.grad.any()) for tensor in trained]
    return sum(reached) / len(reached) * all(reached[: sum(end.requires_grad for end in ends)])


def generated_tokens(trial: Trial) -> float:
    prompt = trial.example.inputs(trial.example.ids[:, : trial.example.prompt])
    return trial.model.generate(**prompt, max_new_tokens=3, do_sample=False).shape[1]


def saved_and_loaded(trial: Trial) -> float:
    with tempfile.TemporaryDirectory() as folder:
        trial.model.save_pretrained(folder)
        trial.model = AutoModel.from_pretrained(folder).eval()
    return distance(trial.score(**trial.example.inputs()), trial.scores)


# name of the column: (check, lowest, highest)
CHECKS = {
    "pictures differ": (pictures_differ, 1e-3, math.inf),
    "cut before slots": (cut_before_slots, 0, 1e-4),
    "cached steps": (cached_steps, 0, 1e-4),
    "later tokens": (later_tokens, 0, 1e-6),
    "right padding": (right_padding, 0, 5e-5),
    "batch of one": (batch_of_one, 0, 5e-5),
    "text loss": (text_loss, 0, 1e-5),
    "gradients": (gradients, 1e-3, 1),
    "generate": (generated_tokens, 1, math.inf),
    "save and load": (saved_and_loaded, 0, 2e-6),
}
