"""What a user may rely on, spelt out: changing it is a decision, not an accident. Also run on the built wheel."""

import re
from importlib.metadata import distribution
from pathlib import Path

import pytest
from transformers import AutoModel, pipelines

import roc4mllm

ROOT = Path(__file__).resolve().parent.parent
PUBLIC_NAMES = [
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
EXTRAS = {"train", "flash", "quant", "tune", "data", "plots", "serve", "demo", "bulk", "dev"}
BASE_DEPENDENCIES = {"torch", "transformers", "huggingface-hub", "pillow", "numpy", "safetensors", "tqdm", "filelock"}


def requirement_names(*, extras: bool) -> set[str]:
    """Names of what the installed package asks for: always, or only under one of its extras."""
    requirements = distribution("roc4mllm").requires or []
    chosen = (text for text in requirements if ("extra ==" in text) == extras)
    return {re.match(r"[\w-]+", text.replace(".", "-"))[0].lower() for text in chosen}


def test_all_lists_the_documented_names():
    assert sorted(roc4mllm.__all__) == sorted(PUBLIC_NAMES)


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_name_is_importable(name):
    assert getattr(roc4mllm, name) is not None


def test_version_is_the_installed_one():
    assert distribution("roc4mllm").version == roc4mllm.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", roc4mllm.__version__)


@pytest.mark.parametrize("name", ["README.md", "README_zh.md"])
def test_readme_shows_no_other_version(name):
    shown = re.findall(
        r"""roc4mllm(?:==|[ -]v?)(\d+\.\d+\.\d+)|version['"]: ['"](\d+\.\d+\.\d+)""", (ROOT / name).read_text()
    )
    assert {first or second for first, second in shown} <= {roc4mllm.__version__}


def test_task_is_registered_with_transformers():
    task, targets, _ = pipelines.PIPELINE_REGISTRY.check_task("image-aesthetics")
    assert task == "image-aesthetics"
    assert targets["impl"] is roc4mllm.ImageAestheticsPipeline
    assert AutoModel in targets["pt"]  # another auto class would be written into folders that others cannot read


def test_console_script_is_installed():
    (script,) = distribution("roc4mllm").entry_points.select(group="console_scripts")
    assert (script.name, script.value) == ("roc4mllm", "roc4mllm_cli:main")
    assert callable(script.load())


def test_bundled_checkpoint_is_installed():
    folder = Path(roc4mllm.__file__).parent / "checkpoints" / "roc4mllm-tiny"
    kinds = {path.suffix for path in folder.iterdir()}
    assert {".safetensors", ".json", ".md"} <= kinds
    assert not kinds & {".bin", ".pt", ".pkl", ".pickle"}, "pickled files can run code when they are loaded"


def test_base_install_asks_for_nothing_else():
    assert requirement_names(extras=False) == BASE_DEPENDENCIES


def test_extras_are_the_documented_ones_and_none_brings_torchvision():
    assert set(distribution("roc4mllm").metadata.get_all("Provides-Extra")) == EXTRAS
    assert "torchvision" not in requirement_names(extras=True)
