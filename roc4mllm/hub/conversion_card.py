"""The card of a converted checkpoint: where it comes from, its range, and whose licences hold."""

from dataclasses import dataclass

from ..modeling_roc4mllm.configuration_roc4mllm import ROC4MLLMConfig
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

## Licences

- code: Apache-2.0
- weights: {weights_licence}
- base model: mPLUG-Owl2 on Llama 2, Llama 2 Community License
- data: rated pictures of the authors' choice, on the terms of each data set; not included
"""


@dataclass(frozen=True)
class Family:
    """What the cards of a family say; all fields are texts to be read."""

    kind: str
    paper: str
    weights_licence: str


FAMILIES = {
    "roc4mllm": Family(
        kind="ROC4MLLM on mPLUG-Owl2",
        paper="ROC4MLLM, AAAI 2026",
        weights_licence="that of the source; Apache-2.0 says the card of Ricardo-M/ROC4MLLM",
    ),
    "level-words": Family(
        kind="mPLUG-Owl2 that names one of five levels, read as ROC4MLLM",
        paper="Q-Align, ICML 2024; DeQA-Score, CVPR 2025",
        weights_licence="that of the source; MIT says the card of q-future/one-align, whose authors' code is "
        "non-commercial",
    ),
}


def conversion_card(family: str, config: ROC4MLLMConfig, name: str, revision: str | None, dtype: str) -> str:
    """
    Text of the `README.md` of a converted folder.

    Args:
        family (`str`): `"roc4mllm"` or `"level-words"`.
        config ([`ROC4MLLMConfig`]): The native model's.
        name (`str`): Hub name of the checkpoint, or the name of its folder.
        revision (`str`, *optional*): Its commit on the Hub.
        dtype (`str`): Of the converted weights, as in `"float16"`.
    """
    low, high = config.score_range
    return CARD.format(
        **vars(FAMILIES[family]),
        name=name,
        attributes=", ".join(config.attributes),
        low=low,
        high=high,
        version=__version__,
        source=f"`{name}`" + (f", revision {revision}" if revision else ""),
        dtype=dtype,
    )


__all__ = ["conversion_card"]
