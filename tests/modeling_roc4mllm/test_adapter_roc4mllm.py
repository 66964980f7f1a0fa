"""Adapter folders: what they hold, every road to load one, on which model, merging, errors that name the remedy."""

import json
import shutil
import sys

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import backbone, photo
from transformers import AutoModel, pipeline
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from roc4mllm import (
    AutoModelForImageAesthetics,
    ROC4MLLMForImageAesthetics,
    ROC4MLLMProcessor,
    load_scorer,
)
from roc4mllm.inference.load_scorer import BUNDLED_CHECKPOINT
from roc4mllm.modeling_roc4mllm.adapter_roc4mllm import is_adapter_folder, load_adapter_weights, merge_adapter
from roc4mllm.trainer.lora_recipe import add_lora

PICTURES = [photo(seed, width, height) for seed, (width, height) in enumerate([(64, 48), (32, 96), (48, 48)])]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def draw(model) -> None:
    """Adapter and score head as after a long training, so that each of them shows in the scores."""
    torch.manual_seed(1)
    for name, value in model.named_parameters():
        if value.requires_grad:
            torch.nn.init.normal_(value, std=0.5 if "score_head" in name else 0.1)
    model.config.score_head_trained = True


@torch.no_grad()
def scores(model, processor) -> torch.Tensor:
    found = model(**processor(images=PICTURES)).scores
    assert ((found[0] - found[1]).abs() > 1e-3).all()
    return found


def train_adapter(folder, kind: str = "llava", **options):
    """`(model, processor)` of an adapter in `folder/adapter` on the backbone in `folder/backbone`."""
    plain, processor = backbone(kind, **options)
    plain.save_pretrained(folder / "backbone")
    processor = ROC4MLLMProcessor.from_backbone(processor)
    model = ROC4MLLMForImageAesthetics.from_backbone(
        folder / "backbone", processor=processor, num_levels=5, score_range=(1, 5)
    )
    bare = scores(model, processor)
    draw(add_lora(model, r=4))
    assert (scores(model, processor) - bare).abs().min() > 1e-3
    model.save_pretrained(folder / "adapter")
    processor.save_pretrained(folder / "adapter")
    return model, processor


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder, model and processor of [`train_adapter`], for tests that change none of them."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, *train_adapter(folder)


