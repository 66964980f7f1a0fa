"""
The recipe of `roc4mllm-tiny`: what it is taught, and how.

- lessons without labels: each image token tells the descriptors of its patch, the score state those of the picture
- lessons with labels: vote distributions, half the photograph's own, half what a kernel machine (`Teacher`) expects
  for the very copy of it that is shown; the teacher was fitted to the same training photographs and to nothing else
- text: the scoring sentence and one sentence on light, colour and detail, by the package's own text loss
- Muon on matrices, which learns the descriptors in a third of AdamW's steps; AdamW on the rest; averaged weights

Everything a run learns from, normalisations included, is taken from the photographs it is given.
Names of axes: P photographs, V views of a photograph, B batch, D descriptors, H hidden, K components, N levels.
"""

import copy
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from tiny_descriptors import COMMENTS, Teacher, comment
from tiny_model import PIXEL_MEAN, PIXEL_STD, WIDTH, build_model, build_processor
from tiny_photographs import SIZE, VIEWS, Photographs, to_pictures
from torch import nn
from torch.nn import functional

from roc4mllm import ROC4MLLMForImageAesthetics, ROC4MLLMProcessor

EPOCHS, BATCH = 30, 16
MUON_RATE, ADAM_RATE, WEIGHT_DECAY, WARM_UP, AVERAGING = 0.04, 1.5e-3, 0.05, 0.1, 0.99
TOKEN_DROPOUT = 0.1  # image tokens hidden from the text model in training
TEACHER_SHARE = 0.5  # of the target; the rest are the photograph's own votes
TEXT_WEIGHT = 0.2
LOCAL_COMPONENTS, GLOBAL_COMPONENTS = 32, 96  # of colour histograms per patch; of all descriptors per picture


# ---- lessons --------------------------------------------------------------------------------------------------------


class Lessons(NamedTuple):
    """Targets of every view of the training photographs."""

    votes: torch.Tensor  # (P, V, N), shares
    whole: torch.Tensor  # (P, V, K), components of the global descriptors
    patches: torch.Tensor  # (P, V, 64, K), float16
    sentences: torch.Tensor  # (P, V), index into COMMENTS


@torch.no_grad()
def make_lessons(photos: Photographs) -> Lessons:
    """What the views of these photographs teach; every constant is fitted to these photographs."""
    count, views = photos.views.shape[:2]
    scales = [(group[:, 0].mean(0), group[:, 0].std(0) + 1e-6) for group in photos.groups]
    groups = [(group - mean) / std for group, (mean, std) in zip(photos.groups, scales, strict=True)]
    rows = np.repeat(np.arange(count), 2)
    teacher = Teacher([group[:, :2].flatten(0, 1) for group in groups], photos.shares.repeat_interleave(2, 0), rows)
    taught = torch.stack([teacher.predict([group[:, view] for group in groups]) for view in range(views)], dim=1)
    votes = TEACHER_SHARE * taught + (1 - TEACHER_SHARE) * photos.shares[:, None]  # (P, V, N)
    joined = torch.cat([group / group.shape[-1] ** 0.5 for group in groups], dim=-1)  # (P, V, D)
    sentences = [COMMENTS.index(line) for line in comment([group.flatten(0, 1) for group in photos.groups])]
    return Lessons(
        votes,
        components(joined.flatten(0, 1), GLOBAL_COMPONENTS).reshape(count, views, -1),
        patch_targets(photos.local),
        torch.tensor(sentences).reshape(count, views),
    )


def components(values: torch.Tensor, count: int) -> torch.Tensor:
    """Principal components (B, K), scaled by the root of their spread: the strong ones count more, but not alone."""
    covariance = torch.cov(values.T.double())
    directions = torch.linalg.eigh(covariance).eigenvectors[:, -count:].float()
    projected = (values - values.mean(0)) @ directions
    spread = projected.std(0)
    return (projected / (spread * spread.max()).sqrt()).clamp(-4, 4)


def patch_targets(local: torch.Tensor) -> torch.Tensor:
    """Standardised local descriptors, the colour histogram of a patch as components, (P, V, 64, K) float16."""
    flat = local.flatten(0, 2).float()  # (P · V · 64, D)
    plain, colours = flat[:, :-144], flat[:, -144:]
    plain = ((plain - plain.mean(0)) / (plain.std(0) + 1e-6)).clamp(-4, 4)
    targets = torch.cat([plain, components(colours, LOCAL_COMPONENTS)], dim=1)
    return targets.half().reshape(*local.shape[:3], -1)


# ---- training -------------------------------------------------------------------------------------------------------


