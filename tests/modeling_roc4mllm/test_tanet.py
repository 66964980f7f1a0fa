"""TANet on tiny networks. With the original's numbers: test_tanet_parity.py."""

import copy
import json
import logging
import subprocess
import sys

import pytest
import torch
from common_tests import PICTURES, ImageAestheticsModelTests, run
from huggingface_hub.errors import StrictDataclassError
from scipy.stats import spearmanr
from tiny import photo
from transformers import AutoConfig, AutoImageProcessor, AutoModel, Trainer, TrainingArguments, ViTImageProcessorPil

from roc4mllm import AutoModelForImageAesthetics, TANetConfig, TANetForImageAesthetics, load_scorer
from roc4mllm.hub.tanet_calibration import calibrate, effect_against_legacy, generated_pictures
from roc4mllm.trainer.model_parts import named_parts
from roc4mllm.trainer.split_loss_config import SplitLossConfig
from roc4mllm.trainer.split_loss_trainer import SplitLossTrainer

TINY = {
    "mobilenet_config": {"depth_multiplier": 0.25, "finegrained_output": False},
    "scene_config": {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "num_scenes": 12,
    "theme_size": 6,
    "colour_grid": 4,
    "dropout": 0.0,
    "score_range": (1.0, 5.0),
    "num_levels": 5,
    "score_head_trained": True,
}
ONE_VALUE = {"num_levels": 1, "score_range": (0.0, 10.0), "theme_activation": "softmax"}
images = ViTImageProcessorPil(size={"height": 64, "width": 64})


def tiny_model(**options) -> TANetForImageAesthetics:
    """A tiny model, drawn wide enough to react to its picture, the same at each call."""
    torch.manual_seed(0)
    model = TANetForImageAesthetics(TANetConfig(**(TINY | options))).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
    torch.nn.init.normal_(model.score_head.weight, std=1.0)
    return model


def prepare(pictures, scores=None) -> dict:
    batch = dict(images(pictures, return_tensors="pt"))
    return batch if scores is None else batch | {"scores": torch.tensor(scores)[:, None]}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def one_value():
    return tiny_model(**ONE_VALUE)


@pytest.fixture(scope="module")
def calibrated():
    model = tiny_model()
    calibrate(model, [prepare(PICTURES)["pixel_values"]])
    return model


class TestCommon(ImageAestheticsModelTests):
    @pytest.fixture
    def parts(self, model):
        return model, prepare


class TestCalibratedCommon(ImageAestheticsModelTests):
    @pytest.fixture
    def parts(self, calibrated):
        return calibrated, prepare


class TestConfig:
    def test_defaults_are_the_published_networks(self):
        config = TANetConfig()
        with torch.device("meta"):
            model = TANetForImageAesthetics(config)
        assert sum(parameter.numel() for parameter in model.parameters()) == 13_882_975
        assert (config.score_range, config.num_levels, config.attributes) == ([1.0, 10.0], 10, ["aesthetics"])

    def test_saved_and_loaded(self, tmp_path):
        TANetConfig(**(TINY | ONE_VALUE)).save_pretrained(tmp_path)
        config = AutoConfig.from_pretrained(tmp_path)
        assert type(config) is TANetConfig
        fields = ("theme_activation", "theme_calibrated", "num_levels", "score_range", "theme_size", "colour_grid")
        assert [getattr(config, name) for name in fields] == ["softmax", None, 1, [0.0, 10.0], 6, 4]
        assert (config.mobilenet_config.depth_multiplier, config.mobilenet_config.tf_padding) == (0.25, False)
        assert (config.scene_config.hidden_sizes, config.scene_config.layer_type) == ([8, 8, 16, 16], "basic")

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"theme_activation": "relu"}, "'prelu' or 'softmax', got 'relu'"),
            ({"theme_activation": "softmax", "theme_calibrated": False}, "uses no statistics"),
            ({"num_levels": 0}, "at least 1, got 0"),
            ({"colour_grid": 0}, "colour_grid must be at least 1, got 0"),
            ({"score_range": (3, 1)}, "min < max"),
            ({"attributes": ["light", "light"]}, "distinct"),
            ({"dropout": "much"}, "dropout"),
        ],
    )
    def test_refused(self, fields, message):
        with pytest.raises(StrictDataclassError, match=message):
            TANetConfig(**fields)