@pytest.fixture
def moved(trained, tmp_path):
    """The adapter's folder where its backbone is not found, the backbone's new place, model and processor."""
    folder, model, processor = trained
    shutil.copytree(folder / "adapter", tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter" / "adapter_config.json"
    path.write_text(path.read_text().replace(str(folder / "backbone"), str(tmp_path / "elsewhere")))
    return tmp_path / "adapter", folder / "backbone", model, processor


# ---- the folder -----------------------------------------------------------------------------------------------------


def test_folder_holds_the_adapter_and_no_backbone(trained):
    folder, model, _ = trained
    names = {path.relative_to(folder / "adapter").as_posix() for path in (folder / "adapter").rglob("*.*")}
    assert {name for name in names if "/" in name or name.endswith(".safetensors")} == {
        "adapter/adapter_config.json", "adapter/adapter_model.safetensors", "score_head.safetensors",
    }  # fmt: skip
    assert {"config.json", "processor_config.json", "tokenizer.json", "adapter_roc4mllm.py"} <= names
    assert "adapter_config.json" not in names  # in the root it makes transformers load the bare backbone
    assert is_adapter_folder(folder / "adapter")
    head = load_file(folder / "adapter" / "score_head.safetensors")["weight"]
    assert torch.equal(head, model.score_head.weight)
    held = load_file(folder / "adapter" / "adapter" / "adapter_model.safetensors")
    assert sum(value.numel() for value in held.values()) + head.numel() == sum(
        value.numel() for value in model.parameters() if value.requires_grad
    )
    entries = json.loads((folder / "adapter" / "adapter" / "adapter_config.json").read_text())
    assert entries["base_model_name_or_path"] == str(folder / "backbone")
    assert str(folder) not in (folder / "adapter" / "config.json").read_text()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llava", "qwen2_vl", "smolvlm", "gemma3"])
def test_loads_and_merges_to_the_same_scores_and_text(tmp_path, kind, tied):
    model, processor = train_adapter(tmp_path, kind, tied=tied)
    batch = processor(images=PICTURES, scores=[2.0, 3.0, 4.5])
    expected, text_loss = scores(model, processor), model(**batch).text_loss
    again = ROC4MLLMForImageAesthetics.from_pretrained(tmp_path / "adapter")
    assert not again.training
    torch.testing.assert_close(scores(again, processor), expected, atol=1e-6, rtol=0)
    merged = merge_adapter(again)
    merged.save_pretrained(tmp_path / "whole")
    whole, info = ROC4MLLMForImageAesthetics.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not any(info.values())
    for other in (merged, whole):
        assert not any("lora" in name or "token_adapter" in name for name, _ in other.named_modules())
        assert all(value.requires_grad for value in other.parameters())
        torch.testing.assert_close(scores(other, processor), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(other(**batch).text_loss, text_loss, atol=1e-5, rtol=0)
        assert (other.get_input_embeddings().weight is other.get_output_embeddings().weight) == tied
    assert not is_adapter_folder(tmp_path / "whole")


def test_whole_model_saved_over_an_adapter_replaces_it(tmp_path):
    model, processor = train_adapter(tmp_path)
    merge_adapter(model)
    torch.nn.init.normal_(model.score_head.weight, std=0.5)
    model.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "adapter").exists()
    assert not (tmp_path / "adapter" / "score_head.safetensors").exists()
    expected = scores(model, processor)
    whole = AutoModel.from_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(scores(whole, processor), expected, atol=5e-6, rtol=0)


def test_the_backbones_own_folder_is_refused(trained):
    folder, model, _ = trained
    before = (folder / "backbone" / "config.json").read_bytes()
    with pytest.raises(ValueError, match="holds the model below this adapter"):
        model.save_pretrained(folder / "backbone")
    assert (folder / "backbone" / "config.json").read_bytes() == before


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning:transformers"
)  # asked by peft
def test_plain_peft_reads_its_files(trained):
    folder, model, processor = trained
    plain = ROC4MLLMForImageAesthetics.from_backbone(
        folder / "backbone", processor=processor, num_levels=5, score_range=(1, 5)
    )
    plain.score_head.weight.data.copy_(model.score_head.weight)
    plain.config.score_head_trained = True
    with_peft = peft.PeftModel.from_pretrained(plain, folder / "adapter" / "adapter")
    torch.testing.assert_close(scores(with_peft, processor), scores(model, processor), atol=1e-6, rtol=0)


# ---- roads ----------------------------------------------------------------------------------------------------------


def test_every_road_by_path(trained):
    folder, model, processor = trained
    expected = scores(model, processor)
    for load in (AutoModel.from_pretrained, AutoModelForImageAesthetics.from_pretrained):
        torch.testing.assert_close(scores(load(folder / "adapter"), processor), expected, atol=1e-6, rtol=0)
    loaded, info = AutoModel.from_pretrained(folder / "adapter", output_loading_info=True)
    assert not any(info.values())
    torch.testing.assert_close(scores(loaded, processor), expected, atol=1e-6, rtol=0)
    for scorer in (
        load_scorer(folder / "adapter"),
        pipeline("image-aesthetics", model=str(folder / "adapter")),
    ):
        records = scorer(PICTURES, batch_size=3)
        assert [record["score"] for record in records] == pytest.approx(expected[:, 0].tolist(), abs=1e-5)
        assert records[0]["model"] == "adapter"


