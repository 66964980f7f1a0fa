"""EAT on a tiny network. With the original's numbers: test_eat_parity.py."""

import copy
import itertools
import json
import logging
import subprocess
import sys

import pytest
import torch
from common_tests import PICTURES, ImageAestheticsModelTests, run
from huggingface_hub.errors import StrictDataclassError
from tiny import photo
from transformers import Trainer, TrainingArguments, ViTImageProcessorPil

from roc4mllm import EATConfig, EATForImageAesthetics, load_scorer
from roc4mllm.modeling_roc4mllm.attention_eat import from_windows, relative_table, shift_mask, to_windows
from roc4mllm.modeling_roc4mllm.modeling_eat import EATModel, drop_path_rates
from roc4mllm.trainer.model_parts import named_parts

# 48 pixels become 12, 6 and 3 features a side
TINY = {
    "image_size": 48,
    "stem_size": 6,
    "hidden_sizes": (8, 16, 32),
    "stage_blocks": ("LS", "SD", "LDD"),
    "num_heads": (2, 2, 4),
    "window_sizes": (6, 3, 3),
    "num_groups": (1, 1, 2),
    "offset_range_factors": (2, -1, 2),
    "offset_kernel_sizes": (7, 5, 3),
    "position_biases": ("none", "conv", "table"),
    "use_conv_mlps": (False, True, False),
    "drop_path_rate": 0.0,
    "num_levels": 5,
    "score_range": (1.0, 5.0),
    "score_head_trained": True,
}
images = ViTImageProcessorPil(size={"height": 48, "width": 48})


def tiny_model(**options) -> EATForImageAesthetics:
    """A tiny model, drawn wide enough to react to its picture, the same at each call."""
    torch.manual_seed(0)
    model = EATForImageAesthetics(EATConfig(**(TINY | options))).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.0 if "bias" in name else (2 / parameter[0].numel()) ** 0.5)
    torch.nn.init.normal_(model.score_head.weight, std=0.5)
    return model


def prepare(pictures, scores=None) -> dict:
    batch = dict(images(pictures, return_tensors="pt"))
    return batch if scores is None else batch | {"scores": torch.tensor(scores)[:, None]}


def pixels(height: int, width: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def legacy():
    return tiny_model(legacy_batch_mixing=True)


class TestCommon(ImageAestheticsModelTests):
    @pytest.fixture
    def parts(self, model):
        return model, prepare


class TestConfig:
    @pytest.mark.parametrize(
        ("size", "millions", "pixels"),
        [("tiny", 29, 224), ("small", 50, 224), ("base", 88, 224), ("base-384", 88, 384)],
    )
    def test_published_sizes(self, size, millions, pixels):
        """Numbers of parameters are those of DAT (CVPR 2022, table 2), and a few for the reference points."""
        config = EATConfig.of_size(size)
        with torch.device("meta"):
            model = EATModel(config)
        assert config.image_size == pixels
        assert round(model.num_parameters() / 1e6) == pytest.approx(millions, abs=1)

    def test_fields_that_differ(self):
        config = EATConfig.of_size("base", num_levels=1, score_range=(0, 1))
        assert (config.hidden_size, config.num_levels, config.score_range) == (1024, 1, [0, 1])

    def test_unknown_size(self):
        with pytest.raises(ValueError, match="Unknown size 'huge'; known are tiny, small, base, base-384"):
            EATConfig.of_size("huge")

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"num_heads": (2, 2)}, "one entry per stage.*'num_heads': 2"),
            ({"stage_blocks": ("LS", "LX", "D")}, "letters L, S and D, got 'LX'"),
            ({"num_heads": (3, 2, 4)}, r"hidden_sizes\[0\] \(8\).*num_heads \(3\)"),
            ({"num_groups": (1, 1, 3)}, r"hidden_sizes\[2\] \(32\).*num_groups \(3\)"),
            ({"num_groups": (1, 1, 8)}, r"num_heads\[2\] \(4\).*num_groups \(8\)"),
            ({"num_heads": (0, 2, 4)}, r"multiple of num_heads \(0\)"),
            ({"patch_size": 0}, "patch_size must be at least 1, got 0"),
            ({"window_sizes": (6, 0, 3)}, "window_sizes must be at least 1"),
            ({"offset_kernel_sizes": (3, 3, 4)}, "must be odd where there are D blocks, got 4"),
            ({"drop_path_rate": 2.0}, "below 1, got 2.0"),
            ({"position_biases": ("none", "none", "sine")}, r"got \['sine'\]"),
            ({"num_levels": 0}, "num_levels must be at least 1"),
            ({"score_range": (5, 1)}, "min < max"),
            ({"hidden_sizes": "wide"}, "hidden_sizes"),
        ],
    )
    def test_refused(self, fields, message):
        with pytest.raises((StrictDataclassError, ValueError), match=message):
            EATConfig(**(TINY | fields))


