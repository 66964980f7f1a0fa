"""
Processor of ROC4MLLM: pictures and a question in, a batch with the scoring sentence and its slots out.

It holds the backbone's own processor, which prepares pictures and prompt. The answer is put behind the prompt here, as
ids, so that labels stand on the answer and nothing else, whatever a backbone's processor does to its text.
Names of axes: B rows, T tokens, A attributes, N levels, S slots of a row.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AddedToken, BatchFeature, ProcessorMixin
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import logging

from .fragments_aesthetics import check_fragment_size, fragments
from .image_only_processor import image_only, load_processor, needs_video
from .image_reading_aesthetics import read_image
from .processing_mplug_owl2 import MPLUGOwl2Processor
from .prompt_roc4mllm import QUESTION_SLOT, SCORE_TOKEN, check_attributes, check_text, image_placeholder, render_prompt

logger = logging.get_logger(__name__)

QUESTION = "Please rate the aesthetics of the image."
ANSWER = "The {attribute} rate of the image is [SCORE]."
ADJECTIVES = {"aesthetics": "aesthetic"}
OWN_PROCESSORS = {"MPLUGOwl2Processor": MPLUGOwl2Processor}  # backbones that transformers does not have
SAVED = ("attributes", "question", "answer", "prompt", "answer_end", "fragment_size")


class ROC4MLLMProcessor(ProcessorMixin):
    """
    Build it from a backbone with [`~ROC4MLLMProcessor.from_backbone`], load it with `from_pretrained`.

    Args:
        image_processor, tokenizer (*optional*): Those of `backbone_processor`, which is used where they are missing.
        backbone_processor (`ProcessorMixin`): The backbone's own processor.
        attributes (`Sequence[str]`, *optional*, defaults to `("aesthetics",)`): What is scored, main one first.
        question (`str`, *optional*): What is asked when a call brings no question.
        answer (`str` or `dict[str, str]`, *optional*): Sentence with one `[SCORE]` for each attribute; a plain text
            serves a single attribute.
        prompt (`str`, *optional*): Fixed text before the answer, with `[QUESTION]` in it; rendered from the chat
            template when missing.
        answer_end (`str`, *optional*): Text that ends an answer.
        fragment_size (`int`, *optional*): Show the model each picture twice, whole and as [`fragments`]: a square
            mosaic, of this many pixels a side, of pieces at native resolution, where noise, compression and fine blur
            survive. Choose the size that the backbone sees unscaled; a multiple of 32. Without it, only whole.

    Raises:
        ValueError: If an answer does not hold exactly one `[SCORE]`, its token cannot be added, or `fragment_size` is
            no multiple of 32.
    """

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        backbone_processor=None,
        attributes: Sequence[str] = ("aesthetics",),
        question: str = QUESTION,
        answer: str | dict[str, str] | None = None,
        prompt: str | None = None,
        answer_end: str | None = None,
        fragment_size: int | None = None,
    ):
        if backbone_processor is None:
            raise ValueError("ROC4MLLMProcessor needs a backbone_processor; build it with `from_backbone`.")
        if not isinstance(backbone_processor, ProcessorMixin) or hasattr(backbone_processor, "score_token_id"):
            raise TypeError(
                f"Got a {type(backbone_processor).__name__}; expected the processor of a backbone, as "
                "AutoProcessor.from_pretrained gives it, or its Hub name or folder."
            )
        self.backbone_processor = backbone_processor
        super().__init__(
            image_processor or backbone_processor.image_processor,
            tokenizer or backbone_processor.tokenizer,
            chat_template=getattr(backbone_processor, "chat_template", None),
        )
        check_attributes(attributes, attributes)
        check_text("question", question)
        self.attributes = list(attributes)
        self.question = question
        self.answer = answer_sentences(answer, self.attributes)
        if prompt is None:
            prompt, answer_end = render_prompt(backbone_processor, pictures=1 if fragment_size is None else 2)
        self.prompt, self.answer_end = prompt, answer_end or ""
        check_fragment_size(fragment_size)
        self.fragment_size = fragment_size
        self.score_token_id = add_score_token(self.tokenizer)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    @classmethod
    def from_backbone(
        cls,
        backbone,
        attributes: Sequence[str] = ("aesthetics",),
        question: str = QUESTION,
        answer: str | dict[str, str] | None = None,
        fragment_size: int | None = None,
        **kwargs,
    ) -> "ROC4MLLMProcessor":
        """
        Wrap the processor of a backbone, add `[SCORE]` to its tokenizer and fix the prompt.

        Args:
            backbone (`str`, `os.PathLike` or `ProcessorMixin`): Hub name, folder or loaded processor (which gets the
                new token too).
            attributes, question, answer, fragment_size: See the class.
            **kwargs: Passed to the processor's `from_pretrained` (`revision`, `token`, …).
        """
        if isinstance(backbone, str | os.PathLike):
            backbone = load_processor(backbone, **kwargs)
        processor = cls(
            backbone_processor=backbone,
            attributes=attributes,
            question=question,
            answer=answer,
            fragment_size=fragment_size,
        )
        logger.warning(f"Prompt of this scorer, fixed from now on: {processor.prompt!r}")
        return processor

    # ---- batches ------------------------------------------------------------------------------------------------

    def __call__(
        self,
        images=None,
        text: str | Sequence[str] | None = None,
        attributes: Sequence[str] | None = None,
        scores=None,
        votes=None,
        comments: Sequence[str | None] | None = None,
        prompt_only: bool = False,
        answer_ids: Sequence[Sequence[int]] | None = None,
        padding_side: str = "right",
        **kwargs,
    ) -> BatchFeature:
        """
        A batch of prompts and scoring sentences; a training batch when `scores`, `votes` or `comments` are given.

        Args:
            images (one picture or a list): Anything that [`read_image`] reads, one per row.
            text (`str` or `list[str]`, *optional*): Question, or one per row.
            attributes (`list[str]`, *optional*): Put only these into the sentence, in this order. A model that was
                trained on all of them then gives other numbers; the pipeline asks for all of them and selects.
            scores (list of `float`, of lists or of dicts, *optional*): Rated scores of each row: one for the main
                attribute, one per attribute, or by name. `None` or NaN where unknown.
            votes (list of lists or of dicts, *optional*): Votes per level of the main attribute, or by name.
            comments (`list[str]`, *optional*): Text that follows the scoring sentence in training.
            prompt_only (`bool`, *optional*, defaults to `False`): Leave the answer to `generate`.
            answer_ids (list of lists of `int`, *optional*): Finished answers to read instead of the scoring sentence;
                their `[SCORE]` tokens are the attributes in order.
            padding_side (`str`, *optional*, defaults to `"right"`): `"left"` for `generate`.
            **kwargs: Passed to the backbone's processor. `return_tensors` and `padding` are set here: a batch is
                always of padded torch tensors.

        Returns:
            `BatchFeature` of tensors: `input_ids`, `attention_mask` and what the backbone's processor gives,
            `slot_attributes` `(batch_size, slots)`, and in training `labels` `(batch_size, length)` (−100 outside the
            answer), `scores` `(batch_size, num_attributes)`, `votes` `(batch_size, num_attributes, num_levels)`.

        Raises:
            PictureError: If a picture cannot be read.
            ValueError: If a question or comment holds `[SCORE]`, an attribute is unknown, or lengths differ.
        """
        kwargs.pop("return_tensors", None)
        kwargs.pop("padding", None)
        pictures = [read_image(image) for image in as_list(images)]
        questions = self._texts("question", text if text is not None else self.question, len(pictures))
        check_attributes(attributes, self.attributes)
        names = self.attributes if attributes is None else list(attributes)
        training = not (scores is None and votes is None and comments is None)
        comments = self._texts("comment", comments if comments is not None else "", len(pictures))
        if answer_ids is None:
            sentence = "" if prompt_only else self.scoring_sentence(names)
            answer_ids = [self._answer_ids(sentence, comment, ended=training) for comment in comments]
        if len(answer_ids) != len(pictures):
            raise ValueError(f"Got {len(answer_ids)} answer_ids for {len(pictures)} pictures.")
        batch = self._assemble(self._prompts(pictures, questions, **kwargs), answer_ids, training, padding_side)
        batch["slot_attributes"] = self._slots(answer_ids, names)  # (B, S)
        if scores is not None:
            batch["scores"] = self._targets("scores", scores, len(pictures))  # (B, A)
        if votes is not None and (known := self._targets("votes", votes, len(pictures))).ndim == 3:
            batch["votes"] = known  # (B, A, N)
        return batch

    def scoring_sentence(self, attributes: Sequence[str] | None = None) -> str:
        """
        "The aesthetic rate of the image is [SCORE], the composition rate of the image is [SCORE]."
        """
        first, *others = [self.answer[name].rstrip(". ") for name in (attributes or self.attributes)]
        return ", ".join([first, *(clause[:1].lower() + clause[1:] for clause in others)]) + "."

    def _texts(self, kind: str, texts, count: int) -> list[str]:
        """One text per row, none with the position token in it."""
        if not isinstance(texts, Iterable):
            raise TypeError(f"Got {kind}s of {type(texts).__name__}; expected a text, or a list of one per picture.")
        texts = [texts] * count if isinstance(texts, str) else [text or "" for text in texts]
        if len(texts) != count:
            raise ValueError(f"Got {len(texts)} {kind}s for {count} pictures.")
        for text in texts:
            check_text(kind, text)
        return texts

    def check_words(self, question: str | None, attributes: Sequence[str] | None) -> None:
        """
        Refuse a question or attributes that no picture could be scored with.

        Raises:
            TypeError: If the question is no text.
            ValueError: If it holds `[SCORE]` or the placeholder of a picture, or an attribute is unknown.
        """
        check_attributes(attributes, self.attributes)
        if question is not None:
            check_text("question", question)
            if (placeholder := image_placeholder(self.backbone_processor)) and placeholder in question:
                raise ValueError(f"A question must not contain {placeholder!r}, which stands for a picture.")

    def _answer_ids(self, sentence: str, comment: str, ended: bool) -> list[int]:
        """Ids of scoring sentence, comment and, in training, the end of the answer."""
        answer = " ".join(part for part in (sentence, comment) if part) + (self.answer_end if ended else "")
        return self.tokenizer(answer, add_special_tokens=False)["input_ids"] if answer else []

    def _slots(self, answer_ids: Sequence[Sequence[int]], names: list[str]) -> torch.Tensor:
        """Attribute of each `[SCORE]` of each answer, −1 where it has none, `(B, S)`."""
        attributes = [self.attributes.index(name) for name in names]
        counts = [list(ids).count(self.score_token_id) for ids in answer_ids]
        width = max(counts, default=0)
        rows = [(attributes[:count] + [-1] * width)[:width] for count in counts]
        return torch.tensor(rows, dtype=torch.long).reshape(len(rows), width)

    def _prompts(self, pictures: list, questions: list[str], **kwargs) -> BatchFeature:
        """The backbone's own batch, left-padded so that each row's prompt ends at the right edge."""
        prompts = [self.prompt.replace(QUESTION_SLOT, question) for question in questions]
        bos = self.tokenizer.bos_token
        if bos and self.prompt.startswith(bos):
            kwargs.setdefault("add_special_tokens", False)  # the template wrote it already
        batch = self.backbone_processor(
            images=[self._shown(picture) for picture in pictures],
            text=prompts,
            padding=True,
            padding_side="left",
            return_tensors="pt",
            **kwargs,
        )
        batch.pop("labels", None)  # a few processors add labels of their own to any text
        return batch

    def _shown(self, picture) -> list:
        """What the backbone sees of a picture: it, and its fragments if they were asked for."""
        return [picture] if self.fragment_size is None else [picture, fragments(picture, self.fragment_size)]

    def _assemble(
        self, batch: BatchFeature, ids: Sequence[Sequence[int]], training: bool, padding_side: str
    ) -> BatchFeature:
        """Put each answer behind its prompt and pad again; every input of one value per token grows alike."""
        shape = batch["input_ids"].shape  # (B, prompt length)
        mask = batch["attention_mask"].bool()
        fills = {"input_ids": self.tokenizer.pad_token_id or 0}
        for name, values in list(batch.items()):
            if torch.is_tensor(values) and values.shape == shape and not values.is_floating_point():
                ends = ids if name == "input_ids" else [[answer_value(name, values)] * len(row) for row in ids]
                rows = [
                    torch.cat([row[keep], row.new_tensor(list(end))])
                    for row, keep, end in zip(values, mask, ends, strict=True)
                ]
                batch[name] = pad_rows(rows, fills.get(name, 0), padding_side)  # (B, T)
        if training:
            labels = [[-100] * int(keep.sum()) + list(end) for keep, end in zip(mask, ids, strict=True)]
            batch["labels"] = pad_rows([torch.tensor(row) for row in labels], -100, padding_side)  # (B, T)
        return batch

    def _targets(self, kind: str, values, count: int) -> torch.Tensor:
        """Scores `(B, A)` or votes `(B, A, N)` by attribute, NaN where unknown; without N where no row has votes."""
        if not isinstance(values, Sequence | np.ndarray | torch.Tensor) or isinstance(values, str):
            raise TypeError(f"{kind} must be a list with one entry per picture, got {type(values).__name__}.")
        if len(values) != count:
            raise ValueError(f"Got {kind} of {len(values)} rows for {count} pictures.")
        depth = 1 if kind == "scores" else 2
        rows = [by_attribute(kind, row, self.attributes, depth) for row in values]
        rows = [{name: as_numbers(kind, value) for name, value in row.items()} for row in rows]
        lengths = {len(votes) for row in rows for votes in row.values()} if depth == 2 else set()
        if len(lengths) > 1:
            raise ValueError(f"Votes must have one length, got {sorted(lengths)}.")
        target = torch.full((count, len(self.attributes), *lengths), float("nan"))
        for index, row in enumerate(rows):
            for name, value in row.items():
                target[index, self.attributes.index(name)] = value
        return target

    # ---- the backbone's part, saving and loading ------------------------------------------------------------------

    @property
    def model_input_names(self) -> list[str]:
        """Those of the backbone, and the slots."""
        return [*self.backbone_processor.model_input_names, "slot_attributes"]

    def apply_chat_template(self, *args, **kwargs):
        """The backbone's own."""
        return self.backbone_processor.apply_chat_template(*args, **kwargs)

    def to_dict(self) -> dict:
        """What `processor_config.json` holds besides the backbone's own entries."""
        saved = {name: getattr(self, name) for name in SAVED}
        backbone_class = type(self.backbone_processor).__name__
        return saved | {"processor_class": type(self).__name__, "backbone_processor_class": backbone_class}

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs) -> list[str]:
        """Save the backbone's processor files with this processor's entries in them."""
        os.makedirs(save_directory, exist_ok=True)
        self.backbone_processor.save_pretrained(save_directory)
        entries = self.to_dict()
        if self._auto_class is not None:
            custom_object_save(self, save_directory, config=entries)  # copies the sources, adds `auto_map`
        path = os.path.join(save_directory, "processor_config.json")
        update_json(path, entries)
        update_json(os.path.join(save_directory, "tokenizer_config.json"), {"processor_class": type(self).__name__})
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", os.path.basename(save_directory)), **kwargs)
        return [path]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """Load what `save_pretrained` wrote; arguments as in `ProcessorMixin.from_pretrained`."""
        kwargs.pop("dtype", None)  # a pipeline passes on what is the model's, and a tokenizer would save it
        entries, _ = cls.get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if "backbone_processor_class" not in entries:
            raise ValueError(
                f"{pretrained_model_name_or_path} holds no ROC4MLLM processor; wrap a backbone's with `from_backbone`."
            )
        name = entries["backbone_processor_class"]
        backbone_class: Any = OWN_PROCESSORS.get(name) or getattr(transformers, name, None)
        if not (isinstance(backbone_class, type) and issubclass(backbone_class, ProcessorMixin)):
            raise ValueError(f"transformers has no processor {name!r}.")
        if needs_video(backbone_class):
            backbone_class = image_only(backbone_class)
        backbone_processor = backbone_class.from_pretrained(pretrained_model_name_or_path, **kwargs)
        return cls(backbone_processor=backbone_processor, **{name: entries[name] for name in SAVED})