def test_scorer_saved_again_loads(trained, tmp_path):
    folder, model, processor = trained
    scorer = load_scorer(folder / "adapter")
    assert "The aesthetic rate of the image is" in scorer(PICTURES[0], text=True, max_new_tokens=2)["text"]
    scorer.save_pretrained(tmp_path)
    assert load_scorer(tmp_path)(PICTURES[0])["score"] == scorer(PICTURES[0])["score"]


def test_shipped_files_load_it(trained):
    """The classes that a process without the package gets from the folder."""
    folder, model, processor = trained
    shipped = get_class_from_dynamic_module("modeling_roc4mllm.ROC4MLLMForImageAesthetics", str(folder / "adapter"))
    assert shipped is not ROC4MLLMForImageAesthetics
    loaded = shipped.from_pretrained(folder / "adapter")
    torch.testing.assert_close(scores(loaded, processor), scores(model, processor), atol=1e-6, rtol=0)


def test_adapter_and_backbone_on_the_hub(tmp_path):
    """Served from the cache as after a download; the backbone in the revision of the training."""
    plain, processor = backbone("llava")
    for commit in (COMMIT, COMMIT[::-1]):
        plain.save_pretrained(repository(tmp_path, "backbone") / "snapshots" / commit)
        torch.nn.init.zeros_(plain.lm_head.weight)  # what `main` names is newer
    (repository(tmp_path, "backbone") / "refs" / "main").write_text(COMMIT[::-1])
    processor = ROC4MLLMProcessor.from_backbone(processor)
    model = ROC4MLLMForImageAesthetics.from_backbone(
        "user/backbone", processor=processor, revision=COMMIT, cache_dir=tmp_path, num_levels=5, score_range=(1, 5)
    )
    draw(add_lora(model, r=4))
    folder = repository(tmp_path, "adapter") / "snapshots" / COMMIT
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (repository(tmp_path, "adapter") / "refs" / "main").write_text(COMMIT)
    entries = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (entries["base_model_name_or_path"], entries["revision"]) == ("user/backbone", COMMIT)
    scorer = load_scorer("user/adapter", model_kwargs={"cache_dir": str(tmp_path)})
    record = scorer(PICTURES[0])
    assert (record["model"], record["revision"]) == ("user/adapter", COMMIT)
    assert record["score"] == pytest.approx(scores(model, processor)[0].item(), abs=1e-5)
    assert torch.equal(scorer.model.get_output_embeddings().weight, model.get_output_embeddings().weight)


def repository(cache, name: str):
    """A repository of the user in a cache."""
    (cache / f"models--user--{name}" / "refs").mkdir(parents=True, exist_ok=True)
    return cache / f"models--user--{name}"


# ---- the model below ------------------------------------------------------------------------------------------------


def test_missing_backbone_names_both_remedies(moved):
    folder, *_ = moved
    for load in (load_scorer, AutoModel.from_pretrained):
        with pytest.raises(OSError, match=r"elsewhere.*not found\. Put it back, or pass `backbone=`.*load_scorer\("):
            load(folder)


def test_backbone_by_folder_or_loaded(moved, tmp_path):
    folder, place, model, processor = moved
    expected = scores(model, processor)
    scorer = load_scorer(folder, backbone=place, dtype="float32")
    torch.testing.assert_close(scores(scorer.model, processor), expected, atol=1e-6, rtol=0)
    scorer.save_pretrained(tmp_path / "again")
    torch.testing.assert_close(scores(load_scorer(tmp_path / "again").model, processor), expected, atol=1e-6, rtol=0)
    plain, _ = backbone("llava")
    loaded = ROC4MLLMForImageAesthetics.from_pretrained(folder, backbone=plain)
    assert loaded.backbone is plain
    torch.testing.assert_close(scores(loaded, processor), expected, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="carries an adapter already"):
        ROC4MLLMForImageAesthetics.from_pretrained(folder, backbone=plain)


