"""What only a CUDA device can show: `pytest -m gpu`."""

import importlib.util

import pytest
import torch
from tiny import backbone, photo, scorer_parts
from tiny_training import ATTRIBUTES, curve, trainer
from transformers import BitsAndBytesConfig

import roc4mllm
from roc4mllm import ROC4MLLMForImageAesthetics, ROC4MLLMProcessor

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _needs_cuda():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


def test_mixed_precision_follows_the_float32_curve(tmp_path):
    plain, mixed = trainer(tmp_path, use_cpu=False), trainer(tmp_path, use_cpu=False, bf16=True)
    for trained in (plain, mixed):
        trained.train()
        assert next(trained.model.parameters()).is_cuda
    for line, wanted in zip(curve(mixed), curve(plain), strict=True):
        assert line["loss"] == pytest.approx(wanted["loss"], rel=0.05)
    assert mixed.model.score_head.weight.dtype == torch.float32


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_an_adapter_on_weights_of_four_bits_trains_and_loads(tmp_path, kind):
    model, processor = backbone(kind)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "backbone")
    quantization_config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
    processor = ROC4MLLMProcessor.from_backbone(tmp_path / "backbone", attributes=ATTRIBUTES)
    model = ROC4MLLMForImageAesthetics.from_backbone(
        tmp_path / "backbone", processor=processor, num_levels=5, score_range=(1, 5),
        quantization_config=quantization_config, device_map={"": 0},
    )  # fmt: skip
    roc4mllm.add_lora(model, r=4)
    trained = trainer(tmp_path / "out", model=model, processor=processor, use_cpu=False, bf16=True)
    trained.train()
    losses = [line["loss"] for line in curve(trained)]
    assert losses[-1] < losses[0]
    trained.save_model()
    scorer = roc4mllm.load_scorer(str(tmp_path / "out"), device_map={"": 0})
    assert scorer(photo(0))["error"] is None


@pytest.mark.skipif(not importlib.util.find_spec("flash_attn"), reason="flash-attn is not installed")
def test_flash_attention_trains_like_sdpa(tmp_path):
    curves = []
    for implementation in ("sdpa", "flash_attention_2"):
        model, processor = scorer_parts("qwen2_vl", ATTRIBUTES)
        model.set_attn_implementation(implementation)
        trained = trainer(tmp_path, model=model.to(torch.bfloat16), processor=processor, use_cpu=False, bf16=True)
        trained.train()
        curves.append([line["loss"] for line in curve(trained)])
    assert curves[1] == pytest.approx(curves[0], rel=0.05)