class TestBatchMixing:
    def test_legacy_scores_depend_on_the_batch(self, model, legacy):
        batch, pair = prepare(PICTURES), prepare(PICTURES[:2])
        assert (run(legacy, batch).scores[:2] - run(legacy, pair).scores).abs().max() > 1e-3
        assert (run(model, batch).scores[:2] - run(model, pair).scores).abs().max() < 5e-5

    def test_alone_both_agree(self, model, legacy):
        batch = prepare(PICTURES[:1])
        assert torch.equal(run(legacy, batch).logits, run(model, batch).logits)

    def test_legacy_warns_once(self, legacy, caplog):
        logging.getLogger("transformers").warning_once.cache_clear()  # `warning_once` counts for the whole process
        for _ in range(2):
            run(legacy, prepare(PICTURES))
        assert caplog.text.count("legacy_batch_mixing is on") == 1


class TestPoints:
    def test_an_offset_counts_in_full_along_its_reference_only(self, model):
        """With a reference of known sign, by hand."""
        attention = copy.deepcopy(model.eat.stages[2].blocks[1].attention)
        torch.nn.init.zeros_(attention.reference_proj.weight)
        attention.reference_proj.bias.data = torch.tensor([0.5, -0.5])
        x = torch.randn(1, 3, 3, 32)
        seen = {}
        attention.offset_proj.register_forward_hook(lambda *call: seen.update(raw=call[-1]))
        points, reference = attention.sampling_points(x, attention.q_proj(x))
        offset = (seen["raw"].tanh() * 2 / 3).view(1, 2, 3, 3, 2)
        is_along = (offset[..., 0] > 0) & (offset[..., 1] < 0)
        assert 0 < is_along.sum() < is_along.numel()
        expected = reference + torch.where(is_along.unsqueeze(-1), offset, offset / 4)
        torch.testing.assert_close(points, expected)
        torch.testing.assert_close(reference[0, 0, 0, 0], torch.tensor([0.5, -0.5]).tanh())

    def test_one_pair_per_deformable_block(self, model):
        features = model.eat(prepare(PICTURES)["pixel_values"])
        shapes = [tuple(points.shape) for points in features.sampling_points]
        assert shapes == [(3, 1, 6, 6, 2), (3, 2, 3, 3, 2), (3, 2, 3, 3, 2)]
        assert [points.shape for points in features.reference_points] == [*map(torch.Size, shapes)]
        assert features.sampling_points[0].abs().max() <= 1  # by its tanh

    def test_points_stay_exact_in_bfloat16(self, model):
        features = copy.deepcopy(model).to(torch.bfloat16).eat(prepare(PICTURES)["pixel_values"].bfloat16())
        assert {points.dtype for points in features.sampling_points} == {torch.float32}
        assert features.last_hidden_state.dtype == torch.bfloat16