def test_adapter_of_a_model_made_in_memory_needs_its_backbone(tmp_path, caplog):
    plain, processor = backbone("llava")
    model = ROC4MLLMForImageAesthetics.from_backbone(plain, num_levels=5)
    add_lora(model, r=4)
    assert "cannot name the model below it" in caplog.text
    model.save_pretrained(tmp_path)
    with pytest.raises(OSError, match="does not name the model.*pass `backbone=`"):
        AutoModel.from_pretrained(tmp_path)
    ROC4MLLMForImageAesthetics.from_pretrained(tmp_path, backbone=backbone("llava")[0])


def test_adapter_on_a_whole_scorer(tmp_path):
    """The bundled one, trained further; its own score head is replaced, its row of `[SCORE]` was there before."""
    model = AutoModel.from_pretrained(BUNDLED_CHECKPOINT)
    processor = ROC4MLLMProcessor.from_pretrained(BUNDLED_CHECKPOINT)
    bundled = scores(model, processor)
    draw(add_lora(model, r=4))
    expected = scores(model, processor)
    assert (expected - bundled).abs().min() > 1e-3
    model.save_pretrained(tmp_path / "adapter")
    processor.save_pretrained(tmp_path / "adapter")
    loaded = load_scorer(tmp_path / "adapter").model
    assert loaded.peft_config["default"].base_model_name_or_path == str(BUNDLED_CHECKPOINT)
    torch.testing.assert_close(scores(loaded, processor), expected, atol=1e-6, rtol=0)
    again = ROC4MLLMForImageAesthetics.from_pretrained(
        tmp_path / "adapter", backbone=AutoModel.from_pretrained(BUNDLED_CHECKPOINT)
    )
    torch.testing.assert_close(scores(again, processor), expected, atol=1e-6, rtol=0)


def test_merged_model_is_not_named_as_the_one_below_a_second_adapter(trained, caplog):
    folder, *_ = trained
    merged = merge_adapter(AutoModel.from_pretrained(folder / "adapter"))
    add_lora(merged)
    assert merged.peft_config["default"].base_model_name_or_path is None
    assert "Save the model and load it first" in caplog.text


def test_what_an_adapter_was_trained_on_stays_with_what_it_is_merged_into(trained, tmp_path):
    shutil.copytree(trained[0] / "adapter", tmp_path / "adapter")
    (tmp_path / "adapter" / "trained_on.safetensors").write_bytes(b"hashes")
    merged = merge_adapter(AutoModel.from_pretrained(tmp_path / "adapter"))
    shutil.rmtree(tmp_path / "adapter")
    merged.save_pretrained(tmp_path / "whole")
    assert (tmp_path / "whole" / "trained_on.safetensors").read_bytes() == b"hashes"
    (tmp_path / "whole" / "trained_on.safetensors").rename(trained[0] / "backbone" / "trained_on.safetensors")
    fresh = AutoModel.from_pretrained(trained[0] / "adapter")
    fresh.name_or_path = str(trained[0] / "backbone")  # as of an adapter that was just added: this tells of another
    merge_adapter(fresh).save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other" / "trained_on.safetensors").exists()


def test_options_reach_the_backbone(trained, tmp_path):
    folder, model, processor = trained
    loaded = AutoModel.from_pretrained(folder / "adapter", dtype=torch.bfloat16, attn_implementation="eager")
    assert loaded.dtype == loaded.backbone.dtype == torch.bfloat16
    assert loaded.backbone.config.text_config._attn_implementation == "eager"
    assert {value.dtype for value in loaded.parameters() if value.requires_grad} == {torch.float32}
    loaded.save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path).dtype == torch.bfloat16  # that of the training, by default
    parts = ("model.multi_modal_projector", "model.language_model", "lm_head")
    device_map = {"model.vision_tower": "disk"} | dict.fromkeys(parts, "cpu")
    dispatched = AutoModel.from_pretrained(folder / "adapter", device_map=device_map, offload_folder=tmp_path / "disk")
    assert dispatched.hf_device_map["backbone.model.vision_tower"] == "disk"
    torch.testing.assert_close(scores(dispatched, processor), scores(model, processor), atol=1e-5, rtol=0)


