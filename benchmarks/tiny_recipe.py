"""
The recipe of `roc4mllm-tiny`: what it is taught, and how.

First the tower alone learns to see, without a rating: each of its tokens tells descriptors of its own patch, and how
light and dark are spread over the picture and which damage it has; all together they tell descriptors of the whole
picture. Then the tower is frozen, and connector, language
model and score head learn with [`SplitLossTrainer`]:

- beauty: vote distributions, half the photograph's own, half what a kernel machine (`Teacher`) expects for the very
  copy of it that is shown; the teacher was fitted to the same training photographs and to nothing else
- technical attributes: the known damage; damaged pictures have no label for beauty, which nobody rated
- text: the scoring sentence and one sentence on light, colour and detail
- one more lesson without labels: the state that tells beauty also tells descriptors of the whole picture
- Muon on matrices, which learns the descriptors in a third of AdamW's steps; AdamW on the rest; averaged weights

Everything a run learns from, normalisations included, is taken from the photographs it is given.
Names of axes: P photographs, V views of a photograph, B batch, D descriptors, H hidden, C components, K kinds of
damage, A attributes, N levels.
"""

import copy
import math
import tempfile
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from tiny_descriptors import COMMENTS
from tiny_lessons import GLOBAL_COMPONENTS, Lessons, make_lessons
from tiny_model import ATTRIBUTES, PIXEL_MEAN, PIXEL_STD, WIDTH, build_model, build_processor
from tiny_photographs import INTACT, LEVELS, SIZE, Photographs
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import TrainerCallback

from roc4mllm import ROC4MLLMForImageAesthetics, ROC4MLLMProcessor
from roc4mllm.trainer.split_loss_config import SplitLossConfig
from roc4mllm.trainer.split_loss_trainer import SplitLossTrainer

SEEING_STEPS, SEEING_BATCH = 1000, 16
STEPS, PAIRS = 800, 8  # a pair is an intact and a damaged view of one photograph
SEEING_RATE, MUON_RATE, ADAM_RATE = 0.02, 0.01, 1.5e-3  # Muon while seeing and while scoring; AdamW
WEIGHT_DECAY, WARM_UP, AVERAGING = 0.05, 0.1, 0.99
TOKEN_DROPOUT = 0.1  # image tokens hidden from the text model in training
TEXT_WEIGHT, SCORE_WEIGHT, BEAUTY_WEIGHT, WHOLE_WEIGHT = 0.2, 3.0, 2.0, 2.0


