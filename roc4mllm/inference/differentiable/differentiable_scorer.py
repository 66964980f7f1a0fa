"""
Scores with a gradient to the pixels, so that whatever makes pictures can be tuned towards them.

The pipeline reads a file, prepares it with Pillow and forgets how; here the same preparation is done in torch.
"""

import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchFeature

from ...processing_roc4mllm.pipeline_image_aesthetics import ImageAestheticsPipeline
from ..load_scorer import load_scorer
from .preparation import Preparation
from .trace import follow

KEPT_SIZES = 8  # of pictures, whose preparations are kept: a generator makes one or a few


class DifferentiableScorer:
    """
    A scorer of tensors that can be differentiated.

    ```python
    >>> reward = roc4mllm.DifferentiableScorer("user/model")
    >>> scores = reward(decoder(latents))  # (batch_size, num_attributes)
    >>> (-scores[:, 0]).mean().backward()
    ```

    The scores are those that the pipeline gives the same pictures, saved with 8 bits a colour. The model is frozen and
    put into evaluation mode. This is no `torch.nn.Module`, so that it becomes no part of what is trained.

    Args:
        scorer (`str`, `os.PathLike` or [`ImageAestheticsPipeline`], *optional*): As `load_scorer` takes or returns it;
            the bundled `roc4mllm-tiny` by default.
        attributes (`list[str]`, *optional*): Score these, in this order; by default all, or those that the scorer was
            loaded with.
        question (`str`, *optional*): What the model is asked; the processor's own by default.
        rounded (`bool`, *optional*, defaults to `True`): Round the pictures and their resized pixels to 8 bits, which
            the gradient takes no notice of. Without it scores are smooth and gradients exact, and the scores of a
            sensitive model differ from the pipeline's by some hundredths of its range.

    Raises:
        ValueError: If the model does not score an attribute, or the scorer is a personal one.
    """

    def __init__(
        self,
        scorer: str | os.PathLike[str] | ImageAestheticsPipeline | None = None,
        attributes: Sequence[str] | None = None,
        question: str | None = None,
        rounded: bool = True,
    ):
        self.scorer: Any = scorer if isinstance(scorer, ImageAestheticsPipeline) else load_scorer(scorer)
        if type(self.scorer)._score is not ImageAestheticsPipeline._score:
            raise ValueError(
                f"a {type(self.scorer).__name__} adds to the model's scores what has no gradient; pass the scorer "
                "that it was made from"
            )
        asked, _, told = self.scorer._sanitize_parameters(attributes=attributes, question=question)  # type: ignore[no-untyped-call]
        known = list(self.scorer.model.config.attributes)
        self.rounded = rounded
        self.attributes = list({**self.scorer._postprocess_params, **told}.get("attributes") or known)
        self._columns = [known.index(name) for name in self.attributes]
        self._pictures = self.scorer.preparation(**{**self.scorer._preprocess_params, **asked})
        self._preparations: dict[Any, Preparation] = {}
        self.scorer.model.requires_grad_(False)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """
        Scores of pictures of one size.

        Args:
            pixels (`torch.Tensor` of shape `(batch_size, 3, height, width)`): RGB from 0 to 1, in any floating point
                dtype, on any device. Pictures of a new size are scored more slowly the first time: the preparation is
                compared with the pipeline's.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_attributes)`: in the order of `attributes`, in the model's
            `score_range`, on its device. A score that lies at the end of its range has the gradient of what the model
            would give beyond it.

        Raises:
            TypeError: If pixels are no floating point tensor.
            ValueError: If they have another shape or range, or the model's image processor does what cannot be done in
                torch.
        """
        check_pixels(pixels)
        model = self.scorer.model
        model.eval()
        inputs = self._preparation(pixels).inputs(pixels, self.rounded)
        output = model(**BatchFeature(inputs).to(model.device).to(model.dtype))  # of the floating point inputs only
        unclipped, _ = model.read_levels(output.logits)  # (B, A)
        scores: torch.Tensor = unclipped + (output.scores - unclipped).detach()
        return scores[:, self._columns]

    def _preparation(self, pixels: torch.Tensor) -> Preparation:
        """That of pictures of this size, made where it is new."""
        device = torch.device("cpu") if pixels.device.type == "mps" else pixels.device  # MPS has no float64
        key = (*pixels.shape[2:], device)
        if key not in self._preparations:
            if len(self._preparations) == KEPT_SIZES:
                del self._preparations[next(iter(self._preparations))]  # the oldest
            with torch.no_grad():
                self._preparations[key] = follow(self._pictures.prepare, self._pictures.options, *key)
        return self._preparations[key]


def check_pixels(pixels: torch.Tensor) -> None:
    """Refuse what is no batch of pictures from 0 to 1."""
    if not isinstance(pixels, torch.Tensor) or not pixels.is_floating_point():
        kind = pixels.dtype if isinstance(pixels, torch.Tensor) else type(pixels).__name__
        raise TypeError(f"pixels must be a floating point tensor from 0 to 1, got {kind}; divide 8-bit values by 255")
    if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.numel():
        raise ValueError(f"pixels must have shape (batch_size, 3, height, width), got {tuple(pixels.shape)}")
    low, high = (end.item() for end in pixels.detach().aminmax())
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise ValueError(
            f"pixels must lie in 0 to 1, got {low:g} to {high:g}; pass (pixels + 1) / 2 of a generator's −1 to 1, and "
            "clamp(0, 1) what an optimiser has moved"
        )


__all__ = ["DifferentiableScorer"]
