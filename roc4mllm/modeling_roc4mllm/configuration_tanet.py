"""Configuration of TANet (IJCAI 2022): a MobileNetV2, a theme branch on a scene classifier, and colour similarity."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import MobileNetV2Config, ResNetConfig

from .configuration_image_scorer import ImageScorerConfig

# Both networks in the layout of their first PyTorch versions, which the published weights have.
MOBILENET = {"tf_padding": False, "layer_norm_eps": 1e-5, "first_layer_is_expansion": False}
RESNET18 = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}


@strict
class TANetConfig(ImageScorerConfig):
    r"""
    The defaults are those of the variant for AVA. The one for TAD66K has `num_levels=1`, `score_range=(0, 10)` and
    `theme_activation="softmax"`: its labels were scores divided by 10, so that its scores are in the data set's units.

    Args:
        mobilenet_config (`dict` or [`~transformers.MobileNetV2Config`], *optional*):
            Network of the perception branch; by default of width 1, padded as PyTorch pads.
        scene_config (`dict` or [`~transformers.ResNetConfig`], *optional*):
            Frozen network that knows the scene; by default a ResNet-18.
        num_scenes (`int`, *optional*, defaults to 365):
            Scenes that it tells apart, those of Places365.
        theme_size (`int`, *optional*, defaults to 100):
            Length of the query and of the weights that the hypernetwork makes for it.
        theme_activation (`str`, *optional*, defaults to `"prelu"`):
            What follows the product of query and weights. `"prelu"`: the statistics of `theme_calibrated`, then PReLU.
            `"softmax"`: over the pictures of the batch with `legacy_batch_mixing`, and over one number without, which
            is 1 for every picture: then the branch says nothing, as the original's does on single pictures.
        theme_calibrated (`bool`, *optional*):
            Whether the model holds statistics that the product is normalised by. The original normalises by those of
            the batch and stores none, so that a converted model is `False` until they were measured. `None` for a
            model that was trained without them and needs none. Training changes this by
            [`~TANetForImageAesthetics.before_training`].
        legacy_batch_mixing (`bool`, *optional*, defaults to `False`):
            Multiply the query of every picture with the weights of every other one, as the original does: the scores
            of a picture depend on the batch. For comparison with the original's numbers only.
        colour_grid (`int`, *optional*, defaults to 12):
            Cells a side in which colours are averaged before each is compared with each.
        dropout (`float`, *optional*, defaults to 0.75):
            Before each of the three heads, in training.
        num_levels, raw_head, score_range, attributes, higher_is_better, score_head_trained (*optional*):
            As in [`ImageScorerConfig`].

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or value; the message names it.
    """

    model_type = "tanet"
    sub_configs = {"mobilenet_config": MobileNetV2Config, "scene_config": ResNetConfig}

    mobilenet_config: Any = None
    scene_config: Any = None
    num_scenes: int = 365
    theme_size: int = 100
    theme_activation: str = "prelu"
    theme_calibrated: bool | None = None
    legacy_batch_mixing: bool = False
    colour_grid: int = 12
    dropout: float = 0.75

    def __post_init__(self, **kwargs):
        self.mobilenet_config = as_config(MobileNetV2Config, self.mobilenet_config, MOBILENET)
        self.scene_config = as_config(ResNetConfig, self.scene_config, RESNET18)
        super().__post_init__(**kwargs)

    def validate_sizes(self):
        """There are scenes, a query and cells of colour."""
        for name in ("num_scenes", "theme_size", "colour_grid"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")

    def validate_theme(self):
        """The theme branch has an activation that is known, and statistics only where it uses them."""
        if self.theme_activation not in ("prelu", "softmax"):
            raise ValueError(f"theme_activation must be 'prelu' or 'softmax', got {self.theme_activation!r}.")
        if self.theme_activation == "softmax" and self.theme_calibrated is not None:
            raise ValueError(
                "theme_calibrated must be None with theme_activation='softmax', which uses no statistics."
            )


def as_config(config_class, given, defaults: dict):
    """A part's configuration as an object; fields that are not given take their defaults here."""
    if isinstance(given, config_class):
        return given
    fields = {name: value for name, value in (given or {}).items() if name != "model_type"}
    return config_class(**(defaults | fields))


__all__ = ["TANetConfig"]