class TestOneValue:
    def test_shapes_and_range(self, one_value):
        output = run(one_value, prepare(PICTURES))
        assert output.scores.shape == output.score_mask.shape == (3, 1)
        assert output.logits.shape == (3, 1, 1)
        assert output.distribution is None
        assert output.std is None
        assert (output.scores[0] - output.scores[1]).abs() > 1e-3
        torch.testing.assert_close(output.scores, 10 * output.logits[..., 0].sigmoid())

    def test_loss_has_no_levels(self, one_value):
        batch = prepare(PICTURES, scores=[2.0, float("nan"), 4.5])
        output = run(one_value, batch, loss_weights={"text": 1.0, "smooth_l1": 2.0})
        errors = torch.nn.functional.smooth_l1_loss(output.scores[[0, 2]], batch["scores"][[0, 2]])
        torch.testing.assert_close(output.loss, 2 * errors)
        assert output.ce_loss is output.emd_loss is None
        with pytest.raises(ValueError, match="weight for ce, .* no such loss: give weight to smooth_l1 alone"):
            one_value(**batch, loss_weights={"ce": 1.0})

    def test_votes_are_refused(self, one_value):
        with pytest.raises(ValueError, match="no levels.*give scores"):
            one_value(**prepare(PICTURES), votes=torch.ones(3, 1, 1))

    def test_theme_says_nothing_and_is_not_trained(self, one_value):
        pixel_values = prepare(PICTURES)["pixel_values"]
        assert torch.equal(one_value.theme(pixel_values), torch.ones(3, 10))
        legacy = tiny_model(**ONE_VALUE, legacy_batch_mixing=True)
        torch.testing.assert_close(legacy.theme(pixel_values[:1]), torch.ones(1, 10))  # as the original alone
        assert not any(parameter.requires_grad for parameter in one_value.theme.parameters())

    def test_batch_equals_singles(self, one_value):
        model = copy.deepcopy(one_value).double()
        alone = torch.cat([run(model, prepare([picture])).scores for picture in PICTURES])
        assert (run(model, prepare(PICTURES)).scores - alone).abs().max() <= 1e-10

    def test_pipeline(self, one_value):
        record = load_scorer(one_value, image_processor=images)(photo(0))
        assert record["score"] == pytest.approx(10 * record["normalized"], abs=1e-6)
        assert record["score_range"] == [0.0, 10.0]
        assert record["std"] is record["distribution"] is record["error"] is None


