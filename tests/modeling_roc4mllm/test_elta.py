"""ELTA on a tiny network. With the original's numbers: test_elta_parity.py."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from common_tests import PICTURES, ImageAestheticsModelTests, run
from huggingface_hub.errors import StrictDataclassError
from tiny import photo
from transformers import AutoConfig, Swinv2Config, Swinv2Model, Trainer, TrainingArguments, ViTImageProcessorPil

from roc4mllm import ELTAConfig, ELTAForImageAesthetics, load_scorer
from roc4mllm.trainer.model_parts import named_parts

SWIN = {"image_size": 32, "embed_dim": 8, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4}
TINY = {
    "swin_config": SWIN | {"drop_path_rate": 0.0},
    "head_size": 6,
    "num_levels": 5,
    "score_range": (1.0, 5.0),
    "score_head_trained": True,
}
ONE_VALUE = {"num_levels": 1, "score_range": (0.0, 10.0)}
images = ViTImageProcessorPil(size={"height": 32, "width": 32})


def tiny_model(**options) -> ELTAForImageAesthetics:
    """A tiny model, drawn wide enough to react to its picture, the same at each call."""
    torch.manual_seed(0)
    model = ELTAForImageAesthetics(ELTAConfig(**(TINY | options))).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
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


class TestCommon(ImageAestheticsModelTests):
    @pytest.fixture
    def parts(self, model):
        return model, prepare


class TestConfig:
    def test_defaults_are_the_published_size(self):
        with torch.device("meta"):
            model = ELTAForImageAesthetics(ELTAConfig())
            swin = Swinv2Model(Swinv2Config(**model.config.swin_config.to_dict()))
        assert round(swin.num_parameters() / 1e6) == 87  # Swin Transformer V2 (CVPR 2022), base, without its classes
        assert model.num_parameters() - swin.num_parameters() == 1024 * 64 + 64 + 64 * 10 + 10
        config = model.config
        assert (config.score_range, config.num_levels, config.attributes) == ([1.0, 10.0], 10, ["aesthetics"])
        assert model.swin(torch.zeros(1, 3, 256, 256, device="meta")).last_hidden_state.shape == (1, 64, 1024)

    @pytest.mark.parametrize("swin", [SWIN, {}, {"depths": [2, 2, 6, 2], "embed_dim": 96}])
    def test_saved_and_loaded(self, swin, tmp_path):
        """Also where a field is what transformers takes by default and ELTA does not."""
        config = ELTAConfig(**(TINY | ONE_VALUE | {"swin_config": swin}))
        config.save_pretrained(tmp_path)
        again = AutoConfig.from_pretrained(tmp_path)
        assert type(again) is ELTAConfig
        assert again.swin_config.to_dict() == config.swin_config.to_dict()
        assert (again.num_levels, again.score_range, again.head_size) == (1, [0.0, 10.0], 6)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"head_size": 0}, "head_size must be at least 1, got 0"),
            ({"head_size": "wide"}, "head_size"),
            ({"num_levels": 0}, "at least 1, got 0"),
            ({"score_range": (3, 1)}, "min < max"),
            ({"swin_config": {"depths": "deep"}}, "depths"),
        ],
    )
    def test_refused(self, fields, message):
        with pytest.raises(StrictDataclassError, match=message):
            ELTAConfig(**fields)


class TestHead:
    def test_two_maps(self, model):
        features = model.aesthetic_features(prepare(PICTURES)["pixel_values"])
        hidden, head = model.score_head.hidden, model.score_head
        inner = (features @ hidden.weight.T + hidden.bias).clamp(min=0)
        assert (inner == 0).any()  # the ReLU has something to do
        torch.testing.assert_close(model.score_head(features), inner @ head.weight.T + head.bias)

    def test_both_maps_stay_in_float32(self, model, tmp_path):
        rounded = copy.deepcopy(model).to(torch.bfloat16)
        model.save_pretrained(tmp_path)
        loaded = ELTAForImageAesthetics.from_pretrained(tmp_path, dtype=torch.bfloat16)
        for found in (rounded, loaded):
            assert found.swin.layernorm.weight.dtype == torch.bfloat16
            for name, value in found.score_head.named_parameters():
                assert torch.equal(value, model.score_head.get_parameter(name)), name

    def test_one_value(self, one_value):
        output = run(one_value, prepare(PICTURES))
        assert output.scores.shape == output.score_mask.shape == (3, 1)
        assert output.distribution is output.std is None
        assert output.scores.diff(dim=0).abs().min() > 1e-3
        torch.testing.assert_close(output.scores, 10 * output.logits[..., 0].sigmoid())
        alone = torch.cat([run(one_value, prepare([picture])).scores for picture in PICTURES])
        assert (output.scores - alone).abs().max() <= 5e-5

    def test_attributes_with_ranges_of_their_own(self):
        model = tiny_model(attributes=["aesthetics", "light"], score_range=[[1, 5], [0, 100]])
        output = run(model, prepare(PICTURES))
        assert output.logits.shape == (3, 2, 5)
        assert (output.scores[:, 1] > 5).all()

    def test_pictures_of_wrong_shape(self, model):
        with pytest.raises(ValueError, match=r"\(batch, 3, height, width\), got \(2, 1, 32, 32\)"):
            model(torch.zeros(2, 1, 32, 32))


@pytest.mark.parametrize("side", [24, 64, 50])
def test_pictures_of_another_size(model, side):
    features = model.aesthetic_features(torch.randn(2, 3, side, side))
    assert features.shape == (2, 16)
    assert features.isfinite().all()


def test_compiles_into_one_graph(model):
    pixel_values = prepare(PICTURES)["pixel_values"]
    exported = torch.export.export(model, (), {"pixel_values": pixel_values}).module()
    torch.testing.assert_close(exported(pixel_values=pixel_values).scores, run(model, prepare(PICTURES)).scores)


class RatedPictures(torch.utils.data.Dataset):
    """Four pictures with a score each."""

    def __init__(self):
        self.pixel_values = prepare([photo(seed) for seed in range(4)])["pixel_values"]

    def __len__(self):
        return len(self.pixel_values)

    def __getitem__(self, index):
        return {"pixel_values": self.pixel_values[index], "scores": torch.tensor([1.0 + index])}


@pytest.mark.parametrize("options", [{}, ONE_VALUE])
def test_plain_trainer_moves_every_weight(options, tmp_path):
    model = tiny_model(**options)
    before = {name: value.clone() for name, value in model.named_parameters()}
    arguments = TrainingArguments(
        tmp_path, per_device_train_batch_size=4, num_train_epochs=2, learning_rate=1e-2, report_to="none",
        save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True, label_names=["scores"],
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=RatedPictures()).train()
    still = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert still == set()
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