def answer_sentences(answer: str | Mapping[str, str] | None, attributes: list[str]) -> dict[str, str]:
    """The sentence of each attribute, each with exactly one `[SCORE]`."""
    if isinstance(answer, str):
        answer = {attributes[0]: answer}
    if not isinstance(answer, Mapping | None):
        raise TypeError(f"answer must be a text, or a dict with one for each attribute, got {type(answer).__name__}.")
    default = {
        name: ANSWER.replace("{attribute}", ADJECTIVES.get(name, name.replace("_", " "))) for name in attributes
    }
    sentences = default if answer is None else dict(answer)
    if set(sentences) != set(attributes):
        raise ValueError(f"answer must be a dict with a sentence for each of {attributes}, got {sorted(sentences)}.")
    for name, sentence in sentences.items():
        if not isinstance(sentence, str) or sentence.count(SCORE_TOKEN) != 1:
            raise ValueError(f"The answer for {name!r} must hold {SCORE_TOKEN} exactly once, got {sentence!r}.")
    return sentences


def add_score_token(tokenizer) -> int:
    """
    Add `[SCORE]` unless it is there, and return its id. Not as a special token: decoding would drop it from the text.
    """
    if SCORE_TOKEN not in tokenizer.get_added_vocab():  # to add it again would reset what it does to spaces around it
        tokenizer.add_tokens([AddedToken(SCORE_TOKEN, normalized=False, special=False)])
    token_id = tokenizer.convert_tokens_to_ids(SCORE_TOKEN)
    if tokenizer(f"a {SCORE_TOKEN}, b", add_special_tokens=False)["input_ids"].count(token_id) != 1:
        raise ValueError(f"The tokenizer does not keep {SCORE_TOKEN} as one token of its own (id {token_id}).")
    return token_id