class TestLoss:
    def test_votes_and_scores(self, model):
        votes = torch.tensor([[1.0, 2, 3, 4, 0], [float("nan")] * 5, [0, 0, 1, 0, 0]])[:, None]
        scores = torch.tensor([float("nan"), 2.0, float("nan")])[:, None]
        weights = {"smooth_l1": 1.0, "ce": 1.0, "emd": 1.0}
        output = run(model, prepare(PICTURES), votes=votes, scores=scores, loss_weights=weights)
        means = torch.tensor([3.0, 2.0, 3.0])[:, None]
        torch.testing.assert_close(
            output.smooth_l1_loss, torch.nn.functional.smooth_l1_loss(output.scores, means), atol=1e-5, rtol=0
        )
        shares = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0], [0, 1.0, 0, 0, 0], [0, 0, 1.0, 0, 0]])[:, None]
        expected = -(shares * output.logits.log_softmax(-1)).sum(-1).mean()
        torch.testing.assert_close(output.ce_loss, expected)

    def test_counts_of_a_larger_batch(self, model):
        batch = prepare(PICTURES, scores=[2.0, 3.0, 4.5])
        whole, part = run(model, batch), run(model, batch, loss_counts={"text": 0, "scores": 12})
        torch.testing.assert_close(part.loss, whole.loss / 4)

    def test_nothing_rated_is_zero_with_gradient(self, model):
        batch = prepare(PICTURES, scores=[float("nan")] * 3)
        loss = copy.deepcopy(model)(**batch).loss
        assert loss == 0
        assert loss.requires_grad

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"scores": torch.tensor([[2.0], [9.0], [3.0]])}, "score of 9; the score range is 1 to 5"),
            ({"scores": torch.ones(3, 1), "loss_weights": {"l2": 1.0}}, r"Unknown loss weights \['l2'\]"),
        ],
    )
    def test_refused(self, model, options, message):
        with pytest.raises(ValueError, match=message):
            model(**prepare(PICTURES), **options)

    def test_pictures_of_wrong_shape(self, model):
        with pytest.raises(ValueError, match=r"\(batch, 3, height, width\), got \(2, 1, 64, 64\)"):
            model(torch.zeros(2, 1, 64, 64))

    def test_scores_per_attribute(self):
        model = tiny_model(attributes=["aesthetics", "light"], score_range=[[1, 5], [0, 100]])
        output = run(model, prepare(PICTURES))
        assert output.logits.shape == (3, 2, 5)
        assert (output.scores[:, 1] > 5).all()
        scores = torch.tensor([[2.0, 50.0], [3.0, float("nan")], [4.0, 100.0]])
        assert run(model, prepare(PICTURES), scores=scores).loss > 0


