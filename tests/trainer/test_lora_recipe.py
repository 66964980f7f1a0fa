"""LoRA through peft: which layers get it, what is trained, how large it is, whole weights and 4 bits, resuming."""

import json
import re
import shutil
import sys

import pytest
import tiny_training
import torch
from backbones_checks import Trial, distance
from backbones_tiny import tiny_model
from tiny import BACKBONES, photo, scorer_parts
from tiny_training import eat_parts
from transformers import AutoConfig, BitsAndBytesConfig

from roc4mllm import ROC4MLLMConfig, ROC4MLLMForImageAesthetics
from roc4mllm.trainer.lora_recipe import add_lora, merge_adapter, pattern_of
from roc4mllm.trainer.model_parts import named_parts

PICTURES = [photo(seed, width, height) for seed, (width, height) in enumerate([(64, 48), (32, 96), (48, 48)])]
RATED = {"scores": [2.0, 3.0, 4.5], "comments": ["calm light", None, "a busy frame"]}
FAMILIES = [(kind, tied) for kind in ("llava", "qwen2_vl", "smolvlm", "gemma3") for tied in (True, False)]


def adapted_layers(model) -> set[str]:
    """Names of the layers that have low-rank weights."""
    return {name.rpartition(".lora_A")[0] for name, _ in model.named_modules() if name.endswith(".lora_A")}


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def train(model, batch, steps: int = 4) -> list[float]:
    """Losses of a few steps of AdamW on one batch."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    losses = []
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


# ---- which layers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BACKBONES)
def test_every_linear_layer_of_the_language_model_and_no_other(kind):
    model, processor = scorer_parts(kind)
    batch = processor(images=PICTURES)
    before = model(**batch).scores
    add_lora(model, r=3, dropout=0.5)
    layers = adapted_layers(model)
    decoder = next(name for name, module in model.named_modules() if module is model.backbone.get_decoder())
    projections = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    if kind == "mplugowl2":
        projections |= {"image_k_proj", "image_v_proj"}
    found = {(int(re.search(r"layers\.(\d+)", name).group(1)), name.rpartition(".")[2]) for name in layers}
    assert found == {(layer, name) for layer in (0, 1) for name in projections}
    assert all(name.startswith(f"{decoder}.") for name in layers)
    assert isinstance(model, ROC4MLLMForImageAesthetics)
    assert torch.equal(model(**batch).scores, before)  # low-rank weights start at zero, and dropout is off as before


def test_connector_and_vision_tower_if_asked():
    model, _ = scorer_parts("llava")
    add_lora(model, parts=["connector", "vision_tower"])
    parts = named_parts(model)
    by_part = {part: sum(".lora_A." in name for name, _ in named) for part, named in parts.items()}
    assert by_part == {"language_model": 0, "connector": 2, "vision_tower": 3 * 6, "score_head": 0}


@pytest.mark.parametrize(("kind", "tied"), FAMILIES)
def test_what_is_trainable_moves_and_nothing_else(kind, tied):
    model, processor = scorer_parts(kind, tied=tied)
    batch = processor(images=PICTURES, **RATED)
    add_lora(model, r=4)
    row, before = model.config.score_token_id, weights(model)
    embeddings = [model.get_input_embeddings(), model.get_output_embeddings()]
    rows = [module.weight.detach().clone() for module in embeddings]
    losses = train(model, batch)
    assert losses[-1] < losses[0] - 0.1
    trained = {name for name, value in model.named_parameters() if not torch.equal(before[name], value)}
    assert trained == {name for name, value in model.named_parameters() if value.requires_grad}
    assert {"score_head.weight"} < trained
    assert len(trained) == 14 * 2 + (1 if tied else 2) + 1
    for module, old in zip(embeddings, rows, strict=True):
        changed = (module.weight != old).any(1).nonzero().flatten().tolist()
        assert changed == [row]  # in both embeddings, tied or not, and no other row
    assert torch.equal(embeddings[0].weight[row], embeddings[1].weight[row]) == tied


def test_trained_weights_are_float32_in_a_bfloat16_model():
    model, processor = scorer_parts("qwen2_vl")
    add_lora(model.to(torch.bfloat16), r=4)
    assert {value.dtype for value in model.parameters() if value.requires_grad} == {torch.float32}
    assert model.dtype == torch.bfloat16
    batch = processor(images=PICTURES, **RATED).to(torch.bfloat16)
    losses = train(model, batch)
    assert losses[-1] < losses[0] - 0.1


def test_gradient_checkpointing_gives_the_same_gradients():
    model, processor = scorer_parts("gemma3")
    batch = processor(images=PICTURES, **RATED)
    add_lora(model, r=4, dropout=0.0).train()
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
        model(**batch).loss.backward()
        found.append({name: value.grad.clone() for name, value in model.named_parameters() if value.requires_grad})
        model.zero_grad()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)
    assert max(gradient.abs().max() for gradient in found[0].values()) > 1e-2


# ---- size -----------------------------------------------------------------------------------------------------------


def test_adapter_of_a_two_billion_model_takes_tens_of_megabytes():
    """Of the shape of Qwen2-VL-2B, without its weights."""
    text = {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12}
    text |= {"num_key_value_heads": 2, "vocab_size": 151937, "tie_word_embeddings": True}
    vision = {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16}
    backbone = AutoConfig.for_model("qwen2_vl", text_config=text, vision_config=vision, tie_word_embeddings=True)
    with torch.device("meta"):
        model = ROC4MLLMForImageAesthetics(ROC4MLLMConfig(mllm_config=backbone, score_token_id=151936))
    assert 2.0e9 < sum(p.numel() for p in model.parameters()) < 2.5e9
    add_lora(model, r=16)
    layer = 2 * (1536 + 1536) + 2 * (1536 + 256) + 3 * (1536 + 8960)  # q and o, k and v, gate and up and down
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == 28 * 16 * layer + 1536 + 10 * 1536
    assert 70e6 < 4 * count < 80e6  # bytes in float32
    assert len(model.peft_config["default"].target_modules) < 600  # not a list of 196 names


# ---- unusual backbones ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "trained_rows"),
    [
        ("llama4", 2),  # its router is a linear layer by class, and returns two tensors
        ("git", 1),  # a layer norm between numbered linear layers; a bias in its output embedding
        ("blip-2", 1),  # tied, and its outer config does not say so
        ("blip", 0),  # tied, with a bias
        ("muse_glimmer", 1),  # its input embedding normalises what it looks up
        ("aria", 2),  # experts in one tensor
    ],
)
def test_unusual_backbones(name, trained_rows):
    trial = Trial(name, tiny_model(name), None)
    model, inputs = trial.model, trial.example.inputs()
    labels = inputs["input_ids"].clone()
    labels[:, : trial.example.prompt] = -100
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    text_loss = model(**inputs, labels=labels).text_loss.item()
    add_lora(model, r=2)
    assert distance(trial.score(**inputs), trial.scores) < 1e-5
    assert model(**inputs, labels=labels).text_loss.item() == pytest.approx(text_loss, abs=1e-5)
    rows = [name for name, _ in model.named_parameters() if "trainable_tokens" in name]
    assert len(rows) == trained_rows
    for name, value in model.named_parameters():
        if value.requires_grad and name != "score_head.weight":
            torch.nn.init.normal_(value, std=0.1)
    scores, text_loss = trial.score(**inputs), model(**inputs, labels=labels).text_loss.item()
    assert distance(scores, trial.scores) > 1e-2
    merge_adapter(model)
    assert distance(trial.score(**inputs), scores) < 1e-5
    assert model(**inputs, labels=labels).text_loss.item() == pytest.approx(text_loss, abs=1e-5)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied


def test_a_scorer_without_a_language_model_is_refused():
    with pytest.raises(ValueError, match="EATForImageAesthetics has no language model"):
        add_lora(eat_parts()[0])


def test_untold_tying_is_refused(monkeypatch):
    """peft would then train the input row alone, and merging would change the text."""
    model, _ = scorer_parts("llava", tied=True)
    monkeypatch.setattr(type(model.backbone), "_tied_weights_keys", {})
    with pytest.raises(ValueError, match="LlavaForConditionalGeneration ties.*_tied_weights_keys"):
        add_lora(model)


def test_pattern_takes_numbers_together_only_where_nothing_else_fits():
    names = [f"a.layers.{index}.q" for index in range(30)] + ["b.0.x", "b.2.x"]
    others = {"b.1.x", "a.layers.0", "a.layers.0.q.y", "aalayers.0.q"}
    pattern = pattern_of(names, others)
    assert pattern == r"a\.layers\.\d+\.q|b\.0\.x|b\.2\.x"
    assert all(re.fullmatch(pattern, name) for name in names)
    assert not any(re.fullmatch(pattern, other) for other in others)


# ---- 4 bits ---------------------------------------------------------------------------------------------------------


def test_backbone_in_4_bits(tmp_path):
    """In training mode and with gradients: else bitsandbytes' CPU kernel refuses layers as narrow as these."""
    plain, processor = scorer_parts("llava")
    plain.backbone.save_pretrained(tmp_path / "backbone")
    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    model = ROC4MLLMForImageAesthetics.from_backbone(
        tmp_path / "backbone", processor=processor, num_levels=5, score_range=(1, 5), quantization_config=bits
    )
    torch.nn.init.normal_(model.score_head.weight, std=0.5)
    add_lora(model, r=4, dropout=0.0)
    before, batch = weights(model), processor(images=PICTURES, **RATED)
    losses = train(model, batch)
    assert losses[-1] < losses[0] - 0.1
    assert sum(type(module).__name__ == "Linear4bit" for module in adapted(model)) == 14
    moved = {name for name, value in model.named_parameters() if not torch.equal(before[name], value)}
    assert moved == {name for name, value in model.named_parameters() if value.requires_grad}
    model.save_pretrained(tmp_path / "out")
    again = ROC4MLLMForImageAesthetics.from_pretrained(tmp_path / "out")
    whole = ROC4MLLMForImageAesthetics.from_pretrained(tmp_path / "out", quantization_config=None)
    expected = model.train()(**batch).scores
    assert torch.equal(again.train()(**batch).scores, expected)  # on the same 4 bits
    assert not torch.allclose(whole(**batch).scores, expected, atol=1e-3)  # on the weights that they stand for
    with pytest.raises(ValueError, match="quantization_config=None"):
        merge_adapter(again)
    merged_scores, expected = merge_adapter(whole)(**batch).scores, whole(**batch).scores
    torch.testing.assert_close(merged_scores, expected, atol=1e-5, rtol=0)


