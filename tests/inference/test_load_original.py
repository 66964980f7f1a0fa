"""Checkpoints in their authors' format behind `load_scorer`: converted once, loaded like any other, named as asked."""

import json
import logging
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from checkpoint_files import ODD_NAMES, roc4mllm_checkpoint, write_checkpoint
from huggingface_hub import constants
from tiny import photo
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from roc4mllm import ROC4MLLMProcessor, add_lora, load_scorer
from roc4mllm.hub import converted_cache
from roc4mllm.hub.convert_folder import convert_folder
from roc4mllm.hub.convert_original import load_original
from roc4mllm.hub.original_tokenizer import original_processor

NAME, COMMIT = "Ricardo-M/ROC4MLLM", "c0ffee" + "0" * 34


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Hugging Face's own folder, empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    return tmp_path / "home" / "roc4mllm" / "converted"


@pytest.fixture(scope="module")
def checkpoint():
    return roc4mllm_checkpoint()


@pytest.fixture
def original(tmp_path, checkpoint):
    return write_checkpoint(tmp_path / "original", *checkpoint)


@pytest.fixture
def hub(tmp_path, checkpoint):
    """A cache of the Hub with the checkpoint in it."""
    folder = tmp_path / "hub" / f"models--{NAME.replace('/', '--')}"
    write_checkpoint(folder / "snapshots" / COMMIT, *checkpoint, "safetensors", 2)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    return str(tmp_path / "hub")


@pytest.fixture
def conversions(monkeypatch):
    """What was converted, one entry each."""
    made = []

    def convert(family, source, destination, **options):
        made.append(destination)
        convert_folder(family, source, destination, **options)

    monkeypatch.setattr(converted_cache, "convert_folder", convert)
    return made