class Student(nn.Module):
    """The scorer with two linear readouts that only training needs, of its score state and of its image tokens."""

    def __init__(self, model: ROC4MLLMForImageAesthetics, lessons: Lessons):
        super().__init__()
        self.model = model
        self.whole = nn.Linear(WIDTH, lessons.whole.shape[-1])
        self.patches = nn.Linear(WIDTH, lessons.patches.shape[-1])
        self.seen: dict[str, torch.Tensor] = {}
        model.score_head.register_forward_pre_hook(lambda _, inputs: self.seen.update(state=inputs[0]))
        llava = model.backbone.model
        llava.vision_tower.register_forward_hook(lambda *call: self.seen.update(tokens=call[2].last_hidden_state))
        llava.multi_modal_projector.register_forward_hook(lambda *call: hide_tokens(call[2], self.training))

    def forward(self, batch: dict, votes, whole, patches) -> torch.Tensor:
        """Sum of the four losses; descriptors by the share of their variance that stays unexplained."""
        weights = {"text": TEXT_WEIGHT, "smooth_l1": 0.0, "ce": 1.0}
        loss = self.model(**batch, votes=votes[:, None], loss_weights=weights).loss
        global_error = functional.mse_loss(self.whole(self.seen["state"]), whole) / whole.var(0).mean()
        return loss + global_error + functional.mse_loss(self.patches(self.seen["tokens"]), patches.float())


def hide_tokens(tokens: torch.Tensor, training: bool) -> torch.Tensor:
    """Image tokens (B, 64, H) with a share of them set to zero."""
    if not training:
        return tokens
    return tokens * functional.dropout(tokens.new_ones(tokens.shape[:2]), TOKEN_DROPOUT)[..., None]


def make_optimizers(student: Student, steps: int) -> tuple[list, list]:
    """Muon for the matrices between embedding and heads, AdamW for the rest; warm up, then a half cosine."""
    named = dict(student.model.backbone.named_parameters())
    matrices = [weight for name, weight in named.items() if weight.dim() == 2 and "embed" not in name]
    ours = {id(weight) for weight in matrices}
    rest = [weight for weight in student.parameters() if id(weight) not in ours]
    decayed = [{"params": [weight for weight in rest if weight.dim() > 1], "weight_decay": WEIGHT_DECAY}]
    decayed += [{"params": [weight for weight in rest if weight.dim() < 2], "weight_decay": 0.0}]
    optimizers = [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=WEIGHT_DECAY, momentum=0.9),
        torch.optim.AdamW(decayed, lr=ADAM_RATE, betas=(0.9, 0.98)),
    ]

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / (WARM_UP * steps)) * (0.5 + 0.5 * math.cos(math.pi * step / steps))

    return optimizers, [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]


def batches(count: int, generator: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Photograph and view of each row, every photograph once per round, without end."""
    order: list[int] = []
    while True:
        if len(order) < BATCH:
            order += generator.permutation(count).tolist()
        rows, order = np.array(order[:BATCH]), order[BATCH:]
        yield rows, generator.integers(0, VIEWS, BATCH)


def train(
    photos: Photographs, seed: int, epochs: int = EPOCHS
) -> tuple[ROC4MLLMForImageAesthetics, ROC4MLLMProcessor]:
    """A scorer trained on these photographs and nothing else, with its processor."""
    torch.manual_seed(seed)
    processor = build_processor()
    model = build_model(processor)
    lessons = make_lessons(photos)
    texts = training_texts(processor)
    average = copy.deepcopy(model)  # before the student puts its hooks on the model
    student = Student(model, lessons).train()
    steps = epochs * len(photos.views) // BATCH
    optimizers, schedules = make_optimizers(student, steps)
    for step, (rows, views) in zip(
        range(steps), batches(len(photos.views), np.random.default_rng(seed)), strict=False
    ):
        batch = {name: values[lessons.sentences[rows, views]] for name, values in texts.items()}
        batch["pixel_values"] = pixels(photos.views[rows, views])
        loss = student(batch, lessons.votes[rows, views], lessons.whole[rows, views], lessons.patches[rows, views])
        student.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        for part in (*optimizers, *schedules):
            part.step()
        update_average(average, model, min(AVERAGING, (1 + step) / (10 + step)))
        if step % 100 == 0 or step == steps - 1:
            print(f"  step {step}/{steps} loss {loss.item():.3f}", flush=True)
    average.config.score_head_trained = True
    return average.eval(), processor


def training_texts(processor: ROC4MLLMProcessor) -> dict[str, torch.Tensor]:
    """Prompt, scoring sentence and comment with labels, one row per comment."""
    texts = processor(images=[Image.new("RGB", (SIZE, SIZE))] * len(COMMENTS), comments=COMMENTS)
    return {name: values for name, values in texts.items() if name != "pixel_values"}


def pixels(views: np.ndarray) -> torch.Tensor:
    """What the processor makes of views (B, SIZE, SIZE, 3) uint8, (B, 3, SIZE, SIZE)."""
    return (to_pictures(views) - PIXEL_MEAN) / PIXEL_STD


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, share: float) -> None:
    """Move the averaged weights towards the present ones."""
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, 1 - share)


@torch.no_grad()
def predict(model: ROC4MLLMForImageAesthetics, processor: ROC4MLLMProcessor, photos: Photographs) -> np.ndarray:
    """Scores of photographs from their view 0, which is what the processor makes of them, (P,)."""
    text = processor(images=[Image.new("RGB", (SIZE, SIZE))])
    scores = []
    for chunk in np.array_split(photos.views[:, 0], math.ceil(len(photos.views) / 32)):
        batch = {name: values.expand(len(chunk), -1) for name, values in text.items() if name != "pixel_values"}
        scores.append(model(**batch, pixel_values=pixels(chunk)).scores[:, 0])
    return torch.cat(scores).numpy()