def adapted(model) -> list:
    """The layers that have low-rank weights."""
    return [model.get_submodule(name) for name in adapted_layers(model)]


# ---- resuming -------------------------------------------------------------------------------------------------------


def tiny_trainer(folder, backbone, **options):
    """A Trainer of a fresh adapter on a backbone in a folder."""
    _, processor = scorer_parts("qwen2_vl", tiny_training.ATTRIBUTES)
    torch.manual_seed(0)
    model = ROC4MLLMForImageAesthetics.from_backbone(
        backbone, processor=processor, num_levels=5, score_range=(1.0, 5.0)
    )
    return tiny_training.trainer(
        folder, model=add_lora(model, r=4), processor=processor, save_strategy="steps", save_steps=2, **options
    )


def test_a_resumed_training_ends_with_the_same_weights(tmp_path):
    scorer_parts("qwen2_vl")[0].backbone.save_pretrained(tmp_path / "backbone")
    whole = tiny_trainer(tmp_path / "whole", tmp_path / "backbone")
    whole.train()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    resumed = tiny_trainer(tmp_path / "resumed", tmp_path / "backbone")
    fresh = weights(resumed.model)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6
    for name, value in whole.model.named_parameters():
        torch.testing.assert_close(dict(resumed.model.named_parameters())[name], value, atol=1e-7, rtol=0)
        assert torch.equal(fresh[name], value) != value.requires_grad
    checkpoint = ROC4MLLMForImageAesthetics.from_pretrained(tmp_path / "whole" / "checkpoint-6")
    for name, value in checkpoint.named_parameters():
        assert torch.equal(dict(whole.model.named_parameters())[name], value)


