"""The auto class over all families of the task."""

from transformers import AutoModel


class AutoModelForImageAesthetics:
    """
    Loads any image-aesthetics model: `AutoModel`, with a check that what came out scores pictures.
    """

    def __init__(self):
        raise OSError("AutoModelForImageAesthetics is loaded with `from_pretrained` or `from_config`.")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """
        Arguments as in [`~transformers.AutoModel.from_pretrained`].

        Raises:
            ValueError: If the model is not an image-aesthetics model.
        """
        return scoring(AutoModel.from_pretrained(pretrained_model_name_or_path, *args, **kwargs))

    @classmethod
    def from_config(cls, config, **kwargs):
        """
        Arguments as in [`~transformers.AutoModel.from_config`]; the weights are random.

        Raises:
            ValueError: If the config is not that of an image-aesthetics model.
        """
        return scoring(AutoModel.from_config(config, **kwargs))


def scoring(loaded):
    """What was loaded, a model or `(model, loading info)`, if the model declares a score range."""
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    if not hasattr(model.config, "score_range"):
        raise ValueError(
            f"{type(model).__name__} is no image-aesthetics model: its config declares no score_range. To make one of "
            "a multimodal LLM, use ROC4MLLMForImageAesthetics.from_backbone."
        )
    return loaded


__all__ = ["AutoModelForImageAesthetics"]
