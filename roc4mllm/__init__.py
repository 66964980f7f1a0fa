"""
Image aesthetics assessment for transformers.

Importing this package registers its models and the task "image-aesthetics" with transformers.
"""

import importlib
from typing import TYPE_CHECKING, Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    ViTImageProcessorPil,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .inference.load_scorer import BUNDLED_CHECKPOINT, load_scorer
from .modeling_roc4mllm.configuration_eat import EATConfig
from .modeling_roc4mllm.configuration_elta import ELTAConfig
from .modeling_roc4mllm.configuration_mplug_owl2 import MPLUGOwl2Config
from .modeling_roc4mllm.configuration_roc4mllm import ROC4MLLMConfig
from .modeling_roc4mllm.configuration_tanet import TANetConfig
from .modeling_roc4mllm.modeling_auto_aesthetics import AutoModelForImageAesthetics
from .modeling_roc4mllm.modeling_eat import EATForImageAesthetics
from .modeling_roc4mllm.modeling_elta import ELTAForImageAesthetics
from .modeling_roc4mllm.modeling_mplug_owl2 import MPLUGOwl2ForConditionalGeneration, MPLUGOwl2Model
from .modeling_roc4mllm.modeling_outputs_aesthetics import AestheticsOutput
from .modeling_roc4mllm.modeling_roc4mllm import ROC4MLLMForImageAesthetics
from .modeling_roc4mllm.modeling_tanet import TANetForImageAesthetics
from .processing_roc4mllm.image_processing_mplug_owl2 import MPLUGOwl2ImageProcessor
from .processing_roc4mllm.pipeline_image_aesthetics import ImageAestheticsPipeline, __version__
from .processing_roc4mllm.processing_mplug_owl2 import MPLUGOwl2Processor
from .processing_roc4mllm.processing_roc4mllm import ROC4MLLMProcessor

AutoConfig.register("roc4mllm", ROC4MLLMConfig, exist_ok=True)
AutoModel.register(ROC4MLLMConfig, ROC4MLLMForImageAesthetics, exist_ok=True)
AutoModelForImageTextToText.register(ROC4MLLMConfig, ROC4MLLMForImageAesthetics, exist_ok=True)
AutoProcessor.register(ROC4MLLMConfig, ROC4MLLMProcessor, exist_ok=True)
AutoModel.register(MPLUGOwl2Config, MPLUGOwl2Model, exist_ok=True)  # the rest in ROC4MLLM's shipped files
AutoProcessor.register(MPLUGOwl2Config, MPLUGOwl2Processor, exist_ok=True)
AutoImageProcessor.register(MPLUGOwl2Config, image_processor_classes={"pil": MPLUGOwl2ImageProcessor}, exist_ok=True)
AutoConfig.register("eat", EATConfig, exist_ok=True)
AutoModel.register(EATConfig, EATForImageAesthetics, exist_ok=True)
AutoImageProcessor.register(EATConfig, image_processor_classes={"pil": ViTImageProcessorPil}, exist_ok=True)
AutoConfig.register("elta", ELTAConfig, exist_ok=True)
AutoModel.register(ELTAConfig, ELTAForImageAesthetics, exist_ok=True)
AutoImageProcessor.register(ELTAConfig, image_processor_classes={"pil": ViTImageProcessorPil}, exist_ok=True)
AutoConfig.register("tanet", TANetConfig, exist_ok=True)
AutoModel.register(TANetConfig, TANetForImageAesthetics, exist_ok=True)
AutoImageProcessor.register(TANetConfig, image_processor_classes={"pil": ViTImageProcessorPil}, exist_ok=True)

# Saved folders carry the sources of these classes, so that a process without this package loads them.
ROC4MLLMConfig.register_for_auto_class()
ROC4MLLMForImageAesthetics.register_for_auto_class("AutoModel")
ROC4MLLMProcessor.register_for_auto_class()
MPLUGOwl2Config.register_for_auto_class()
MPLUGOwl2ForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")
MPLUGOwl2Processor.register_for_auto_class()
MPLUGOwl2ImageProcessor.register_for_auto_class("AutoImageProcessor")
EATConfig.register_for_auto_class()
EATForImageAesthetics.register_for_auto_class("AutoModel")
ELTAConfig.register_for_auto_class()
ELTAForImageAesthetics.register_for_auto_class("AutoModel")
TANetConfig.register_for_auto_class()
TANetForImageAesthetics.register_for_auto_class("AutoModel")

PIPELINE_REGISTRY.register_pipeline(
    "image-aesthetics",
    pipeline_class=ImageAestheticsPipeline,
    pt_model=AutoModel,  # a class of ours here would be written into folders that plain transformers cannot read
    default={"model": (str(BUNDLED_CHECKPOINT), None)},
    type="multimodal",
)

if TYPE_CHECKING:
    from .inference.assessment import Assessment
    from .inference.differentiable.differentiable_scorer import DifferentiableScorer
    from .inference.explanation.explain import explain
    from .trainer.lora_recipe import add_lora, merge_adapter
    from .trainer.rating_data import read_ratings
    from .trainer.split_loss_config import SplitLossConfig
    from .trainer.split_loss_trainer import SplitLossTrainer

# Imported when they are first asked for: scoring should not wait for what it does not need.
LAZY = {
    "Assessment": "inference.assessment",
    "DifferentiableScorer": "inference.differentiable.differentiable_scorer",
    "SplitLossConfig": "trainer.split_loss_config",
    "SplitLossTrainer": "trainer.split_loss_trainer",
    "add_lora": "trainer.lora_recipe",
    "explain": "inference.explanation.explain",
    "merge_adapter": "trainer.lora_recipe",
    "read_ratings": "trainer.rating_data",
}


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{LAZY[name]}", __name__), name)


__all__ = [
    "AestheticsOutput",
    "Assessment",
    "AutoModelForImageAesthetics",
    "DifferentiableScorer",
    "EATConfig",
    "EATForImageAesthetics",
    "ELTAConfig",
    "ELTAForImageAesthetics",
    "ImageAestheticsPipeline",
    "MPLUGOwl2Config",
    "MPLUGOwl2ForConditionalGeneration",
    "MPLUGOwl2Processor",
    "ROC4MLLMConfig",
    "ROC4MLLMForImageAesthetics",
    "ROC4MLLMProcessor",
    "SplitLossConfig",
    "SplitLossTrainer",
    "TANetConfig",
    "TANetForImageAesthetics",
    "__version__",
    "add_lora",
    "explain",
    "load_scorer",
    "merge_adapter",
    "read_ratings",
]