def test_the_best_checkpoint_is_loaded(tmp_path):
    scorer_parts("qwen2_vl")[0].backbone.save_pretrained(tmp_path / "backbone")
    trained = tiny_trainer(
        tmp_path / "out", tmp_path / "backbone", eval_strategy="steps", eval_steps=2, load_best_model_at_end=True,
        metric_for_best_model="loss", greater_is_better=True,
    )  # fmt: skip
    trained.train()
    losses = {line["step"]: line["eval_loss"] for line in trained.state.log_history if "eval_loss" in line}
    best = max(losses, key=losses.get)  # the worst, so that it is not the last
    assert best == 2
    assert trained.evaluate()["eval_loss"] == pytest.approx(losses[best], rel=1e-5)


def test_a_loaded_adapter_is_trained_on_as_it_was(tmp_path):
    model, processor = scorer_parts("llava")
    backbone = scorer_parts("llava")[0].backbone
    add_lora(model, r=4)
    batch = processor(images=PICTURES, **RATED)
    train(model, batch)
    model.save_pretrained(tmp_path)
    again = ROC4MLLMForImageAesthetics.from_pretrained(tmp_path, backbone=backbone)
    trainable = {name for name, value in model.named_parameters() if value.requires_grad}
    assert {name for name, value in again.named_parameters() if value.requires_grad} == trainable
    first, second = train(model, batch, steps=1), train(again, batch, steps=1)
    assert not again.training
    torch.manual_seed(0)
    assert first == pytest.approx(second, rel=0.2)  # but for dropout
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 4


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_wrong_arguments(monkeypatch):
    model, _ = scorer_parts("llava")
    with pytest.raises(ValueError, match="no part tower; its parts are .*vision_tower"):
        add_lora(model, parts=["tower"])
    with pytest.raises(ValueError, match=r"\['score_head'\].*always trained"):
        add_lora(model, parts=["score_head"])
    for r in (0, 2.5):
        with pytest.raises(ValueError, match="positive rank"):
            add_lora(model, r=r)
    for options in ({"alpha": float("nan")}, {"alpha": 0}, {"dropout": -1}, {"dropout": 1}):
        with pytest.raises(ValueError, match="alpha must be above 0 and finite, dropout 0 or more and below 1"):
            add_lora(model, **options)
    with pytest.raises(ValueError, match="no adapter to merge"):
        merge_adapter(model)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "peft", None)
        with pytest.raises(ImportError, match=r'pip install "roc4mllm\[train\]"'):
            add_lora(model)
    add_lora(model)
    with pytest.raises(ValueError, match="has an adapter already"):
        add_lora(model)