class TestTheme:
    def test_calibration_normalises(self, model):
        calibrated = copy.deepcopy(model)
        pixel_values = prepare(PICTURES)["pixel_values"]
        assert calibrate(calibrated, pixel_values.split(2)) == 3
        assert calibrated.config.theme_calibrated
        assert model.config.theme_calibrated is None
        model.config.legacy_batch_mixing = True
        table = model.theme.legacy_table(pixel_values)
        model.config.legacy_batch_mixing = False
        own = calibrated.theme(pixel_values)[:, 0]
        assert (own - model.theme(pixel_values)[:, 0]).abs().max() > 1e-2
        torch.testing.assert_close(own, table.diagonal(), atol=1e-4, rtol=0)

    def test_effect_against_legacy(self, calibrated):
        pixel_values = prepare([photo(seed) for seed in range(6)])["pixel_values"]
        effect = effect_against_legacy(calibrated, pixel_values.split(3))
        assert not calibrated.config.legacy_batch_mixing
        legacy = copy.deepcopy(calibrated)
        legacy.config.legacy_batch_mixing = True
        theirs = torch.cat([run(legacy, {"pixel_values": part}).scores for part in pixel_values.split(3)])
        ours = run(calibrated, {"pixel_values": pixel_values}).scores
        assert (ours - theirs).abs().max() > 1e-3
        assert effect["mean_shift"] == pytest.approx((ours - theirs).mean().item(), abs=1e-5)
        assert effect["srcc"] == pytest.approx(spearmanr(ours, theirs).statistic, abs=1e-9)

    def test_calibration_needs_pictures(self, model):
        with pytest.raises(ValueError, match="at least two pictures.*got 1"):
            calibrate(copy.deepcopy(model), [prepare(PICTURES[:1])["pixel_values"]])

    def test_calibration_needs_different_pictures(self, model):
        pixel_values = prepare(PICTURES[:1])["pixel_values"]
        with pytest.raises(ValueError, match="4 pictures are all alike"):
            calibrate(copy.deepcopy(model), pixel_values.expand(4, -1, -1, -1).split(3))

    def test_calibration_on_few_pictures_warns(self, model, caplog):
        calibrate(copy.deepcopy(model), [prepare(PICTURES)["pixel_values"]])
        assert "measured on 3 pictures only" in caplog.text
        caplog.clear()
        pixel_values = torch.randn(100, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        calibrate(copy.deepcopy(model), [pixel_values])
        assert not caplog.text

    def test_calibration_refuses_values_out_of_range(self, model):
        broken = copy.deepcopy(model)
        broken.theme.make_bias.bias.data.fill_(torch.inf)
        with pytest.raises(ValueError, match=r"not finite in torch\.float32"):
            calibrate(broken, [prepare(PICTURES)["pixel_values"]])

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_statistics_keep_their_precision(self, model, dtype, tmp_path):
        """Their product with large weights leaves the range of float16; the score must not."""
        large = copy.deepcopy(model)
        large.theme.make_weights.weight.data *= 3000
        large.theme.query[1].weight.data *= 30
        calibrate(large, [prepare(PICTURES)["pixel_values"]])
        expected = run(large, prepare(PICTURES)).scores
        assert (expected[0] - expected[1]).abs() > 1e-3
        large.save_pretrained(tmp_path)
        loaded = AutoModel.from_pretrained(tmp_path, dtype=dtype)
        for cast in (copy.deepcopy(large).to(dtype), loaded):
            assert torch.equal(cast.theme.statistics.covariance, large.theme.statistics.covariance)
            assert cast.theme.make_weights.weight.dtype == dtype
            found = run(cast, prepare(PICTURES)).scores
            assert (found - expected).abs().max() < 0.2
        measured = copy.deepcopy(model).to(dtype)
        calibrate(measured, [prepare(PICTURES)["pixel_values"]])
        assert measured.theme.statistics.mean.dtype == torch.float32

    def test_autocast_keeps_their_precision(self, calibrated):
        queries, weights = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
        values = (queries * weights).sum(-1, keepdim=True)
        expected = calibrated.theme.statistics(values, weights)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = calibrated.theme.statistics(values, weights)
        assert torch.equal(found, expected)

    def test_effect_of_a_model_that_scores_all_alike(self, calibrated):
        dead = copy.deepcopy(calibrated)
        dead.score_head.weight.data.zero_()
        effect = effect_against_legacy(dead, [prepare(PICTURES)["pixel_values"]])
        assert effect["srcc"] != effect["srcc"]
        assert effect["mean_shift"] == 0

    def test_generated_pictures(self):
        pictures = generated_pictures(4, side=64)
        values = torch.stack(
            [torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8) for picture in pictures]
        )
        again = generated_pictures(4, side=64)
        assert all(first.tobytes() == second.tobytes() for first, second in zip(pictures, again, strict=True))
        assert (values.float().std(1) > 5).all()
        assert (values[0].float() - values[1]).abs().mean() > 10

    def test_legacy_scores_depend_on_the_batch(self):
        model = tiny_model(legacy_batch_mixing=True)
        together, pair = (run(model, prepare(PICTURES[:count])).scores for count in (3, 2))
        assert (together[:2] - pair).abs().max() > 1e-3

    @pytest.mark.parametrize("state", [None, False, True])
    def test_a_converted_model_without_statistics_warns_at_each_load(self, state, tmp_path, caplog):
        tiny_model(theme_calibrated=state).save_pretrained(tmp_path)
        for _ in range(2):
            caplog.clear()
            AutoModelForImageAesthetics.from_pretrained(tmp_path)
            assert ("uncalibrated theme branch" in caplog.text) == (state is False)

    def test_legacy_warns(self, caplog):
        logging.Logger.warning_once.cache_clear()  # another test may have used up the one time
        run(tiny_model(legacy_batch_mixing=True), prepare(PICTURES))
        assert "depends on the other pictures" in caplog.text


class RatedPictures(torch.utils.data.Dataset):
    """Eight pictures that are rated by their brightness."""

    def __init__(self):
        pictures = [photo(seed) for seed in range(8)]
        self.pixel_values = images(pictures, return_tensors="pt")["pixel_values"]
        self.scores = 3 + self.pixel_values.mean((1, 2, 3)).clamp(-2, 2)

    def __len__(self):
        return len(self.scores)

    def __getitem__(self, index):
        return {"pixel_values": self.pixel_values[index], "scores": self.scores[index : index + 1]}


def arguments(kind, folder, **options):
    return kind(
        output_dir=folder, per_device_train_batch_size=4, num_train_epochs=3, learning_rate=1e-3, report_to="none",
        save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True, remove_unused_columns=False,
        label_names=["scores"], **options,
    )  # fmt: skip


