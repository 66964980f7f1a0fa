"""The card of a published model: what it scores, how to load it, its data, its figures, and whose licences hold."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from huggingface_hub import ModelCardData

from ..modeling_roc4mllm.modeling_outputs_aesthetics import score_ranges
from ..processing_roc4mllm.pipeline_image_aesthetics import __version__
from .conversion_card import FAMILIES
from .evaluation_figures import METRICS, Figures, eval_results
from .trained_on import TrainedOn

CARD = """\
---
{yaml}
---

# {title}

{kind}. A picture goes in, a score comes out; **{direction}**.{caution}

| attribute | lowest score | highest score |
|---|---:|---:|
{ranges}

With [roc4mllm](https://pypi.org/project/roc4mllm/), which trusts no code of this repository:

```python
import roc4mllm

scorer = roc4mllm.load_scorer("{repo}")
scorer("photo.jpg")["score"]
```

With {needs} alone, which runs the Python files of this repository; look at them first:

```python
from transformers import pipeline

scorer = pipeline("image-aesthetics", model="{repo}", trust_remote_code=True)
scorer("photo.jpg")["score"]
```

Both take `revision=`: give a commit where scores must never change.

## Training data

{data}

## Evaluation

{evaluation}

## Licences

- code: Apache-2.0, that of roc4mllm {version}, whose Python files these are
- weights: {weights_licence}
- base model: {base_licence}
- data: {data_licence}

## Citation

{citation}
"""

UNCALIBRATED = """

**Uncalibrated theme branch.** The original normalises by statistics of each batch and publishes none; this model goes
without. `roc4mllm convert tanet FILE DIR --calibrate PICTURES` measures them.\
"""

PAPERS = {  # by model_type
    "roc4mllm": "*Regression Over Classification: Assessing Image Aesthetics via Multimodal Large Language Models*, "
    "AAAI 2026",
    "tanet": "*Rethinking Image Aesthetics Assessment: Models, Datasets and Benchmarks*, IJCAI 2022",
    "eat": "*EAT: An Enhancer for Aesthetics-Oriented Transformers*, ACM MM 2023",
    "elta": "*ELTA: An Enhancer against Long-Tail for Aesthetics-oriented Models*, ICML 2024",
}


@dataclass(frozen=True)
class CardFacts:
    """
    What a card is written from.

    Args:
        repo (`str`): Name on the Hub.
        config ([`ROC4MLLMConfig`] or [`ImageScorerConfig`]): The model's.
        base_model (`str`, *optional*): Name of the model below, on the Hub.
        is_adapter (`bool`): Whether the weights need it.
        licence (`str`, *optional*): Of the weights, as the Hub calls it.
        trained_on ([`TrainedOn`], *optional*): Training data.
        figures ([`Figures`], *optional*): An evaluation.
    """

    repo: str
    config: Any
    base_model: str | None = None
    is_adapter: bool = False
    licence: str | None = None
    trained_on: TrainedOn | None = None
    figures: Figures | None = None


def model_card(facts: CardFacts) -> str:
    """Text of the `README.md` of a published model."""
    config = facts.config
    ranges = score_ranges(config.score_range, len(config.attributes))
    data = facts.trained_on.data if facts.trained_on else ()
    return CARD.format(
        yaml=card_yaml(facts),
        title=facts.repo.rpartition("/")[2],
        kind=kind_of(facts),
        caution=UNCALIBRATED if getattr(config, "theme_calibrated", None) is False else "",
        direction="higher is better" if getattr(config, "higher_is_better", True) else "lower is better",
        ranges=lines(
            f"| {name} | {low:g} | {high:g} |" for name, (low, high) in zip(config.attributes, ranges, strict=True)
        ),
        repo=facts.repo,
        needs="transformers and peft" if facts.is_adapter else "transformers",
        data=data_text(facts.trained_on),
        evaluation=evaluation_text(facts),
        version=__version__,
        weights_licence=facts.licence or "none is stated; those of base model and data bind them",
        base_licence=base_licence(facts),
        data_licence="; ".join(f"{used.title or used.name}: {used.terms or 'not stated'}" for used in data)
        or "on the terms of each data set; not included",
        citation=lines(
            f"- {cited}" for cited in (PAPERS[config.model_type], *filter(None, (d.citation for d in data)))
        ),
    )


def card_yaml(facts: CardFacts) -> str:
    """The head, which the Hub reads."""
    head = ModelCardData(
        license=facts.licence or "other",
        library_name="transformers",
        pipeline_tag="image-classification",  # the nearest of those that the Hub knows
        tags=["image-aesthetics", "roc4mllm", "custom_code"],
        base_model=facts.base_model,
        base_model_relation=(facts.base_model and ("adapter" if facts.is_adapter else "finetune")) or None,
        model_name=facts.repo.rpartition("/")[2],
        eval_results=eval_results(facts.figures) if facts.figures else None,
    )
    text: str = head.to_yaml()
    return text


def kind_of(facts: CardFacts) -> str:
    """What the model is, in a sentence without its full stop."""
    if facts.config.model_type in FAMILIES and facts.config.model_type != "roc4mllm":
        return FAMILIES[facts.config.model_type].kind
    below = f"[{facts.base_model}](https://huggingface.co/{facts.base_model})" if facts.base_model else None
    below = below or facts.config.mllm_config.model_type
    return f"A LoRA adapter of ROC4MLLM for {below}" if facts.is_adapter else f"ROC4MLLM on {below}"


def base_licence(facts: CardFacts) -> str:
    """Whose licence binds who uses the model below."""
    if facts.base_model:
        return f"that of [{facts.base_model}](https://huggingface.co/{facts.base_model})"
    if facts.config.model_type != "roc4mllm":
        return f"none is recorded; of the published weights it is: {FAMILIES[facts.config.model_type].base_model}"
    return f"a {facts.config.mllm_config.model_type} model, of which no name is recorded"


def data_text(trained_on: TrainedOn | None) -> str:
    """Which pictures the model has seen."""
    if trained_on is None:
        return "Not recorded: nothing tells which pictures the model has seen."
    count = f"{trained_on.pictures} pictures" if trained_on.pictures is not None else "Pictures"
    of = ", ".join(f"`{name}`" for name in trained_on.protocols) or "data without a split protocol"
    text = f"{count} of {of}."
    if trained_on.digest:
        text += (
            f" Hash of their set: `{trained_on.digest}`. `trained_on.safetensors` holds a hash of each, and "
            "`roc4mllm evaluate` refuses to test on one of them."
        )
    return text


def evaluation_text(facts: CardFacts) -> str:
    """A table of the figures, a column for each attribute."""
    found = facts.figures
    if found is None:
        return "None is stated."
    names = [name for name in facts.config.attributes if found.of(name)]
    columns = [found.of(name) for name in names]
    header = ["| metric | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    rows = [
        f"| {title} | " + " | ".join(str(column.get(metric, "")) for column in columns) + " |"
        for metric, (_, title) in METRICS.items()
        if any(metric in column for column in columns)
    ]
    pictures = max((figure.pictures for figure in found.figures), default=0)
    where = f"`{found.data}`" + (f", split `{found.split}`" if found.split else "")
    about = (
        f"On {pictures} pictures of {where}, {found.date[:10]}; in brackets the 95 % bootstrap interval over pictures."
    )
    about += f" {found.failed} pictures could not be scored and are in no figure." if found.failed else ""
    return lines([about, *found.notes, "", *header, *rows])


def lines(texts: Iterable[str]) -> str:
    """One below the other."""
    return "\n".join(texts)


__all__ = ["PAPERS", "CardFacts", "model_card"]