def answer_value(name: str, values: torch.Tensor) -> int:
    """
    Value of an input of one value per token on the answer.

    The answer is attended (mask 1) and is text (modality 0). Where token types are 0 on a whole prompt, pictures
    included, they do not tell modalities but a prefix that attends both ways from a causal suffix of type 1.
    """
    if name == "attention_mask":
        return 1
    return 1 if name == "token_type_ids" and not values.any() else 0


def pad_rows(rows: list[torch.Tensor], value: int, side: str) -> torch.Tensor:
    """Rows of different lengths as one tensor `(B, T)`."""
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value, padding_side=side)


def by_attribute(kind: str, row, attributes: list[str], depth: int) -> dict:
    """One row's scores (depth 1) or votes (depth 2) as a dict by attribute, unknown ones left out."""
    if row is None:
        return {}
    if not isinstance(row, Mapping):
        if np.ndim(row) == depth - 1:
            row = {attributes[0]: row}
        elif np.ndim(row) and len(row) == len(attributes):
            row = dict(zip(attributes, row, strict=True))
        else:
            raise ValueError(f"Got {kind} {row!r}; expected one for each of {attributes}.")
    if unknown := set(row) - set(attributes):
        raise ValueError(f"Got {kind} for unknown attributes {sorted(unknown)}; this model scores {attributes}.")
    return {name: value for name, value in row.items() if value is not None}


def as_numbers(kind: str, values) -> torch.Tensor:
    """A score `()`, or votes `(N,)`, of one attribute."""
    numbers = None
    with contextlib.suppress(TypeError, ValueError, RuntimeError):
        numbers = torch.as_tensor(values, dtype=torch.float32)
    if numbers is None or (kind == "votes" and numbers.ndim != 1):
        raise TypeError(f"Got {kind} {values!r}; expected {'a number' if kind == 'scores' else 'a list of numbers'}.")
    return numbers


def as_list(images) -> list:
    """A batch of pictures from one picture or several."""
    if images is None:
        raise ValueError("ROC4MLLMProcessor needs images; there is nothing to score without a picture.")
    if isinstance(images, list | tuple):
        if not images:
            raise ValueError("Got an empty list of images; ROC4MLLMProcessor needs at least one.")
        return list(images)
    if getattr(images, "ndim", 0) == 4:  # an array or tensor (B, 3, H, W)
        return list(images)
    return [images]


def update_json(path: str, entries: dict) -> None:
    """Overwrite entries of a JSON file that exists."""
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content | entries, file, indent=2, ensure_ascii=False, sort_keys=True)
        file.write("\n")


__all__ = ["ROC4MLLMProcessor"]
