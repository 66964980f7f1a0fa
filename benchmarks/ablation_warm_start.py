"""
The warm start of the ablation: the backbone of `roc4mllm-tiny` after lessons without labels, on training photographs.

In three minutes no method would learn to see from ratings alone, so all begin with the same backbone, made once for
all seeds. Its vision tower has learned to tell descriptors of each patch (`learn_to_see`, without its lesson on
damage); its language model those of the whole picture from the end of the prompt, where every answer begins, and to
write a sentence on light, colour and detail. No rating and no strength of damage is among these lessons. From then on
the tower is frozen, so its tokens are made here too, once for all runs.

Names of axes: P photographs, V views, B batch, T tokens, H hidden, C components.
"""

import functools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny_descriptors import COMMENTS
from tiny_lessons import GLOBAL_COMPONENTS, Lessons, make_lessons
from tiny_model import WIDTH, build_model, build_processor
from tiny_photographs import INTACT, SIZE, Photographs
from tiny_recipe import MUON_RATE, learn_to_see, make_optimizer, pixels
from torch import nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutput

from roc4mllm import ROC4MLLMForImageAesthetics, ROC4MLLMProcessor

WORDS = ("bad", "poor", "fair", "good", "excellent")  # of Q-Align; each is a token with the space before it
SCORE_RANGE = (1.0, 7.0)  # for all attributes: one unit for every loss, and three digits for every score
STEPS, BATCH = 400, 16


class Tokens(nn.Module):
    """Stands where the vision tower stood, and is handed its tokens instead of pixels."""

    def forward(self, tokens: torch.Tensor, **_) -> BaseModelOutput:
        """Tokens (B, 64, H) as they are."""
        return BaseModelOutput(last_hidden_state=tokens, hidden_states=(tokens,))


def new_scorer(seed: int) -> tuple[ROC4MLLMForImageAesthetics, ROC4MLLMProcessor]:
    """A fresh scorer with as many levels as words, one score range for all attributes, and a token for each word."""
    torch.manual_seed(seed)
    processor = build_processor()
    backbone = build_model(processor).backbone
    processor.tokenizer.add_tokens([f" {word}" for word in WORDS])
    backbone.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    model = ROC4MLLMForImageAesthetics.from_backbone(
        backbone, processor=processor, num_levels=len(WORDS), score_range=SCORE_RANGE
    )
    return model, processor


def warm_scorer(cache: Path, seed: int) -> tuple[ROC4MLLMForImageAesthetics, ROC4MLLMProcessor, nn.Module]:
    """A scorer with the cached backbone and a score head of this seed, its processor, and its frozen tower."""
    model, processor = new_scorer(seed)
    model.backbone.load_state_dict(torch.load(cache, weights_only=True, mmap=True)["backbone"])
    llava = model.backbone.model
    tower, llava.vision_tower = llava.vision_tower.eval(), Tokens()
    return model, processor, tower


def make_warm_start(photos: Photographs, seen: dict[str, torch.Tensor], cache: Path) -> None:
    """
    Give the lessons and write `cache`: the backbone and the tower's tokens of the pictures in `seen` (of which `views`
    are those of `photos`, which it learns from).
    """
    model, processor = new_scorer(seed=0)
    lessons = make_lessons(photos)
    tower = model.backbone.model.vision_tower
    # told that every picture is intact, its readout of damage learns a constant, and the tower nothing from it
    learn_to_see(tower.train(), photos, lessons._replace(scores=torch.full_like(photos.scores, 100.0)), seed=0)
    tokens = {name: look(tower.eval(), pictures) for name, pictures in seen.items()}
    learn_to_tell(model.backbone, processor, photos, lessons, tokens["views"])
    torch.save(tokens | {"backbone": model.backbone.state_dict()}, cache)


@torch.no_grad()
def look(tower: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """What the tower hands to the connector, (…, 2, 64, H) float16, of pictures (…, 2, SIZE, SIZE, 3)."""
    chunks = pictures.flatten(0, -5).split(32)  # (B, 2, SIZE, SIZE, 3) each
    states = [tower(pixels(chunk), output_hidden_states=True).hidden_states[-1].half() for chunk in chunks]
    return torch.cat(states).reshape(*pictures.shape[:-3], -1, WIDTH)


def learn_to_tell(backbone, processor, photos: Photographs, lessons: Lessons, tokens: torch.Tensor) -> None:
    """Train connector and language model on the whole picture and on a sentence about it."""
    tower, backbone.model.vision_tower = backbone.model.vision_tower, Tokens()
    readout = nn.Linear(WIDTH, GLOBAL_COMPONENTS)
    nn.init.zeros_(readout.weight)
    optimizer, schedule = make_optimizer(backbone.train(), readout, MUON_RATE, STEPS)
    prompt, sentences, generator = prompt_ids(processor), comment_ids(processor), np.random.default_rng(0)
    for step in range(STEPS):
        rows = torch.from_numpy(generator.choice(len(tokens), BATCH, replace=False))
        views = torch.from_numpy(generator.integers(0, INTACT, BATCH))
        answers = sentences[photos.sentences[rows, views]]  # (B, T)
        ids = torch.cat([prompt.expand(BATCH, -1), answers.clamp_min(0)], dim=1)
        states = backbone.model(
            input_ids=ids, pixel_values=tokens[rows, views].flatten(0, 1).float()
        ).last_hidden_state
        logits = backbone.lm_head(states[:, len(prompt) - 1 : -1])  # (B, T, vocabulary)
        told = readout(states[:, len(prompt) - 1])  # (B, C)
        loss = functional.mse_loss(told, lessons.whole[rows, views])
        loss = loss + functional.cross_entropy(logits.flatten(0, 1), answers.flatten(), ignore_index=-100)
        loss.backward()
        nn.utils.clip_grad_norm_(backbone.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"  telling {step + 1}/{STEPS} loss {loss.item():.3f}", flush=True)
    backbone.model.vision_tower = tower


def prompt_ids(processor: ROC4MLLMProcessor, attribute: str = "aesthetics") -> torch.Tensor:
    """The prompt with the places of both pictures and the question after an attribute, (T,)."""
    question = processor.question.replace("aesthetics", attribute)
    return processor(images=[Image.new("RGB", (SIZE, SIZE))], text=question, prompt_only=True)["input_ids"][0]


def comment_ids(processor: ROC4MLLMProcessor) -> torch.Tensor:
    """Every comment and its end, (comments, T), −100 behind it."""
    tokenize = functools.partial(processor.tokenizer, add_special_tokens=False)
    ids = [torch.tensor(tokenize(comment + processor.answer_end)["input_ids"]) for comment in COMMENTS]
    return nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=-100)