# ---- optimisers -----------------------------------------------------------------------------------------------------


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon on the matrices, AdamW on the rest, as one optimiser."""

    def __init__(self, matrices: Iterable[nn.Parameter], rest: Iterable[nn.Parameter], rate: float):
        rest = list(rest)
        self.muon = torch.optim.Muon(list(matrices), lr=rate, weight_decay=WEIGHT_DECAY, momentum=0.9)
        wide = {"params": [weight for weight in rest if weight.dim() > 1], "weight_decay": WEIGHT_DECAY}
        thin = {"params": [weight for weight in rest if weight.dim() < 2], "weight_decay": 0.0}
        self.adamw = torch.optim.AdamW([wide, thin], lr=ADAM_RATE, betas=(0.9, 0.98))
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], {})

    @torch.no_grad()
    def step(self, closure=None):
        """One step of both, with the rates that a schedule has written into the groups."""
        self.muon.param_groups, self.adamw.param_groups = self.param_groups[:1], self.param_groups[1:]
        self.muon.step()
        self.adamw.step()
        self.zero_grad()  # the readout of a lesson is no part of the model, whose gradients alone the Trainer clears


def make_optimizer(model: nn.Module, readouts: nn.Module, rate: float, steps: int):
    """Optimiser of what is trained, Muon with this rate, and its schedule: warm up, then a half cosine."""
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    matrices = [weight for name, weight in named if weight.dim() == 2 and "embed" not in name and "head" not in name]
    ours = {id(weight) for weight in matrices}
    rest = [weight for _, weight in named if id(weight) not in ours] + list(readouts.parameters())
    optimizer = MuonAndAdamW(matrices, rest, rate)

    def share(step: int) -> float:
        return min(1.0, (step + 1) / (WARM_UP * steps)) * (0.5 + 0.5 * math.cos(math.pi * step / steps))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)


# ---- learning to see ------------------------------------------------------------------------------------------------


def learn_to_see(tower: nn.Module, photos: Photographs, lessons: Lessons, seed: int) -> None:
    """Train the tower on what its tokens can tell of their patches, of the whole picture and of the damage to it."""
    told = ("blocks", "tones", "patches", "scores", "whole")
    readouts = nn.ModuleDict({name: nn.Linear(WIDTH, getattr(lessons, name).shape[-1]) for name in told})
    nn.init.zeros_(readouts["whole"].weight)
    optimizer, schedule = make_optimizer(tower, readouts, SEEING_RATE, SEEING_STEPS)
    generator = np.random.default_rng(seed)
    count, views = photos.scores.shape[:2]
    for step in range(SEEING_STEPS):
        rows = torch.from_numpy(generator.integers(0, count, SEEING_BATCH))
        shown = generator.integers(0, views, SEEING_BATCH)
        shown[: SEEING_BATCH // 2] = generator.integers(INTACT, views, SEEING_BATCH // 2)
        chosen = rows, torch.from_numpy(shown)
        tokens = tower(pixels(photos.views[chosen])).last_hidden_state.unflatten(0, (SEEING_BATCH, 2))  # (B, 2, 64, H)
        loss = token_loss(tokens, readouts, lessons, *chosen)
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"  seeing {step + 1}/{SEEING_STEPS} loss {loss.item():.3f}", flush=True)


def token_loss(tokens, readouts, lessons: Lessons, rows: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
    """Error of blocks, of the patches of intact pictures, of the whole, and of tones and damage as each token sees."""
    loss = functional.mse_loss(readouts["blocks"](tokens), lessons.blocks[rows, views].float())
    tones = readouts["tones"](tokens)  # (B, 2, 64, D), each of them those of the whole picture
    loss = loss + functional.mse_loss(tones, lessons.tones[rows, views][:, None, None].expand_as(tones))
    loss = loss + functional.mse_loss(readouts["whole"](tokens[:, 0].mean(1)), lessons.whole[rows, views])
    if (intact := views < INTACT).any():
        target = lessons.patches[rows[intact], views[intact]].float()
        loss = loss + functional.mse_loss(readouts["patches"](tokens[intact, 0]), target)
    scores = lessons.scores[rows, views]  # (B, K)
    damage = (3 - scores.nan_to_num(100) * 0.03)[:, None, None]  # 0 to 3
    errors = functional.smooth_l1_loss(told := readouts["scores"](tokens), damage.expand_as(told), reduction="none")
    return loss + errors.mean((1, 2))[~scores.isnan()].mean()


# ---- learning to score ----------------------------------------------------------------------------------------------


class PairedViews(Dataset):
    """An intact and a damaged view of each photograph, as rows of a batch; each time other ones."""

    def __init__(self, photos: Photographs, lessons: Lessons, texts: dict[str, torch.Tensor], seed: int):
        self.photos, self.lessons, self.texts = photos, lessons, texts
        self.generator = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.photos.views)

    def __getitem__(self, index: int) -> list[dict[str, torch.Tensor]]:
        views = self.photos.views.shape[1]
        return [self.row(index, int(self.generator.integers(*ends))) for ends in ((0, INTACT), (INTACT, views))]

    def row(self, index: int, view: int) -> dict[str, torch.Tensor]:
        """Tensors of one view. What a picture is not told about, or nobody knows, is NaN."""
        lessons, intact = self.lessons, view < INTACT
        unknown = torch.full((LEVELS,), math.nan)
        votes = lessons.votes[index, view] if intact else unknown
        row = {name: values[self.photos.sentences[index, view]] for name, values in self.texts.items()}
        return row | {
            "pixel_values": pixels(self.photos.views[index, view][None]),  # (2, 3, SIZE, SIZE)
            "scores": torch.cat([torch.full((1,), math.nan), self.asked(lessons.scores[index, view])]),  # (A,)
            "votes": torch.stack([votes, *[unknown] * (len(ATTRIBUTES) - 1)]),  # (A, N)
            "whole": lessons.whole[index, view],
        }

    def asked(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores of what is damaged and of one more attribute; else nearly every answer would be 100."""
        known = torch.where(~scores.isnan())[0].numpy()
        keep = (scores < 100).index_fill(0, torch.tensor([self.generator.choice(known)]), True)
        return scores.where(keep, math.nan)


def collate(pairs: list[list[dict[str, torch.Tensor]]]) -> dict[str, torch.Tensor]:
    """A batch of all rows."""
    rows = [row for pair in pairs for row in pair]
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    return batch | {"pixel_values": batch["pixel_values"].flatten(0, 1)}


