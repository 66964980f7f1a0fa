"""The pipeline: records, batches, attributes, comments, folders."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from tiny import backbone, photo, scorer_parts, shared_parts
from transformers import CLIPImageProcessorPil, pipeline

import roc4mllm
from roc4mllm import ImageAestheticsPipeline, ROC4MLLMForImageAesthetics, ROC4MLLMProcessor, load_scorer

PICTURES = [photo(0), photo(1, 32, 96), photo(2, 90, 30)]
KEYS = [
    "score", "score_range", "higher_is_better", "normalized", "std", "distribution", "attributes", "model", "revision",
    "version", "error",
]  # fmt: skip


@pytest.fixture(scope="module")
def scorer():
    model, processor = shared_parts("llava", ("aesthetics", "light"))
    return load_scorer(model, processor=processor)


@pytest.fixture(scope="module")
def tiles_scorer():
    """A backbone whose pictures differ in the number of tokens, so that batches are padded."""
    model, processor = shared_parts("idefics3")
    return load_scorer(model, processor=processor)


@pytest.fixture(scope="module")
def folder(scorer, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "scorer"
    scorer.save_pretrained(path)
    return path


class TestRecord:
    def test_keys_and_units(self, scorer):
        record = scorer(photo(0))
        assert list(record) == KEYS
        assert record["score_range"] == [1.0, 5.0]
        assert record["higher_is_better"] is True
        assert 1 < record["score"] < 5
        assert record["normalized"] == pytest.approx((record["score"] - 1) / 4)
        assert len(record["distribution"]) == 5
        assert sum(record["distribution"]) == pytest.approx(1, abs=1e-6)
        mean = sum(share * level for share, level in zip(record["distribution"], range(1, 6), strict=True))
        assert record["score"] == pytest.approx(mean, abs=1e-5)
        assert record["attributes"]["aesthetics"] == record["score"]
        assert record["attributes"].keys() == {"aesthetics", "light"}
        assert record["version"] == roc4mllm.__version__
        assert record["error"] is None
        assert json.loads(json.dumps(record)) == record

    def test_failure_has_no_number(self, scorer):
        record = scorer("missing.jpg")
        assert list(record) == KEYS
        assert record["error"] == "no such file"
        assert all(record[name] is None for name in ("score", "normalized", "std", "distribution"))
        assert record["attributes"] == {"aesthetics": None, "light": None}
        assert record["score_range"] == [1.0, 5.0]

    def test_ranges_per_attribute(self):
        model, processor = backbone("llava")
        processor = ROC4MLLMProcessor.from_backbone(processor, attributes=["aesthetics", "light"])
        model = ROC4MLLMForImageAesthetics.from_backbone(
            model, processor=processor, num_levels=5, score_range=[[1, 5], [0, 100]]
        )
        record = load_scorer(model, processor=processor, allow_untrained=True)(photo(0), attributes=["light"])
        assert record["score_range"] == [0.0, 100.0]
        assert record["attribute_ranges"] == {"light": [0.0, 100.0]}
        assert record["normalized"] == pytest.approx(record["score"] / 100)

    def test_rounding_does_not_leave_the_range(self):
        model, processor = scorer_parts("llava", num_levels=2, score_range=(0.1, 0.3))
        highest = torch.tensor([0.3])
        assert highest.item() > 0.3
        record = load_scorer(model, processor=processor).postprocess({"scores": highest, "finite": highest > 0})
        assert record["score"] == record["attributes"]["aesthetics"] == 0.3
        assert record["normalized"] == 1


class TestInputs:
    def test_same_picture_in_every_form(self, scorer, tmp_path):
        picture = photo(4)
        path = tmp_path / "picture.png"
        picture.save(path)
        array = np.asarray(picture)
        tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
        data = path.read_bytes()
        forms = [picture, str(path), path, data, array, tensor, tensor / 255, {"bytes": data}]
        scores = [scorer(form)["score"] for form in forms]
        assert scores == [scores[0]] * len(forms)
        assert scorer(photo(5))["score"] != scores[0]

    def test_tensor_batch(self, scorer):
        batch = torch.stack([torch.from_numpy(np.asarray(photo(seed)).copy()).permute(2, 0, 1) for seed in (0, 1)])
        records = scorer(batch)
        assert [record["score"] for record in records] == [scorer(photo(0))["score"], scorer(photo(1))["score"]]

    def test_list_generator_and_empty_list(self, scorer):
        expected = [scorer(picture)["score"] for picture in PICTURES]
        assert isinstance(scorer(PICTURES), list)
        assert [record["score"] for record in scorer(PICTURES)] == expected
        stream = scorer(picture for picture in PICTURES)
        assert not isinstance(stream, list)
        assert [record["score"] for record in stream] == expected
        assert scorer([]) == []

    def test_score_is_a_tensor(self, scorer):
        scores = scorer.score(PICTURES)
        assert scores.shape == (3,)
        assert scores.tolist() == [scorer(picture)["score"] for picture in PICTURES]
        assert scorer.score(photo(0)).tolist() == scores[:1].tolist()
        with pytest.raises(ValueError, match="missing.jpg: no such file"):
            scorer.score([photo(0), "missing.jpg"])

    @pytest.mark.parametrize("batch_size", [1, np.int64(2), 3, 8])
    def test_batches_are_invariant_and_in_order(self, tiles_scorer, batch_size):
        alone = [tiles_scorer(picture)["normalized"] for picture in PICTURES]
        inputs = [PICTURES[0], "missing.jpg", *PICTURES[1:]]
        records = tiles_scorer(inputs, batch_size=batch_size)
        assert records[1]["error"] == "no such file"
        together = [record["normalized"] for record in records if record["error"] is None]
        assert together == pytest.approx(alone, abs=1e-5)
        assert max(alone) - min(alone) > 1e-3

    def test_really_batched(self, tiles_scorer):
        sizes = []
        hook = tiles_scorer.model.register_forward_pre_hook(
            lambda module, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
        )
        tiles_scorer(PICTURES, batch_size=2)
        hook.remove()
        assert sizes == [2, 1]


class TestOptions:
    def test_attributes(self, scorer):
        everything = scorer(photo(0))["attributes"]
        assert abs(everything["light"] - everything["aesthetics"]) > 1e-3
        for names in (["light", "aesthetics"], ["light"], ["aesthetics"]):  # the same numbers, whatever is asked for
            record = scorer(photo(0), attributes=names)
            assert record["attributes"] == {name: pytest.approx(everything[name], abs=1e-5) for name in names}
            assert list(record["attributes"]) == names
            assert record["score"] == record["attributes"][names[0]]
        with pytest.raises(ValueError, match=r"\['mood'\].*\['aesthetics', 'light'\]"):
            scorer(photo(0), attributes=["mood"])

    def test_question_reaches_the_model(self, scorer):
        assert scorer(photo(0), question="Is it sharp?")["score"] != scorer(photo(0))["score"]

    def test_options_at_construction(self):
        model, processor = shared_parts("llava", ("aesthetics", "light"))
        fixed = load_scorer(model, processor=processor, attributes=["light"], batch_size=2)
        assert [list(record["attributes"]) for record in fixed(PICTURES)] == [["light"]] * 3
        assert list(fixed(photo(0), attributes=["aesthetics"])["attributes"]) == ["aesthetics"]

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"attributes": []}, ValueError, "distinct names"),
            ({"attributes": "light"}, ValueError, "distinct names"),
            ({"question": "a [SCORE]?"}, ValueError, "must not contain"),
            ({"question": "an <image>?"}, ValueError, "stands for a picture"),
            ({"question": 5}, TypeError, "got int"),
            ({"text": True, "max_new_tokens": 0}, ValueError, "at least 1, got 0"),
            ({"text": True, "max_new_tokens": "9"}, ValueError, "at least 1, got '9'"),
        ],
    )
    def test_wrong_words_are_said_once(self, scorer, options, error, message):
        with pytest.raises(error, match=message):
            scorer(PICTURES, **options)

    def test_dropout_of_a_training_is_off(self):
        model, processor = scorer_parts("llava")
        for layer in model.backbone.model.language_model.layers:
            layer.self_attn.attention_dropout = 0.5
        scorer = load_scorer(model, processor=processor)
        expected = scorer(photo(0))["score"]
        model.train()
        with torch.no_grad():
            assert abs(model(**processor(images=photo(0))).scores.item() - expected) > 1e-3
        assert scorer(photo(0))["score"] == expected

    def test_unknown_option(self, scorer):
        with pytest.raises(TypeError, match="colour"):
            scorer(photo(0), colour="red")

    def test_untrained_head_is_refused(self):
        model, processor = scorer_parts("llava")
        model.config.score_head_trained = False
        with pytest.raises(ValueError, match="never trained.*allow_untrained=True"):
            load_scorer(model, processor=processor)
        assert load_scorer(model, processor=processor, allow_untrained=True)(photo(0))["error"] is None

    def test_model_and_processor_that_disagree(self):
        model, processor = scorer_parts("llava")
        with pytest.raises(ValueError, match="needs its processor"):
            load_scorer(model, processor=None, image_processor=None)
        model.config.attributes = ["light"]
        with pytest.raises(ValueError, match=r"attributes is \['light'\] in the model, \['aesthetics'\]"):
            load_scorer(model, processor=processor)
        model.config.attributes, model.config.score_token_id = ["aesthetics"], 77
        with pytest.raises(ValueError, match="score_token_id is 77 in the model"):
            load_scorer(model, processor=processor)


class TestComments:
    def test_score_stands_in_the_text(self, scorer):
        record = scorer(photo(0), text=True, max_new_tokens=4)
        light = record["attributes"]["light"]
        start = (
            f"The aesthetic rate of the image is {record['score']:.2f}, the light rate of the image is {light:.2f}."
        )
        assert record["text"].startswith(start)
        assert "text_scores" not in record
        assert "[SCORE]" not in record["text"]

    def test_comments_of_a_batch_are_those_of_single_pictures(self, tiles_scorer):
        alone = [tiles_scorer(picture, text=True, max_new_tokens=6)["text"] for picture in PICTURES]
        together = tiles_scorer([PICTURES[0], "missing.jpg", *PICTURES[1:]], text=True, max_new_tokens=6, batch_size=4)
        assert [record["text"] for record in together if record["error"] is None] == alone
        assert "text" not in together[1]

    def test_free_text_is_read_once_more(self, scorer):
        """Make the model write the scoring sentence by itself, and compare with the forced one."""
        model, processor = copy.deepcopy(scorer.model), scorer.processor
        ids = iter(processor.tokenizer(processor.scoring_sentence(), add_special_tokens=False)["input_ids"])

        def write_the_sentence(module, args, kwargs, output):
            if output.logits.shape[1]:
                output.logits[:, -1] = 0
                output.logits[:, -1, next(ids, 2)] = 100.0

        hook = model.backbone.register_forward_hook(write_the_sentence, with_kwargs=True)
        record = load_scorer(model, processor=processor)(photo(0), text=True, forced=False, max_new_tokens=60)
        hook.remove()
        assert record["text_scores"] == pytest.approx(list(record["attributes"].values()), abs=1e-5)
        assert record["text"].startswith(f"The aesthetic rate of the image is {record['score']:.2f}, the light")

    @pytest.mark.parametrize("forced", [True, False])
    def test_every_pass_gets_the_models_dtype(self, scorer, forced):
        """Scoring, generating and the second reading; many backbones cast pictures themselves, not all do."""
        model = copy.deepcopy(scorer.model).to(torch.bfloat16)
        seen = []
        model.backbone.model.vision_tower.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append((*args, *kwargs.values())[0].dtype), with_kwargs=True
        )
        record = load_scorer(model, processor=scorer.processor)(photo(0), text=True, forced=forced, max_new_tokens=3)
        assert record["error"] is None
        assert seen == [torch.bfloat16] * (2 if forced else 3)

    def test_free_text_without_scores(self, scorer):
        record = scorer(photo(0), text=True, forced=False, max_new_tokens=3)
        assert record["text_scores"] == []
        assert record["score"] == scorer(photo(0))["score"]


class VisionConfig:
    """Stands for the config of a family without a language model."""

    attributes, score_range, higher_is_better, name_or_path = ["aesthetics"], [1.0, 5.0], True, "vision"


class VisionModel(torch.nn.Module):
    """The smallest model with a bare image processor: its score is how bright the picture is."""

    config, dtype, device, hf_device_map = VisionConfig(), torch.float32, torch.device("cpu"), None

    def forward(self, pixel_values):
        brightness = pixel_values.mean((1, 2, 3)).sigmoid().unsqueeze(1)  # (B, 1)
        return roc4mllm.AestheticsOutput(scores=1 + 4 * brightness, score_mask=torch.ones_like(brightness).bool())


class TestBareImageProcessor:
    @pytest.fixture
    def vision_scorer(self):
        processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        return ImageAestheticsPipeline(VisionModel(), image_processor=processor, device="cpu")

    def test_scores(self, vision_scorer):
        records = vision_scorer([np.zeros((40, 40, 3), np.uint8), "missing.jpg", np.full((40, 40), 255, np.uint8)])
        dark, missing, bright = records
        assert bright["score"] > dark["score"] + 1
        assert missing["error"] == "no such file"
        assert bright["distribution"] is None
        assert bright["std"] is None

    def test_no_text(self, vision_scorer):
        with pytest.raises(ValueError, match="no language model"):
            vision_scorer(photo(0), text=True)


class TestFolders:
    def test_load_scorer_needs_no_trust(self, scorer, folder):
        again = load_scorer(folder)
        assert type(again) is ImageAestheticsPipeline
        record, expected = again(PICTURES), scorer(PICTURES)
        assert [row["score"] for row in record] == pytest.approx([row["score"] for row in expected], abs=5e-6)
        assert record[0]["model"] == "scorer"  # the folder's name, not its path

    def test_tampered_pipeline_file_is_ignored(self, folder, tmp_path):
        tampered = tmp_path / "tampered"
        shutil.copytree(folder, tampered)
        for path in tampered.glob("*.py"):
            path.write_text("raise SystemExit('tampered code ran')\n")
        assert load_scorer(tampered)(photo(0))["error"] is None

    def test_plain_pipeline_asks_for_trust(self, folder):
        with pytest.raises(ValueError, match="trust_remote_code"):
            pipeline("image-aesthetics", model=str(folder))

    def test_no_path_of_this_machine_is_saved(self, folder):
        names = {path.name for path in folder.iterdir()}
        assert {"config.json", "model.safetensors", "processor_config.json", "pipeline_image_aesthetics.py"} <= names
        assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
        for path in folder.iterdir():
            if path.suffix != ".safetensors":
                text = path.read_text()
                assert str(folder.parent) not in text, path.name
                assert str(roc4mllm.inference.load_scorer.BUNDLED_CHECKPOINT.parent) not in text, path.name
        saved = json.loads((folder / "config.json").read_text())["custom_pipelines"]["image-aesthetics"]
        assert saved["impl"] == "pipeline_image_aesthetics.ImageAestheticsPipeline"
        assert saved["pt"] == ["AutoModel"]
        assert "default" not in saved

    def test_the_task_keeps_its_default_after_saving(self, folder):
        from transformers.pipelines import PIPELINE_REGISTRY

        assert "default" in PIPELINE_REGISTRY.supported_tasks["image-aesthetics"]

    def test_model_and_commit_of_a_hub_name(self, folder, tmp_path):
        """A Hub name, served from the cache as after a download: records say which commit scored."""
        commit = "0123456789abcdef0123456789abcdef01234567"
        repository = tmp_path / "models--user--scorer"
        shutil.copytree(folder, repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        record = load_scorer("user/scorer", model_kwargs={"cache_dir": str(tmp_path)})(photo(0))
        assert (record["model"], record["revision"], record["error"]) == ("user/scorer", commit, None)

    def test_bfloat16(self, folder, scorer, tmp_path):
        rounded = load_scorer(folder, dtype="bfloat16")
        record = rounded(photo(0))
        assert record["normalized"] == pytest.approx(scorer(photo(0))["normalized"], abs=0.1)
        rounded.save_pretrained(tmp_path)
        assert load_scorer(tmp_path)(photo(0))["score"] == record["score"]

    def test_a_backbone_is_no_scorer(self, tmp_path):
        model, processor = backbone("llava")
        model.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
        with pytest.raises((ValueError, AttributeError, OSError), match="score"):
            load_scorer(tmp_path)
