"""Folders as the authors publish them become native ones, or nothing."""

import json
import os
import weakref
from pathlib import Path

import pytest
import torch
from checkpoint_files import ODD_NAMES, roc4mllm_checkpoint, write_checkpoint
from originals import LEVELS
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import photo
from transformers import AutoModel

from roc4mllm import ROC4MLLMProcessor, load_scorer
from roc4mllm.hub import convert_folder as conversion
from roc4mllm.hub.convert_folder import convert_folder
from roc4mllm.hub.convert_original import load_original
from roc4mllm.hub.original_tokenizer import original_processor

NORM = "model.norm.weight"
PICTURES = [photo(0), photo(1, 30, 70)]


@pytest.fixture(scope="module")
def checkpoint():
    return roc4mllm_checkpoint()


@pytest.fixture
def source(tmp_path, checkpoint) -> Path:
    """Three `.bin` shards."""
    return write_checkpoint(tmp_path / "original", *checkpoint)


@pytest.fixture(scope="module")
def expected(checkpoint, tmp_path_factory):
    """Scores of the model that `load_original` makes of the same weights."""
    folder = write_checkpoint(tmp_path_factory.mktemp("expected"), *checkpoint)
    model = load_original("roc4mllm", checkpoint[1], checkpoint[0])
    processor = ROC4MLLMProcessor(backbone_processor=original_processor(folder, num_image_tokens=4))
    scores = load_scorer(model, processor=processor).score(PICTURES)
    assert abs(scores[0] - scores[1]) > 1e-3
    return scores