class TinyTrainer(SplitLossTrainer):
    """
    Adds to the losses of text and scores the lesson on the whole picture, and the loss of beauty once more: one of six
    attributes, it has few labels in a batch.
    """

    def __init__(self, model: ROC4MLLMForImageAesthetics, args: SplitLossConfig, **kwargs):
        super().__init__(model=model, args=args, data_collator=collate, **kwargs)
        self.readout = nn.Linear(WIDTH, GLOBAL_COMPONENTS)
        nn.init.zeros_(self.readout.weight)
        self.spread = self.train_dataset.lessons.whole[:, :INTACT].flatten(0, 1).var(0).mean()
        self.states = torch.zeros(0)
        model.score_head.register_forward_pre_hook(lambda _, inputs: setattr(self, "states", inputs[0]))
        connector = model.backbone.model.multi_modal_projector
        connector.register_forward_hook(lambda module, _, tokens: hide_tokens(tokens, module.training))

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Ours, with its schedule."""
        self.optimizer, self.schedule = make_optimizer(self.model, self.readout, MUON_RATE, self.args.max_steps)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """Ours."""
        self.lr_scheduler = self.schedule
        return self.schedule

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """As in the parent; descriptors are told of intact pictures only, whose differences damage would outweigh."""
        inputs = dict(inputs)
        whole = inputs.pop("whole")  # (B, C)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        votes = inputs["votes"][:, 0]  # (B, N)
        known = ~votes.isnan().any(1)  # the intact ones
        told = self.readout(self.states.unflatten(0, (len(whole), -1))[known, 0])  # of the first slot, beauty
        loss = loss + WHOLE_WEIGHT * functional.mse_loss(told, whole[known]) / self.spread
        return loss + BEAUTY_WEIGHT * functional.cross_entropy(outputs.logits[known, 0], votes[known])


def hide_tokens(tokens: torch.Tensor, training: bool) -> torch.Tensor:
    """Image tokens (B, 64, H) with a share of them set to zero."""
    if not training:
        return tokens
    return tokens * functional.dropout(tokens.new_ones(tokens.shape[:2]), TOKEN_DROPOUT)[..., None]


class AveragedWeights(TrainerCallback):
    """Keeps a running mean of the weights."""

    def __init__(self, model: nn.Module):
        self.mean = copy.deepcopy(model)

    @torch.no_grad()
    def on_step_end(self, args, state, control, model, **kwargs):
        """Move the mean towards the present weights."""
        share = min(AVERAGING, state.global_step / (9 + state.global_step))
        for mean, weight in zip(self.mean.parameters(), model.parameters(), strict=True):
            mean.lerp_(weight, 1 - share)


def train(photos: Photographs, seed: int) -> tuple[ROC4MLLMForImageAesthetics, ROC4MLLMProcessor]:
    """A scorer trained on these photographs and nothing else, with its processor."""
    torch.manual_seed(seed)
    processor = build_processor()
    model = build_model(processor)
    lessons = make_lessons(photos)
    learn_to_see(model.backbone.model.vision_tower, photos, lessons, seed)
    average = AveragedWeights(model)  # copied before the Trainer puts its hooks on the model
    with tempfile.TemporaryDirectory() as folder:
        options = SplitLossConfig(
            output_dir=folder,
            max_steps=STEPS,
            per_device_train_batch_size=PAIRS,
            freeze=["vision_tower"],
            text_weight=TEXT_WEIGHT,
            smooth_l1_weight=0.0,
            ce_weight=SCORE_WEIGHT,
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=50,
        )
        dataset = PairedViews(photos, lessons, training_texts(processor), seed)
        TinyTrainer(model, options, train_dataset=dataset, callbacks=[average]).train()
    average.mean.config.score_head_trained = True
    return average.mean.eval().requires_grad_(True), processor


def training_texts(processor: ROC4MLLMProcessor) -> dict[str, torch.Tensor]:
    """Prompt, scoring sentence and comment with labels, one row per comment."""
    texts = processor(images=[Image.new("RGB", (SIZE, SIZE))] * len(COMMENTS), comments=COMMENTS)
    return {name: values for name, values in texts.items() if name != "pixel_values"}


def pixels(pictures: torch.Tensor) -> torch.Tensor:
    """What the processor makes of pictures (B, 2, SIZE, SIZE, 3) uint8, (2 · B, 3, SIZE, SIZE)."""
    return (pictures.flatten(0, 1).permute(0, 3, 1, 2).float() / 255 - PIXEL_MEAN) / PIXEL_STD


@torch.no_grad()
def predict(model: ROC4MLLMForImageAesthetics, processor: ROC4MLLMProcessor, pictures: torch.Tensor) -> np.ndarray:
    """Scores of prepared pictures (B, 2, SIZE, SIZE, 3), (B, A)."""
    text = processor(images=[Image.new("RGB", (SIZE, SIZE))])
    scores = []
    for chunk in pictures.split(32):
        batch = {name: values.expand(len(chunk), -1) for name, values in text.items() if name != "pixel_values"}
        scores.append(model(**batch, pixel_values=pixels(chunk)).scores)
    return torch.cat(scores).numpy()