# ---- weights of a checkpoint ----------------------------------------------------------------------------------------


def test_weights_of_a_checkpoint_into_the_model_that_is_trained(trained):
    folder, model, processor = trained
    again = AutoModel.from_pretrained(folder / "adapter")
    parameters = dict(again.named_parameters())
    for value in parameters.values():
        if value.requires_grad:
            torch.nn.init.zeros_(value)
    load_adapter_weights(again, folder / "adapter")
    assert all(parameters[name] is value for name, value in again.named_parameters())  # an optimiser holds them
    assert torch.equal(scores(again, processor), scores(model, processor))


def test_weights_of_another_adapter_are_refused(trained):
    folder, *_ = trained
    other = ROC4MLLMForImageAesthetics.from_backbone(backbone("llava")[0], num_levels=5)
    add_lora(other, r=8)
    before = {name: value.detach().clone() for name, value in other.named_parameters()}
    with pytest.raises(ValueError, match="holds another adapter.*28 .*Were r, the parts or the backbone changed"):
        load_adapter_weights(other, folder / "adapter")
    assert all(torch.equal(before[name], value) for name, value in other.named_parameters())


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_models_that_do_not_fit(trained):
    folder, *_ = trained
    with pytest.raises(ValueError, match="trained on a llava model; the one given for it is a qwen2_vl model"):
        ROC4MLLMForImageAesthetics.from_pretrained(folder / "adapter", backbone=backbone("qwen2_vl")[0])
    with pytest.raises(ValueError, match=r"\[SCORE\] is token 307 in the adapter, 386 in the scorer below"):
        load_scorer(folder / "adapter", backbone=BUNDLED_CHECKPOINT)
    for load in (load_scorer, ROC4MLLMForImageAesthetics.from_pretrained):
        with pytest.raises(TypeError, match="is a whole model; `backbone=` is for an adapter"):
            load(str(BUNDLED_CHECKPOINT), backbone=folder / "backbone")
    for nothing in (5, ["a"]):
        with pytest.raises(ValueError, match="no image-aesthetics model"):
            load_scorer(nothing)


def test_arguments_that_would_have_no_effect(trained, tmp_path):
    folder, model, _ = trained
    with pytest.raises(TypeError, match=r"\['dtype'\] apply to a backbone that is loaded here by name"):
        ROC4MLLMForImageAesthetics.from_pretrained(
            folder / "adapter", backbone=backbone("llava")[0], dtype=torch.bfloat16
        )
    with pytest.raises(ValueError, match=r"call model\.push_to_hub\(name\)"):
        model.save_pretrained(tmp_path, push_to_hub=True)
    assert not list(tmp_path.iterdir())


def test_without_peft(trained, monkeypatch):
    folder, *_ = trained
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r'pip install "roc4mllm\[train\]", or pip install peft'):
        AutoModel.from_pretrained(folder / "adapter")


def test_safetensors_only(moved):
    folder, place, *_ = moved
    weights = folder / "adapter" / "adapter_model.safetensors"
    torch.save(load_file(weights), folder / "adapter" / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(OSError, match=r"adapter_model\.safetensors"):
        AutoModel.from_pretrained(folder, backbone=place)


def test_missing_score_head_and_damaged_weights(moved):
    folder, place, *_ = moved
    weights = folder / "adapter" / "adapter_model.safetensors"
    held = load_file(weights)
    save_file({name: value for name, value in held.items() if "token_adapter" not in name}, weights)
    with pytest.raises(ValueError, match="holds another adapter.*2 weights"):
        AutoModel.from_pretrained(folder, backbone=str(place))
    (folder / "score_head.safetensors").unlink()
    with pytest.raises(OSError, match=r"score_head\.safetensors"):
        AutoModel.from_pretrained(folder, backbone=str(place))
