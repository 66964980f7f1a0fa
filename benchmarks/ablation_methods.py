"""
The four ways to a score that the ablation compares: what stands in the answer, what is learned and how it is read.

- `digits`: "The aesthetic rate of the image is 4.71.", supervised as text alone; decoded greedily and parsed
- `words`: "… is good.", one of five words for equal parts of the score range, supervised as text alone; read as the
  mean of the five levels by the softmax over the words' logits. After Q-Align (ICML 2024), without its data.
- `coupled`: as `words`, and a smooth-L1 loss on that mean beside it: text and regression share the words' logits
- `roc4mllm`: "… is [SCORE].", a position token; smooth-L1 on the score head's mean, which no text loss reaches

Every method sees the same rows in the same order, one attribute of one picture each, with the same question, and the
same sentence but for what stands in place of `[SCORE]`. The weights of the losses are those of the preset `paper`:
text 1, smooth-L1 1.

Names of axes: P photographs, V views, B rows, T tokens, H hidden, M supervised tokens, N levels.
"""

import math
import re
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from ablation_warm_start import SCORE_RANGE, WORDS, prompt_ids
from tiny_damage import DAMAGES
from tiny_model import ATTRIBUTES
from tiny_photographs import INTACT
from tiny_recipe import MUON_RATE, make_optimizer
from torch import nn

from roc4mllm import ROC4MLLMForImageAesthetics, ROC4MLLMProcessor
from roc4mllm.modeling_roc4mllm.loss_aesthetics import smooth_l1
from roc4mllm.trainer.split_loss_config import SplitLossConfig
from roc4mllm.trainer.split_loss_trainer import SplitLossTrainer

METHODS = ("digits", "words", "coupled", "roc4mllm")
STEPS, BATCH = 400, 16
LOW, HIGH = SCORE_RANGE
LEVELS = torch.linspace(LOW, HIGH, len(WORDS))
CENTRES = LOW + (HIGH - LOW) * (torch.arange(len(WORDS)) + 0.5) / len(WORDS)  # of the part that a word stands for
NUMBER = re.compile(r"\d(\.\d+)?")


class Row(NamedTuple):
    """One attribute of one view of a training photograph, with its score in SCORE_RANGE."""

    photograph: int
    view: int
    attribute: str
    score: float