class TestFolder:
    def test_scores_are_the_original_ones(self, original, checkpoint):
        pictures = [photo(0), photo(1, 30, 70)]
        processor = ROC4MLLMProcessor(backbone_processor=original_processor(original, num_image_tokens=4))
        model = load_original("roc4mllm", checkpoint[1], checkpoint[0])
        expected = load_scorer(model, processor=processor).score(pictures)
        assert abs(expected[0] - expected[1]) > 1e-3
        torch.testing.assert_close(load_scorer(original).score(pictures), expected, atol=1e-6, rtol=0)

    def test_is_converted_once(self, original, home, conversions, caplog):
        logger = logging.getLogger("transformers")  # it hands nothing on, so pytest would not see it
        logger.addHandler(caplog.handler)
        first = load_scorer(original)(photo())
        (folder,) = home.iterdir()
        assert folder.name.startswith("original--")
        (message,) = [record.getMessage() for record in caplog.records if "Converting" in record.getMessage()]
        assert message.startswith(f"Converting {original}, once; the native model stays in {folder}")
        assert load_scorer(str(original), batch_size=2)(photo()) == first
        assert len(conversions) == 1
        assert first["model"] == "original"
        logger.removeHandler(caplog.handler)

    def test_progress_is_shown_while_it_converts(self, original, monkeypatch, capsys):
        # conftest.py turns all bars off
        monkeypatch.setattr(sys.modules["huggingface_hub.utils.tqdm"], "HF_HUB_DISABLE_PROGRESS_BARS", None)
        transformers_logging.enable_progress_bar()
        try:
            load_scorer(original)
            shown = capsys.readouterr().err
            assert "Converting original:   0%" in shown
            assert "Converting original: 100%" in shown
            load_scorer(original)
            assert "Converting" not in capsys.readouterr().err
        finally:
            transformers_logging.disable_progress_bar()

    def test_what_changed_is_converted_anew(self, original, home, conversions):
        load_scorer(original)
        os.utime(original / "tokenizer.model", ns=(1, 1))
        load_scorer(original)
        assert len(conversions) == len(list(home.iterdir())) == 2
        (original / "scores.csv").write_text("path,score\n")  # no conversion reads it
        load_scorer(original)
        assert len(conversions) == 2

    def test_what_cannot_be_converted_leaves_nothing(self, original, home):
        (original / "added_tokens.json").unlink()
        with pytest.raises(ValueError, match=r"has no \[SCORE\]"):
            load_scorer(original)
        assert not list(home.iterdir())

    def test_options_reach_the_model(self, original):
        scorer = load_scorer(original, dtype="bfloat16", device="cpu", batch_size=3)
        assert scorer.model.dtype == torch.bfloat16
        assert scorer._batch_size == 3

    def test_who_comes_second_waits_and_finds_the_work_of_the_first(self, original, home, conversions):
        with ThreadPoolExecutor(3) as pool:
            folders = list(pool.map(converted_cache.native_folder, [str(original)] * 3))
        assert len(conversions) == len({folder for folder, *_ in folders}) == len(list(home.iterdir())) == 1

    def test_a_cache_that_cannot_be_written(self, original, home, conversions):
        home.parents[1].write_text("a file where the cache should be")
        with pytest.raises(OSError, match=r"cache of converted models at .* cannot be written \(.*Set HF_HOME, pass"):
            load_scorer(original)
        assert not conversions

    def test_config_that_is_a_list(self, original):
        (original / "config.json").write_text("[]")
        with pytest.raises(ValueError, match=r"config\.json of .*list"):
            load_scorer(original)

    def test_a_full_disk_is_told(self, original, monkeypatch):
        def convert(*args, **options):
            raise OSError("No space left on device")

        monkeypatch.setattr(converted_cache, "convert_folder", convert)
        with pytest.raises(OSError, match="No space"):
            load_scorer(original)

    def test_a_folder_without_score_token(self, original, checkpoint):
        config = {name: value for name, value in checkpoint[0].items() if name != "score_id"}
        write_checkpoint(original, config, checkpoint[1])
        with pytest.raises(ValueError, match=r"without \[SCORE\].*roc4mllm convert level-words"):
            load_scorer(original)

    @pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
    def test_names_of_folders(self, original, tmp_path, monkeypatch, name):
        original.rename(tmp_path / name)
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path)
        for given in (name, f"{name}/", f"./{name}", f"other/../{name}", tmp_path / name):
            assert load_scorer(given)(photo())["model"] == name

    def test_a_folder_from_within_and_by_a_link(self, original, tmp_path, monkeypatch, conversions):
        (tmp_path / "link").symlink_to(original)
        assert load_scorer(tmp_path / "link")(photo())["model"] == "link"
        (original / "notes").mkdir()
        monkeypatch.chdir(original / "notes")
        for given in ("..", "../", "../."):
            assert load_scorer(given)(photo())["model"] == "original"
        assert len(conversions) == 1

    def test_a_name_that_is_no_text(self, original):
        class Named:
            def __fspath__(self):
                return str(original)

        assert load_scorer(Named())(photo())["model"] == "original"

    def test_backbone_is_for_adapters(self, original):
        with pytest.raises(TypeError, match="is a whole model"):
            load_scorer(str(original), backbone="other")


class TestHub:
    def test_records_name_the_model_and_its_commit(self, hub, conversions):
        for _ in range(2):
            scorer = load_scorer(NAME, cache_dir=hub, revision="main")
            record = scorer(photo())
            assert (record["model"], record["revision"], record["error"]) == (NAME, COMMIT, None)
        (folder,) = conversions
        assert folder.parts[-4:-1] == ("hub", "roc4mllm", "converted")  # under cache_dir, where the user has room
        assert folder.name.startswith(f"Ricardo-M--ROC4MLLM--{COMMIT}")
        assert f"from `{NAME}`, revision {COMMIT}" in (folder / "README.md").read_text()

    def test_a_folder_of_the_cache_is_named_as_on_the_hub(self, hub, conversions):
        load_scorer(NAME, cache_dir=hub)
        snapshot = os.path.join(hub, f"models--{NAME.replace('/', '--')}", "snapshots", COMMIT)
        record = load_scorer(snapshot, cache_dir=hub)(photo())
        assert (record["model"], record["revision"], len(conversions)) == (NAME, COMMIT, 1)

    @pytest.mark.parametrize("kind", ["bin", "safetensors"])
    def test_weights_are_downloaded_in_one_format_only(self, hub, tmp_path, checkpoint, monkeypatch, kind):
        server = write_checkpoint(tmp_path / "server", *checkpoint, kind)
        if kind == "safetensors":
            write_checkpoint(server, *checkpoint, "bin", 1)
        local = tmp_path / "local"
        asked = []

        def snapshot_download(name, allow_patterns, **options):
            asked.append((name, options))
            for pattern in allow_patterns:
                for path in server.glob(pattern):
                    local.mkdir(exist_ok=True)
                    shutil.copy(path, local)
            return str(local)

        monkeypatch.setattr(converted_cache, "snapshot_download", snapshot_download)
        folder, name, revision = converted_cache.native_folder(NAME, cache_dir=hub, token="secret")
        assert (name, revision) == (NAME, COMMIT)
        assert asked[0] == (NAME, {"cache_dir": hub, "token": "secret", "revision": COMMIT})
        suffixes = {path.suffix for path in local.glob("*model-*")} | {path.suffix for path in local.glob("*model.b*")}
        assert suffixes - {".json"} == {f".{kind}"}
        assert load_scorer(folder)(photo())["error"] is None

    def test_another_mplug_owl2_is_refused_before_its_weights_come(self, tmp_path, hub, checkpoint, monkeypatch):
        config = {name: value for name, value in checkpoint[0].items() if name != "score_id"}
        snapshot = tmp_path / "hub" / "models--Ricardo-M--ROC4MLLM" / "snapshots" / COMMIT
        write_checkpoint(snapshot, config, {})
        monkeypatch.setattr(converted_cache, "snapshot_download", None)
        with pytest.raises(ValueError, match=r"'Ricardo-M/ROC4MLLM' is an mPLUG-Owl2 model without \[SCORE\]"):
            load_scorer(NAME, cache_dir=hub)

    def test_a_model_that_is_not_there(self):
        with pytest.raises(OSError, match="couldn.t connect"):
            load_scorer("nobody/nothing")