def change_json(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


class TestNativeFolder:
    @pytest.mark.parametrize("kind", ["bin", "safetensors"])
    @pytest.mark.parametrize("shards", [1, 3])
    def test_scores_are_the_original_ones(self, tmp_path, checkpoint, expected, kind, shards):
        convert_folder("roc4mllm", write_checkpoint(tmp_path / "a", *checkpoint, kind, shards), tmp_path / "native")
        names = {path.name for path in (tmp_path / "native").glob("model*.safetensors*")}
        files = {f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)} | {"model.safetensors.index.json"}
        assert names == (files if shards == 3 else {"model.safetensors"})
        _, info = AutoModel.from_pretrained(tmp_path / "native", output_loading_info=True)
        assert not any(info.values())
        torch.testing.assert_close(load_scorer(tmp_path / "native").score(PICTURES), expected, atol=1e-6, rtol=0)

    def test_config_and_wording(self, source, tmp_path):
        convert_folder("roc4mllm", source, tmp_path / "native")
        config = json.loads((tmp_path / "native" / "config.json").read_text())
        assert (config["num_levels"], config["score_range"], config["score_head_trained"]) == (
            LEVELS,
            [0.0, 5.0],
            True,
        )
        assert config["dtype"] == "float32"
        processor = json.loads((tmp_path / "native" / "processor_config.json").read_text())
        assert processor["question"] == "Please rate the aesthetics of the image."
        assert processor["answer"] == {"aesthetics": "The aesthetic rate of the image is [SCORE]."}
        assert processor["prompt"].endswith(" USER: <|image|>\n[QUESTION] ASSISTANT:")

    def test_files_are_those_of_any_saved_scorer(self, tmp_path, checkpoint):
        source = write_checkpoint(tmp_path / "original", *checkpoint, shards=1)
        convert_folder("roc4mllm", source, tmp_path / "native")
        load_scorer(tmp_path / "native").save_pretrained(tmp_path / "saved")
        native, saved = ({path.name for path in (tmp_path / name).iterdir()} for name in ("native", "saved"))
        assert native == saved | {"README.md"}
        ours, theirs = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("native", "saved"))
        assert ours == theirs
        assert "custom_pipelines" in ours

    def test_card(self, source, tmp_path):
        convert_folder("roc4mllm", source, tmp_path / "native", name="someone/model", revision="abc")
        card = (tmp_path / "native" / "README.md").read_text()
        assert "aesthetics from **0 to 5, higher is better**" in card
        assert "from `someone/model`, revision abc" in card
        assert [line[2:].split(":")[0] for line in card.splitlines() if line.startswith("- ")] == [
            "code",
            "weights",
            "base model",
            "data",
        ]
        convert_folder("roc4mllm", source, tmp_path / "other")
        card = (tmp_path / "other" / "README.md").read_text()
        assert "from `original`." in card
        assert str(tmp_path) not in card

    def test_card_of_a_folder_of_the_hub_cache(self, checkpoint, tmp_path):
        commit = "c0ffee" + "0" * 34
        source = write_checkpoint(tmp_path / "models--someone--my-model" / "snapshots" / commit, *checkpoint)
        convert_folder("roc4mllm", source, tmp_path / "native")
        assert f"from `someone/my-model`, revision {commit}" in (tmp_path / "native" / "README.md").read_text()

    def test_index(self, source, tmp_path):
        convert_folder("roc4mllm", source, tmp_path / "native")
        index = json.loads((tmp_path / "native" / "model.safetensors.index.json").read_text())
        found, size = {}, 0
        for path in sorted((tmp_path / "native").glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                assert file.metadata() == {"format": "pt"}
                found |= dict.fromkeys(file.keys(), path.name)
                size += sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
        assert index == {"metadata": {"total_size": size}, "weight_map": found}


class TestDtype:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_is_kept(self, tmp_path, checkpoint, expected, dtype):
        config, weights = checkpoint
        halves = {name: weight.to(dtype) for name, weight in weights.items()}
        convert_folder("roc4mllm", write_checkpoint(tmp_path / "a", config, halves), tmp_path / "native")
        scorer = load_scorer(tmp_path / "native")
        assert (scorer.model.dtype, scorer.model.score_head.weight.dtype) == (dtype, torch.float32)
        original = load_original("roc4mllm", halves, config).state_dict()
        found = scorer.model.state_dict()
        assert all(torch.equal(found[name], weight) for name, weight in original.items())
        torch.testing.assert_close(scorer.score(PICTURES), expected, atol=0.1, rtol=0)
        assert f"in {str(dtype).removeprefix('torch.')};" in (tmp_path / "native" / "README.md").read_text()

    def test_is_changed_when_asked_for_but_not_the_head(self, source, tmp_path, checkpoint):
        convert_folder("roc4mllm", source, tmp_path / "native", dtype="bfloat16")
        model = AutoModel.from_pretrained(tmp_path / "native")
        assert model.dtype == torch.bfloat16
        assert torch.equal(model.score_head.weight, checkpoint[1]["lm_head.weight"][-LEVELS:])  # not rounded


def test_one_shard_is_open_at_a_time(source, tmp_path, monkeypatch):
    opened, read = [], conversion.read_shard

    def watched(path):
        assert not any(reference() is not None for reference in opened)
        weights = read(path)
        opened.extend(weakref.ref(weight.untyped_storage()) for weight in weights.values())
        opened.extend(map(weakref.ref, weights.values()))
        return weights

    monkeypatch.setattr(conversion, "read_shard", watched)
    convert_folder("roc4mllm", source, tmp_path / "native")
    assert len(opened) > 100


def test_weights_of_one_storage_are_written_twice(tmp_path, checkpoint):
    config, weights = checkpoint
    first, second = (f"model.layers.0.input_layernorm.multiway.{copy}.weight" for copy in (0, 1))
    tied = weights | {second: weights[first]}
    convert_folder("roc4mllm", write_checkpoint(tmp_path / "a", config, tied, shards=1), tmp_path / "native")
    found = AutoModel.from_pretrained(tmp_path / "native").state_dict()
    layer = "backbone.model.language_model.layers.0"
    assert torch.equal(found[f"{layer}.input_layernorm.weight"], found[f"{layer}.image_input_layernorm.weight"])


def test_pixels_are_those_of_the_config_where_no_file_tells(source, tmp_path, expected):
    remove("preprocessor_config.json")(source)
    convert_folder("roc4mllm", source, tmp_path / "native")
    assert load_scorer(tmp_path / "native").processor.image_processor.size["height"] == 24


class TestPlace:
    def test_new_folders_and_empty_ones(self, source, tmp_path):
        (tmp_path / "empty").mkdir()
        for name in ("empty", "deep/er"):
            convert_folder("roc4mllm", source, tmp_path / name)
            assert (tmp_path / name / "config.json").is_file()
        (tmp_path / "plain").mkdir()
        assert (tmp_path / "deep/er").stat().st_mode == (tmp_path / "plain").stat().st_mode
        assert {path.name for path in tmp_path.iterdir()} == {"original", "empty", "deep", "plain"}

    @pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
    def test_odd_names(self, source, tmp_path, name):
        source.rename(tmp_path / name)
        convert_folder("roc4mllm", f"{tmp_path / name}/", tmp_path / "native" / name)
        assert f"\n# {name}\n" in (tmp_path / "native" / name / "README.md").read_text(encoding="utf-8")
        assert load_scorer(tmp_path / "native" / name)(PICTURES[0])["model"] == name

    def test_other_ways_to_name_a_folder(self, source, tmp_path, monkeypatch):
        name = "a b"
        source.rename(tmp_path / name)
        (tmp_path / "link").symlink_to(tmp_path / name)
        (tmp_path / name / "within").mkdir()
        monkeypatch.chdir(tmp_path / name / "within")
        for number, given in enumerate((tmp_path / name, "..", "../.", f"../../{name}", tmp_path / "link")):
            convert_folder("roc4mllm", given, f"../../{number}/{name}/")
            assert f"\n# {name}\n" in (tmp_path / str(number) / name / "README.md").read_text(encoding="utf-8")

    @pytest.mark.parametrize(
        ("name", "message"),
        [("", "Got a blank"), (os.fsdecode(b"bad\xff"), "no name in UTF-8")],
        ids=["blank", "no UTF-8"],
    )
    def test_names_that_cannot_be_used(self, source, tmp_path, monkeypatch, name, message):
        monkeypatch.chdir(source)  # a blank is not the folder that one is in
        for places in ((name, tmp_path / "native"), (source, name)):
            with pytest.raises(ValueError, match=message):
                convert_folder("roc4mllm", *places)
        assert [path.name for path in tmp_path.iterdir()] == ["original"]

    def test_what_is_there_stays(self, source, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        for destination in (tmp_path, tmp_path / "notes.txt"):
            with pytest.raises(FileExistsError, match="not an empty folder"):
                convert_folder("roc4mllm", source, destination)
        assert (tmp_path / "notes.txt").read_text() == "mine"

    def test_a_link_stays(self, source, tmp_path):
        (tmp_path / "empty").mkdir()
        for link, target in (("link", "empty"), ("dangling", "new")):
            (tmp_path / link).symlink_to(tmp_path / target)
            convert_folder("roc4mllm", source, tmp_path / link)
            assert (tmp_path / link).is_symlink()
            assert (tmp_path / target / "config.json").is_file()

    @pytest.mark.parametrize("name", ["notes.txt/native", "notes.txt/deep/native", "mount", "loop"])
    def test_a_bad_place_is_told_at_once(self, source, tmp_path, monkeypatch, name):
        (tmp_path / "notes.txt").write_text("mine")
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        monkeypatch.setattr("os.path.ismount", lambda path: Path(path).name == "mount")
        monkeypatch.setattr(conversion, "read_parts", None)
        with pytest.raises(OSError, match="is no folder|is a mount point|not an empty folder"):
            convert_folder("roc4mllm", source, tmp_path / name)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("No space left on device")])
    def test_what_is_interrupted_leaves_nothing(self, source, tmp_path, monkeypatch, error):
        files = []

        def write(weights, file, metadata):
            save_file(weights, file, metadata)
            files.append(file)
            if len(files) == 2:
                raise error

        monkeypatch.setattr(conversion, "save_file", write)
        with pytest.raises(type(error) if isinstance(error, OSError) else error):
            convert_folder("roc4mllm", source, tmp_path / "deep" / "native")
        assert [path.name for path in tmp_path.iterdir()] == ["original"]

    def test_another_process_was_faster(self, source, tmp_path, monkeypatch):
        def save(*args):
            (tmp_path / "native").mkdir()
            (tmp_path / "native" / "config.json").write_text("theirs")

        monkeypatch.setattr(conversion, "save_parts", save)
        with pytest.raises(OSError, match="not empty"):
            convert_folder("roc4mllm", source, tmp_path / "native")
        assert (tmp_path / "native" / "config.json").read_text() == "theirs"
        assert {path.name for path in tmp_path.iterdir()} == {"original", "native"}