def draw_rows(mean: torch.Tensor, scores: torch.Tensor, seed: int) -> list[Row]:
    """Alternately beauty of an intact view and a technical attribute of a damaged one, for all steps."""
    generator = np.random.default_rng(seed)
    rows = []
    for photograph in shuffled(len(mean), STEPS * BATCH // 2, generator):
        rows.append(Row(photograph, int(generator.integers(INTACT)), "aesthetics", mean[photograph].item()))
        view = int(generator.integers(INTACT, scores.shape[1]))
        kind = asked(scores[photograph, view], generator)
        score = LOW + (HIGH - LOW) * scores[photograph, view, kind].item() / 100
        rows.append(Row(photograph, view, DAMAGES[kind], score))
    return rows


def shuffled(count: int, length: int, generator: np.random.Generator) -> Iterator[int]:
    """`length` indices below `count`, in a new order for each round."""
    rounds = [generator.permutation(count) for _ in range(math.ceil(length / count))]
    yield from np.concatenate(rounds)[:length].tolist()


def asked(scores: torch.Tensor, generator: np.random.Generator) -> int:
    """What to ask about a damaged view (K,): mostly its damage, since else nearly every answer would be the best."""
    damaged, known = (torch.where(condition)[0].numpy() for condition in (scores < 100, ~scores.isnan()))
    return int(generator.choice(damaged if len(damaged) and generator.random() < 0.7 else known))


# ---- sentences ------------------------------------------------------------------------------------------------------


class Sentences:
    """
    Turns rows into batches for one method.

    Args:
        method (`str`): One of METHODS.
        processor ([`ROC4MLLMProcessor`]): Has the prompt, the sentence of each attribute and the tokenizer.
        tokens (`torch.Tensor` of shape `(P, V, 2, 64, H)`): The tower's, of the training views.
    """

    def __init__(self, method: str, processor: ROC4MLLMProcessor, tokens: torch.Tensor):
        self.method, self.processor, self.tokens = method, processor, tokens
        self.prompts = {attribute: prompt_ids(processor, attribute) for attribute in ATTRIBUTES}
        self.word_ids = torch.tensor(processor.tokenizer.convert_tokens_to_ids([f" {word}" for word in WORDS]))

    def ids(self, text: str) -> torch.Tensor:
        """Ids of a part of an answer, (T,)."""
        return torch.tensor(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def told(self, score: float) -> str:
        """What stands in place of `[SCORE]`."""
        if self.method == "digits":
            return f"{score:.2f}"
        if self.method == "roc4mllm":
            return "[SCORE]"
        part = int((score - LOW) / (HIGH - LOW) * len(WORDS))
        return WORDS[min(part, len(WORDS) - 1)]

    def answer(self, row: Row) -> torch.Tensor:
        """Ids of a whole answer and its end, (T,)."""
        sentence = self.processor.answer[row.attribute].replace("[SCORE]", self.told(row.score))
        return self.ids(sentence + self.processor.answer_end)

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """A training batch; `[SCORE]` and its targets only for `roc4mllm`, `rated` (B,) only for `coupled`."""
        prompts, answers = [self.prompts[row.attribute] for row in rows], [self.answer(row) for row in rows]
        pairs = list(zip(prompts, answers, strict=True))
        ids = padded([torch.cat(pair) for pair in pairs], 0)  # (B, T)
        labels = padded([torch.cat([torch.full_like(prompt, -100), answer]) for prompt, answer in pairs], -100)
        views = [self.tokens[row.photograph, row.view] for row in rows]
        batch = {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}
        batch["pixel_values"] = torch.cat(views).float()  # (2 B, 64, H)
        attributes = torch.tensor([[ATTRIBUTES.index(row.attribute)] for row in rows])  # (B, 1)
        rated = torch.tensor([row.score for row in rows])  # (B,)
        batch["slot_attributes"] = attributes[:, : int(self.method == "roc4mllm")]
        if self.method == "roc4mllm":
            unknown = torch.full((len(rows), len(ATTRIBUTES)), math.nan)
            batch["scores"] = unknown.scatter(1, attributes, rated[:, None])
        if self.method == "coupled":
            batch["rated"] = rated
        return batch


def padded(rows: list[torch.Tensor], value: int) -> torch.Tensor:
    """Rows of different lengths as one tensor, filled on the right."""
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)


# ---- learning -------------------------------------------------------------------------------------------------------


class AblationTrainer(SplitLossTrainer):
    """Adds the regression on the words' own logits where a batch has `rated`."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """As in the parent."""
        if "rated" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs = {**inputs, "output_text_logits": True}
        rated, targets = inputs.pop("rated"), inputs["labels"][:, 1:]
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        word_ids = self.data_collator.word_ids
        is_word = torch.isin(targets[targets != -100], word_ids)  # (M,), one per row
        levels = outputs.text_logits[is_word][:, word_ids].softmax(-1)  # (B, N)
        return loss + self.args.loss_weights["smooth_l1"] * smooth_l1(levels @ LEVELS, rated)


def learn(model: ROC4MLLMForImageAesthetics, sentences: Sentences, rows: list[Row], seed: int) -> list[dict]:
    """Train on these rows in this order; what the Trainer logged."""
    with tempfile.TemporaryDirectory() as folder:
        options = SplitLossConfig(
            output_dir=folder,
            max_steps=STEPS,
            per_device_train_batch_size=BATCH,
            train_sampling_strategy="sequential",
            loss_preset="paper",
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=50,
        )
        trainer = AblationTrainer(
            model,
            options,
            train_dataset=rows,
            data_collator=sentences,
            optimizers=make_optimizer(model, nn.Identity(), MUON_RATE, STEPS),
        )
        trainer.train()
    model.config.score_head_trained = True
    model.eval()
    return trainer.state.log_history


# ---- scoring --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def score(model, sentences: Sentences, tokens: torch.Tensor, attribute: str) -> torch.Tensor:
    """Scores in SCORE_RANGE of pictures (B, 2, 64, H), (B,); NaN where an answer cannot be read."""
    prompt, before = sentences.prompts[attribute], sentences.processor.answer[attribute].split(" [SCORE]")[0]
    pictures = {"pixel_values": tokens.flatten(0, 1).float()}
    if sentences.method == "roc4mllm":
        row = Row(0, 0, attribute, LOW)
        ids = torch.cat([prompt, sentences.answer(row)]).expand(len(tokens), -1)
        index = ATTRIBUTES.index(attribute)
        slots = torch.full((len(tokens), 1), index)
        return model(input_ids=ids, slot_attributes=slots, **pictures).scores[:, index]
    ids = torch.cat([prompt, sentences.ids(before)]).expand(len(tokens), -1)
    if sentences.method == "digits":
        length = len(sentences.ids(" 4.71.")) + 1
        answers = model.generate(input_ids=ids, **pictures, max_new_tokens=length, do_sample=False)[:, ids.shape[1] :]
        texts = sentences.processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
        return torch.tensor([parse(text) for text in texts])
    logits = model.backbone(input_ids=ids, **pictures, logits_to_keep=1).logits[:, 0, sentences.word_ids]  # (B, N)
    return logits.softmax(-1) @ (LEVELS if sentences.method == "coupled" else CENTRES)


def parse(text: str) -> float:
    """The number that an answer gives; NaN if it is none within the score range."""
    text = text.strip().removesuffix(".")
    return float(text) if NUMBER.fullmatch(text) and LOW <= float(text) <= HIGH else math.nan