class TestSizes:
    @pytest.mark.parametrize(("height", "width"), [(96, 96), (48, 96), (144, 48)])
    def test_pictures_of_another_size(self, model, height, width):
        features = model.eat(pixels(height, width), output_hidden_states=True)
        assert features.last_hidden_state.shape == (2, 32, height // 16, width // 16)
        assert [tuple(state.shape[1:]) for state in features.hidden_states] == [
            (channels, height // stride, width // stride) for channels, stride in ((8, 4), (16, 8), (32, 16))
        ]
        assert features.last_hidden_state.isfinite().all()

    def test_height_and_width_are_not_mixed_up(self, model):
        """A bias that depends on one direction only."""
        attention = copy.deepcopy(model.eat.stages[2].blocks[1].attention)
        attention.position_bias.data = torch.linspace(-1, 1, 5).view(1, 5, 1).expand(4, 5, 5).clone()
        points = torch.zeros(1, 2, 3, 6, 2)  # the centre
        bias = attention._bias(attention.position_bias, points).view(4, 3, 6, 18)
        expected = torch.tensor([-2 / 3, 0, 2 / 3]) / 2  # half the distance of the rows' centres
        torch.testing.assert_close(bias[0, :, 0, 0], expected)
        assert bias.std(2).max() < 1e-6

    def test_windows_that_do_not_fit(self, model):
        with pytest.raises(ValueError, match="56 × 48 pixels has 14 × 12 features in stage 0, which windows of 6"):
            model(pixels(56, 48))

    def test_another_number_of_channels(self, model):
        with pytest.raises(ValueError, match=r"\(batch, 3, height, width\), got \(2, 1, 48, 48\)"):
            model(torch.zeros(2, 1, 48, 48))


class TestWindows:
    def test_there_and_back(self):
        x = torch.randn(2, 6, 9, 4)
        windows = to_windows(x, 3)
        assert windows.shape == (2, 6, 9, 4)
        assert torch.equal(windows[0, 1].view(3, 3, 4), x[0, :3, 3:6])
        assert torch.equal(from_windows(windows, 6, 9), x)

    def test_relative_table(self):
        table = torch.randn(2, 5, 5)
        found = relative_table(table).view(2, 3, 3, 3, 3)
        for i, j, k, m in itertools.product(range(3), repeat=4):
            assert torch.equal(found[:, i, j, k, m], table[:, i - k + 2, j - m + 2])

    def test_shift_mask_parts_what_the_shift_brought_together(self):
        """Two features of a window may see each other if they lie as far apart as before the shift."""
        size, window, shift = 9, 3, 2
        rows = torch.arange(size).roll(-shift)
        places = torch.stack(torch.meshgrid(rows, rows, indexing="ij"), -1)  # where each feature came from
        windows = to_windows(places.unsqueeze(0), window)[0]  # (num_windows, L, 2)
        near = ((windows.unsqueeze(1) - windows.unsqueeze(2)).abs() < window).all(-1)
        assert torch.equal(shift_mask(size, size, window, shift) == 0, near)
        assert not near.all()


class TestHeads:
    def test_raw_levels(self):
        """The score of a converted model is Σ s_i o_i, within the range; its distribution is the positive part."""
        model = tiny_model(raw_head=True)
        batch = prepare(PICTURES)
        logits = run(model, batch).logits
        for shift in (0.0, 100.0, -100.0):
            moved = copy.deepcopy(model)
            moved.score_head.bias.data += shift
            output = run(moved, batch)
            score = ((logits + shift) * torch.arange(1.0, 6.0)).sum(-1)
            torch.testing.assert_close(output.scores, score.clamp(1, 5), atol=1e-3, rtol=1e-4)
            positive = (logits + shift).clamp(min=0)
            expected = positive / positive.sum(-1, keepdim=True) if shift >= 0 else torch.full_like(positive, 0.2)
            torch.testing.assert_close(output.distribution, expected, atol=1e-4, rtol=1e-4)

    def test_raw_levels_learn_beyond_the_range(self):
        model = tiny_model(raw_head=True)
        model.score_head.bias.data += 100
        model(**prepare(PICTURES, scores=[1.0, 2.0, 3.0]), loss_weights={"emd": 0.0, "smooth_l1": 1.0}).loss.backward()
        assert model.score_head.weight.grad.abs().max() > 1e-3

    @pytest.mark.parametrize("raw_head", [False, True])
    def test_one_value(self, raw_head):
        model = tiny_model(num_levels=1, raw_head=raw_head)
        output = run(model, prepare(PICTURES, scores=[1.0, 2.0, 3.0]))
        value = output.logits[..., 0]
        assert value.diff(dim=0).abs().min() > 1e-3
        torch.testing.assert_close(output.scores, 1 + 4 * (value.clamp(0, 1) if raw_head else value.sigmoid()))
        assert output.distribution is output.std is output.ce_loss is output.emd_loss is None
        torch.testing.assert_close(output.loss, output.smooth_l1_loss)

    def test_losses_that_a_head_does_not_have(self):
        batch = prepare(PICTURES, scores=[1.0, 2.0, 3.0])
        with pytest.raises(ValueError, match="weight for ce, .* no such loss: give weight to smooth_l1 or emd alone"):
            tiny_model(raw_head=True)(**batch, loss_weights={"ce": 1.0})
        with pytest.raises(ValueError, match="no levels"):
            tiny_model(num_levels=1)(**batch, votes=torch.ones(3, 1, 1))

    def test_attributes_with_ranges_of_their_own(self):
        model = tiny_model(attributes=["aesthetics", "light"], score_range=[[1, 5], [0, 100]])
        output = run(model, prepare(PICTURES))
        assert output.logits.shape == (3, 2, 5)
        assert (output.scores[:, 1] > 5).all()
        assert (output.scores <= torch.tensor([5, 100])).all()


def test_drop_path():
    config = EATConfig(**(TINY | {"drop_path_rate": 0.6}))
    rates = drop_path_rates(config)
    assert list(map(len, rates)) == [2, 2, 3]
    assert sum(rates, []) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    block = EATForImageAesthetics(config).eat.stages[2].blocks[2]
    dropped = block.train()._drop_path(torch.ones(4000, 1, 1, 2))
    assert sorted(dropped.unique().tolist()) == pytest.approx([0.0, 2.5])
    assert dropped.mean() == pytest.approx(1, abs=0.1)
    assert torch.equal(block.eval()._drop_path(dropped), dropped)


def test_compiles_into_one_graph(model):
    batch = prepare(PICTURES)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(run(compiled, batch).scores, run(model, batch).scores)


def test_exports_for_any_batch_size(model):
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = {"pixel_values": {0: batch}}
    exported = torch.export.export(model, (), {"pixel_values": pixels(48, 48)}, dynamic_shapes=shapes).module()
    for count in (1, 3):
        found = exported(pixel_values=pixels(48, 48, count)).scores
        torch.testing.assert_close(found, run(model, {"pixel_values": pixels(48, 48, count)}).scores)


class RatedPictures(torch.utils.data.Dataset):
    """Four pictures with a score each."""

    def __init__(self):
        self.pixel_values = prepare([photo(seed) for seed in range(4)])["pixel_values"]

    def __len__(self):
        return len(self.pixel_values)

    def __getitem__(self, index):
        return {"pixel_values": self.pixel_values[index], "scores": torch.tensor([1.0 + index])}


def test_plain_trainer_moves_every_weight(tmp_path):
    model = tiny_model(drop_path_rate=0.1)
    before = {name: value.clone() for name, value in model.named_parameters()}
    arguments = TrainingArguments(
        tmp_path, per_device_train_batch_size=4, num_train_epochs=2, learning_rate=1e-2, report_to="none",
        save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True, label_names=["scores"],
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=RatedPictures(), eval_dataset=RatedPictures())
    trainer.train()
    still = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert still == set()
    assert trainer.predict(RatedPictures()).predictions.shape == (4, 1)
    assert list(named_parts(model)) == ["backbone", "score_head"]


CHILD = """
import json, sys
sys.modules["roc4mllm"] = None  # any use of the package raises
from transformers import AutoModel, pipeline
folder, picture = sys.argv[1:]
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
print(json.dumps(pipeline("image-aesthetics", model=folder, trust_remote_code=True)(picture)["score"]))
"""


def test_scores_without_the_package(model, tmp_path):
    picture, folder = tmp_path / "picture.png", tmp_path / "model"
    photo(0).save(picture)
    scorer = load_scorer(model, image_processor=images)
    scorer.save_pretrained(folder)
    expected = scorer(str(picture))["score"]
    assert load_scorer(folder)(str(picture))["score"] == pytest.approx(expected, abs=5e-6)
    command = [sys.executable, "-c", CHILD, str(folder), str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(expected, abs=5e-6)