def values(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


class TestTraining:
    @pytest.mark.parametrize("options", [{}, ONE_VALUE])
    def test_plain_trainer_moves_all_but_the_scene_network(self, options, tmp_path):
        model = tiny_model(**options)
        before = values(model)
        Trainer(model, arguments(TrainingArguments, tmp_path), train_dataset=RatedPictures()).train()
        after = values(model)
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        frozen = {name for name in before if name.startswith(("theme.scene_network", "theme.scene_head"))}
        assert frozen
        assert not trained & frozen
        assert all(torch.equal(before[name], after[name]) for name in frozen)  # BatchNorm statistics too
        still = {name for name in trained if torch.equal(before[name], after[name])}
        assert still <= {"theme.activation.weight"}  # the slope of what a ReLU then cuts off

    @pytest.mark.parametrize(
        ("state", "mixes", "after", "said"),
        [
            (None, False, None, ""),
            (False, False, None, ""),
            (False, True, False, ""),
            (True, False, True, "constants that it is trained with"),
            (True, True, False, "are dropped: measure them again"),
        ],
    )
    def test_statistics_before_training(self, state, mixes, after, said, caplog):
        model = tiny_model(theme_calibrated=state, legacy_batch_mixing=mixes)
        model.before_training()
        assert model.config.theme_calibrated is after
        assert (model.theme.statistics is not None) == bool(after)
        assert said in caplog.text
        assert bool(caplog.text) == bool(said)

    def test_statistics_of_a_frozen_theme_branch_stay(self, caplog):
        model = tiny_model(theme_calibrated=True, legacy_batch_mixing=True)
        model.theme.requires_grad_(False)
        model.before_training()
        assert model.config.theme_calibrated
        assert not caplog.text

    def test_frozen_after_loading(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        loaded = AutoModel.from_pretrained(tmp_path)
        frozen = {name for name, parameter in loaded.named_parameters() if not parameter.requires_grad}
        assert frozen == {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        assert any("scene_network" in name for name in frozen)

    def test_every_part_may_have_its_own_learning_rate(self, tmp_path):
        model = tiny_model()
        assert list(named_parts(model)) == ["perception", "scene_network", "theme", "colour", "score_head"]
        rates = {"perception": 1e-4, "colour": 1e-2, "theme": 0.0}
        trainer = SplitLossTrainer(
            model, arguments(SplitLossConfig, tmp_path, learning_rates=rates), train_dataset=RatedPictures(),
            data_collator=torch.utils.data.default_collate,
        )  # fmt: skip
        before = values(model)
        trainer.train()
        after = values(model)
        moved = {name.split(".")[0] for name, _ in model.named_parameters() if not before[name].equal(after[name])}
        assert moved == {"perception", "colour", "score_head"}


def test_compiles_into_one_graph(model):
    exported = torch.export.export(model, (), {"pixel_values": prepare(PICTURES)["pixel_values"]})
    found = exported.module()(pixel_values=prepare(PICTURES)["pixel_values"]).scores
    torch.testing.assert_close(found, run(model, prepare(PICTURES)).scores)


CHILD = """
import json, sys
sys.modules["roc4mllm"] = None  # any use of the package raises
from transformers import AutoModel, pipeline
folder, picture = sys.argv[1:]
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
frozen = not any(p.requires_grad for p in model.theme.scene_network.parameters())
record = pipeline("image-aesthetics", model=folder, trust_remote_code=True)(picture)
print(json.dumps([frozen, record["score"]]))
"""


def test_scores_without_the_package(model, tmp_path):
    picture, folder = tmp_path / "picture.png", tmp_path / "model"
    photo(0).save(picture)
    scorer = load_scorer(model, image_processor=images)
    scorer.save_pretrained(folder)
    assert type(AutoImageProcessor.from_pretrained(folder)) is ViTImageProcessorPil
    expected = scorer(str(picture))["score"]
    command = [sys.executable, "-c", CHILD, str(folder), str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [True, pytest.approx(expected, abs=5e-6)]
