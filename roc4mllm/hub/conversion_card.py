"""The card of a converted checkpoint: where it comes from, its range, and whose licences hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..processing_roc4mllm.pipeline_image_aesthetics import __version__

CARD = """\
---
license: other
library_name: transformers
pipeline_tag: image-classification
tags: [image-aesthetics, roc4mllm]
---

# {name}

{kind}, scores {attributes} from **{low:g} to {high:g}, higher is better**.

```python
import roc4mllm

scorer = roc4mllm.load_scorer("{name}")  # or the folder that holds this file
scorer("photo.jpg")["score"]
```

Converted by roc4mllm {version} from {source}. The weights are those of its authors, in {dtype}; nothing was trained.
Figures that are published for them are those of the paper ({paper}) and were not measured with this folder.
{notes}
## Licences

- code: Apache-2.0
- weights: {weights_licence}
- base model: {base_model}
- data: rated pictures of the authors' choice, on the terms of each data set; not included
"""


@dataclass(frozen=True)
class Family:
    """What the cards of a family say; all fields are texts to be read."""

    kind: str
    paper: str
    weights_licence: str
    base_model: str


FAMILIES = {
    "roc4mllm": Family(
        kind="ROC4MLLM on mPLUG-Owl2",
        paper="ROC4MLLM, AAAI 2026",
        weights_licence="that of the source; Apache-2.0 says the card of Ricardo-M/ROC4MLLM",
        base_model="mPLUG-Owl2 on Llama 2, Llama 2 Community License",
    ),
    "level-words": Family(
        kind="mPLUG-Owl2 that names one of five levels, read as ROC4MLLM",
        paper="Q-Align, ICML 2024; DeQA-Score, CVPR 2025",
        weights_licence="that of the source; MIT says the card of q-future/one-align, whose authors' code is "
        "non-commercial",
        base_model="mPLUG-Owl2 on Llama 2, Llama 2 Community License",
    ),
    "tanet": Family(
        kind="TANet",
        paper="TANet, IJCAI 2022",
        weights_licence="none is known for the file; the repository of its authors is under Apache-2.0",
        base_model="MobileNetV2 trained on ImageNet, ResNet-18 trained on Places365, on the terms of each",
    ),
    "eat": Family(
        kind="EAT",
        paper="EAT, ACM MM 2023",
        weights_licence="none is known for the file; the repository of its authors says Apache-2.0 in a badge only",
        base_model="DAT trained on ImageNet, on the terms of both",
    ),
    "elta": Family(
        kind="ELTA",
        paper="ELTA, ICML 2024",
        weights_licence="none is known for the file; the repository of its authors says Apache-2.0 in a badge only",
        base_model="Swin Transformer V2 trained on ImageNet, on the terms of both",
    ),
}


def conversion_card(
    family: str,
    config: Any,
    name: str,
    revision: str | None,
    dtype: str,
    *,
    source: str | None = None,
    notes: Sequence[str] = (),
) -> str:
    """
    Text of the `README.md` of a converted folder.

    Args:
        family (`str`): `"roc4mllm"`, `"level-words"`, `"tanet"`, `"eat"` or `"elta"`.
        config ([`ROC4MLLMConfig`] or [`ImageScorerConfig`]): The native model's.
        name (`str`): Hub name of the checkpoint, or the name of its folder.
        revision (`str`, *optional*): Its commit on the Hub.
        dtype (`str`): Of the converted weights, as in `"float16"`.
        source (`str`, *optional*): What was converted, if it has another name.
        notes (sequence of `str`, *optional*): What else has to be known, a paragraph each.
    """
    low, high = config.score_range
    return CARD.format(
        **vars(FAMILIES[family]),
        name=name,
        attributes=", ".join(config.attributes),
        low=low,
        high=high,
        version=__version__,
        source=f"`{source or name}`" + (f", revision {revision}" if revision else ""),
        dtype=dtype,
        notes="".join(f"\n{note}\n" for note in notes),
    )


__all__ = ["conversion_card"]
