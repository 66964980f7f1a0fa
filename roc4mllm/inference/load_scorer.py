"""One call from a model's name to a scorer, used by the command line and everything above it."""

from pathlib import Path
from typing import Any

from transformers import pipeline

from roc4mllm.processing_roc4mllm.pipeline_image_aesthetics import ImageAestheticsPipeline

BUNDLED_CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "roc4mllm-tiny"


def load_scorer(model: Any = None, **kwargs: Any) -> ImageAestheticsPipeline:
    """
    The image-aesthetics pipeline on a model, without trusting any code in the model's folder.

    transformers' own `pipeline` runs the pipeline file of a Hub folder, and asks for trust, even where this package is
    installed; here the installed class is used.

    Args:
        model (`str`, `os.PathLike` or `PreTrainedModel`, *optional*):
            Hub name, folder or model (then also pass `processor`); the bundled `roc4mllm-tiny` by default.
        **kwargs:
            As in [`~transformers.pipeline`]: `device`, `dtype`, `device_map`, `revision`, `batch_size`,
            `num_workers`, `allow_untrained`, …

    Raises:
        ValueError: If the model cannot score pictures, was never trained to, or lacks its processor.
        OSError: If there is no such model.
    """
    if model is None:
        model = BUNDLED_CHECKPOINT
    if isinstance(model, Path):
        model = str(model)
    scorer: ImageAestheticsPipeline = pipeline(
        "image-aesthetics", model=model, pipeline_class=ImageAestheticsPipeline, **kwargs
    )
    return scorer


__all__ = ["BUNDLED_CHECKPOINT", "load_scorer"]