class TestAdapter:
    """Trained on a converted original: it names the original, which whoever loads it may have to convert first."""

    PICTURES = (photo(0), photo(1, 30, 70))

    @pytest.fixture
    def trained(self, hub, home, tmp_path):
        """Its folder, and its scores."""
        scorer = load_scorer(NAME, cache_dir=hub)
        bare = scorer.score(self.PICTURES)
        torch.manual_seed(1)
        for name, value in add_lora(scorer.model, r=4).named_parameters():
            if value.requires_grad:
                torch.nn.init.normal_(value, std=0.5 if "score_head" in name else 0.1)
        scorer.save_pretrained(tmp_path / "adapter")
        expected = scorer.score(self.PICTURES)
        assert abs(expected[0] - expected[1]) > 1e-3
        assert (expected - bare).abs().min() > 1e-3
        shutil.rmtree(os.path.join(hub, "roc4mllm"))  # the converted model
        return tmp_path / "adapter", expected

    def test_it_names_the_original(self, trained, hub, tmp_path):
        folder, _ = trained
        for path in folder.rglob("*.json"):
            assert str(tmp_path) not in path.read_text()
        entries = json.loads((folder / "adapter" / "adapter_config.json").read_text())
        assert (entries["base_model_name_or_path"], entries["revision"]) == (NAME, COMMIT)

    def test_it_is_loaded_where_nothing_is_converted_yet(self, trained, hub, conversions, tmp_path):
        folder, expected = trained
        scorer = load_scorer(folder, cache_dir=hub)
        torch.testing.assert_close(scorer.score(self.PICTURES), expected, atol=1e-6, rtol=0)
        assert scorer(photo())["model"] == "adapter"
        assert len(conversions) == 1
        scorer.save_pretrained(tmp_path / "again")
        first, second = (
            (path / "adapter" / "adapter_config.json").read_text() for path in (folder, tmp_path / "again")
        )
        assert json.loads(first) == json.loads(second)

    def test_backbone_may_be_an_original(self, trained, original, tmp_path):
        folder, expected = trained
        scorer = load_scorer(folder, backbone=original)
        torch.testing.assert_close(scorer.score(self.PICTURES), expected, atol=1e-6, rtol=0)
        assert scorer.model.peft_config["default"].base_model_name_or_path == str(original)

    def test_a_folder_is_named_by_its_absolute_path(self, original, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        model = add_lora(load_scorer("original").model, r=4)
        assert model.peft_config["default"].base_model_name_or_path == str(original)

    def test_transformers_alone_names_the_remedy(self, trained, hub):
        folder, _ = trained
        with pytest.raises(ValueError, match=rf"'{NAME}', .* authors' format.*load_scorer\(.*pass `backbone=`"):
            AutoModel.from_pretrained(folder, cache_dir=hub)