INDEX = "pytorch_model.bin.index.json"
SECOND = "pytorch_model-00002-of-00003.bin"


def cut(name: str, end: int = -2000):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:end])


def write(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


def remove(name: str):
    return lambda folder: (folder / name).unlink()


def edit(name: str, change):
    return lambda folder: change_json(folder / name, change)


def edit_second(change):
    """Change the weights of the second shard."""

    def damage(folder):
        weights = torch.load(folder / SECOND)
        change(weights)
        torch.save(weights, folder / SECOND)

    return damage


def first_to(dtype: torch.dtype):
    def change(weights):
        name = next(name for name in weights if name.startswith("model.layers") and "proj" in name)
        weights[name] = weights[name].to(dtype)

    return edit_second(change)


def rename_first(weights):
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    weights[f"x.{name}"] = weights.pop(name)


class TestBadInput:
    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (remove("config.json"), "is no checkpoint: it has no config.json"),
            (edit("config.json", lambda c: c.pop("visual_config")), "not that of an mPLUG-Owl2 model"),
            (edit("config.json", lambda c: c.pop("score_id")), "lacks score_id"),
            (edit("config.json", lambda c: c.update(vocab_size="many")), r"config\.json of .* cannot be used"),
            (edit("config.json", lambda c: c.update(hidden_size="32")), r"config\.json of .* cannot be used"),
            (edit("config.json", lambda c: c.update(min_score=9)), "min < max"),
            (edit("config.json", lambda c: c.update(pad_token_id=5000)), "pad_token_id of config.json is 5000"),
            (edit("config.json", lambda c: c.update(hidden_act="nope")), "hidden_act of config.json is 'nope'"),
            (
                edit("config.json", lambda c: c.update(num_attention_heads=0)),
                "num_attention_heads of config.json is 0",
            ),
            (edit("config.json", lambda c: c.update(visual_config=5)), "not that of an mPLUG-Owl2 model"),
            (write("config.json", b"[]"), r"config\.json of the checkpoint holds a list"),
            (edit("preprocessor_config.json", lambda c: c.update(size=None)), r"config\.json has the size None"),
            (edit("preprocessor_config.json", lambda c: c.update(size=[24])), r"config\.json has the size \[24\]"),
            (cut("config.json"), r"config\.json of the checkpoint is no JSON"),
            (remove("tokenizer.model"), r"No tokenizer\.model"),
            (cut("tokenizer.model"), "no whole sentencepiece model"),
            (edit("added_tokens.json", lambda c: c.pop("[SCORE]")), r"added_tokens\.json has no \[SCORE\]"),
            (remove("added_tokens.json"), r"added_tokens\.json has no \[SCORE\]"),
            (edit("config.json", lambda c: c.update(score_id=7)), r"\[SCORE\] is token \d+ in the tokenizer, 7 in"),
            (edit("preprocessor_config.json", lambda c: c.update(size=28)), "28 pixels a side.* describes 24"),
            (remove(INDEX), "holds no weights: neither model.safetensors nor pytorch_model.bin"),
            (edit(INDEX, lambda c: c.pop("weight_map")), "has no weight_map"),
            (
                edit(INDEX, lambda c: c["weight_map"].update({NORM: "../x.bin"})),
                r"names '\.\./x\.bin'; expected \.bin",
            ),
            (edit(INDEX, lambda c: c["weight_map"].update({NORM: "a/x.bin"})), r"names 'a/x\.bin'; expected \.bin"),
            (edit(INDEX, lambda c: c["weight_map"].update({NORM: "x.pkl"})), r"names 'x\.pkl'; expected \.bin"),
            (remove(SECOND), f"names 3 files, of which {SECOND} is missing"),
            *((cut(SECOND, end), f"{SECOND} cannot be read and may be cut short") for end in (2, 5000, -2000)),
            (lambda f: cut(SECOND, (f / SECOND).stat().st_size // 2)(f), f"{SECOND} cannot be read and may be cut"),
            (cut(SECOND, 0), f"{SECOND} is no file of torch.save's zip format"),
            (write(SECOND, b"version https://git-lfs.github.com/spec/v1"), f"{SECOND} is no file of .* git-lfs"),
            (lambda folder: torch.save([1], folder / SECOND), f"{SECOND} holds a list; expected weights"),
            (lambda folder: torch.save({"a": 1}, folder / SECOND), f"{SECOND} holds a dict; expected weights"),
            (lambda folder: torch.save({1: torch.ones(1)}, folder / SECOND), f"{SECOND} holds a dict; expected"),
            (lambda folder: torch.save(Path(), folder / SECOND), f"{SECOND} is refused: .* could run code"),
            *(
                (first_to(dtype), rf"float32, float16, bfloat16; got model\..* \({dtype}\) \(1\)")
                for dtype in (torch.int8, torch.float8_e4m3fn, torch.float64)
            ),
            (edit_second(rename_first), r"unknown x\.model\.layers.*; missing model\.layers.*q_proj\.weight"),
            (
                edit_second(
                    lambda w: w.pop(
                        next(name for name in w if "visual_abstractor" in name and name.endswith("proj.weight"))
                    )
                ),
                r"missing .*proj\.weight \(1\)",
            ),
            (edit_second(lambda w: w.update({NORM: torch.ones(32), "lm_head.weight": w[next(iter(w))]})), "in one"),
        ],
    )
    def test_is_told_and_leaves_nothing(self, source, tmp_path, damage, message):
        damage(source)
        with pytest.raises(ValueError, match=message):
            convert_folder("roc4mllm", source, tmp_path / "deep" / "native")
        assert [path.name for path in tmp_path.iterdir()] == ["original"]

    def test_safetensors_that_are_cut_short(self, tmp_path, checkpoint):
        source = write_checkpoint(tmp_path / "original", *checkpoint, "safetensors", 2)
        cut("model-00002-of-00002.safetensors")(source)
        with pytest.raises(ValueError, match=r"model-00002-of-00002\.safetensors cannot be read"):
            convert_folder("roc4mllm", source, tmp_path / "native")
        assert [path.name for path in tmp_path.iterdir()] == ["original"]

    def test_nothing_of_a_pickle_is_run(self, source, tmp_path):
        class Trap:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "sprung",))

        torch.save({NORM: Trap()}, source / SECOND)
        with pytest.raises(ValueError, match="could run code"):
            convert_folder("roc4mllm", source, tmp_path / "native")
        assert not (tmp_path / "sprung").exists()

    def test_family_and_dtype(self, source, tmp_path):
        for family, dtype in (("owl", None), ("roc4mllm", "int8")):
            with pytest.raises(ValueError, match="known are.*roc4mllm.*float32"):
                convert_folder(family, source, tmp_path / "native", dtype=dtype)
