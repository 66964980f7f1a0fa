"""
TANet against numbers of the authors' own code, run on random weights (see the README of ../shared/fixtures).
Tolerances are those stated there.
"""

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from roc4mllm.hub.convert_original import load_original
from roc4mllm.hub.tanet_calibration import calibrate
from roc4mllm.modeling_roc4mllm.loss_aesthetics import earth_movers_distance

SHARED = Path(os.environ.get("ROC4MLLM_SHARED", Path(__file__).resolve().parents[3] / "shared"))
FOLDER = SHARED / "fixtures" / "tanet"
NAMES = sorted(path.name.removesuffix(".bn.safetensors") for path in FOLDER.glob("*.bn.safetensors")) or ["a"]
OUTPUT, INNER = 5e-5, 5e-4
BATCHES = ["b1", "b1_1", "b1_2", "b2", "b2_02", "b3", "b5", "b12"]
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


class Case:
    """One variant: weights made by the recipe, pictures, and what the original made of them."""

    def __init__(self, name: str, variant: str):
        self.variant = variant
        self.facts = json.loads((FOLDER / f"{name}.{variant}.json").read_text())
        self.outputs = load_file(FOLDER / f"{name}.{variant}.outputs.safetensors")
        inputs = load_file(FOLDER / f"{name}.inputs.safetensors")
        self.pictures = (inputs["images_u8"].float() / 255 - MEAN) / STD
        self.target = inputs[f"{variant}.target"]
        statistics = load_file(FOLDER / f"{name}.bn.safetensors")
        self.weights = {
            key: statistics[key] if key in statistics else self.drawn(key, tuple(shape))
            for key, shape in self.facts["state_dict"].items()
        }
        self.model = load_original("tanet", self.weights, {"variant": variant})

    def drawn(self, key: str, shape: tuple[int, ...]) -> torch.Tensor:
        """A weight by the recipe in the json, field `rule`."""
        if key.endswith("num_batches_tracked"):
            return torch.zeros(shape, dtype=torch.int64)
        seed = (zlib.crc32(key.encode()) ^ self.facts["seed"]) & 0xFFFFFFFF
        z = np.random.RandomState(seed).standard_normal(shape)
        if key.endswith("bias"):
            z = 0.1 * z
        elif len(shape) > 1:
            gain = self.facts["gains"].get(key, np.sqrt(2))
            z = z * gain / np.sqrt(np.prod(shape[1:]))
        else:
            z = 1 + 0.1 * z if z.size > 1 else 0.25 + 0.05 * z
        return torch.from_numpy(np.asarray(z, dtype=np.float32))

    def batch(self, name: str) -> torch.Tensor:
        return self.pictures[self.facts["cases"][name]["image_indices"]]

    def works(self, name: str) -> bool:
        return self.facts["cases"][name]["status"] == "works"

    def legacy(self, function, *args):
        """The result of a function with the original's way of mixing the batch."""
        self.model.config.legacy_batch_mixing = True
        try:
            return function(*args)
        finally:
            self.model.config.legacy_batch_mixing = False


@pytest.fixture(scope="module", params=[(name, variant) for name in NAMES for variant in ("AVA", "TAD66K")], ids=str)
def case(request, shared):
    return Case(*request.param)


@torch.no_grad()
def original_output(model, pictures) -> torch.Tensor:
    """What the original calls its output: probabilities, or the sigmoid of one value."""
    output = model(pictures)
    return output.logits[:, 0].sigmoid() if output.distribution is None else output.distribution[:, 0]


def close(found, expected, atol: float):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def test_weights_are_those_of_the_recipe(case):
    for key, expected in case.facts["weight_checks"].items():
        weight = case.weights[key].double()
        assert weight.flatten()[:4].tolist() == pytest.approx(expected["first4"], abs=1e-7), key
        assert weight.sum().item() == pytest.approx(expected["sum"], abs=1e-4), key


def test_parameter_count(case):
    dropped = sum(weight.numel() for name, weight in case.weights.items() if name.endswith("relu7.weight"))
    dropped = dropped if case.variant == "TAD66K" else 0  # softmax stands in for it
    assert sum(parameter.numel() for parameter in case.model.parameters()) == case.facts["n_parameters"] - dropped


@pytest.mark.parametrize("name", BATCHES)
def test_legacy_output(case, name):
    pictures = case.batch(name)
    if not case.works(name):
        with pytest.raises(ValueError, match="single picture"):
            case.legacy(original_output, case.model, pictures)
        return
    found, expected = case.legacy(original_output, case.model, pictures), case.outputs[f"{name}.output"]
    if len(expected) > 2:
        assert (expected[0] - expected[2]).abs().max() > 1e-2  # a blind model would not do
    close(found, expected, OUTPUT)


@pytest.mark.parametrize("name", BATCHES)
@torch.no_grad()
def test_intermediate_values(case, name):
    model, theme, pictures = case.model, case.model.theme, case.batch(name)
    watched = {
        "res365_logits": theme.scene_head,
        "hyper_w": theme.make_weights,
        "hyper_b": theme.make_bias,
        "target_q": theme.query,
        "mobilenet_features": model.perception.mobilenet.conv_1x1,
    }
    found = {}
    for key, module in watched.items():
        module.register_forward_hook(lambda module, args, output, key=key: found.update({key: output}))
    found["mobilenet_branch10"] = model.perception(pictures)
    found["mobilenet_pooled"] = found.pop("mobilenet_features").mean((-2, -1))
    if case.works(name):
        found["target_out"] = case.legacy(theme.legacy_table, pictures)
        found["hyper_branch10"] = case.legacy(theme, pictures)
    else:
        theme.queries_and_weights(pictures)
    found["rgb12"] = torch.nn.functional.adaptive_avg_pool2d(pictures, 12)
    found["rgb_branch10"] = model.colour(pictures)
    stored = {key.split(".", 1)[1] for key in case.outputs if key.startswith(f"{name}.")}
    for key in stored - {"output", "edm_loss_as_shipped", "emd_r2_train_formula", "mse_loss"}:
        close(found[key], case.outputs[f"{name}.{key}"], OUTPUT if key.startswith("rgb") else INNER)


def test_losses(case):
    output = case.legacy(original_output, case.model, case.batch("b12"))
    if case.variant == "TAD66K":
        close((output - case.target).square().mean()[None], case.outputs["b12.mse_loss"], OUTPUT)
        return
    root = earth_movers_distance(output, case.target, reduction="batch_root")
    close(root[None], case.outputs["b12.emd_r2_train_formula"], OUTPUT)
    scores = case.legacy(case.model, case.batch("b12")).scores[:, 0]
    close(scores, torch.tensor(case.facts["scores_b12"]), 10 * OUTPUT)  # the sum of ten errors, each times its level


def test_default_mode_scores_single_pictures(case):
    for name in ("b1", "b1_1", "b1_2"):
        found = original_output(case.model, case.batch(name))
        if case.variant == "TAD66K":  # where the original runs on one picture
            close(found, case.outputs[f"{name}.output"], OUTPUT)
        else:
            assert torch.isfinite(found).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@torch.no_grad()
def test_default_mode_is_independent_of_the_batch(case, dtype, tolerance):
    model = case.model.to(dtype)
    pictures = case.batch("b5").to(dtype)
    low, high = model.config.score_range
    scores = model(pictures).scores
    assert (scores[0] - scores[2]).abs().min() > 1e-2
    alone = torch.cat([model(picture[None]).scores for picture in pictures])
    pair = model(pictures[[4, 0]]).scores.flip(0)
    model.float()
    for found, expected in ((scores, alone), (scores[[0, 4]], pair)):
        error = (found - expected).abs().max()
        assert error / (high - low) <= tolerance
        assert error <= (5e-5 if dtype == torch.float32 else tolerance)  # in units of the score range


def test_calibrated_on_a_batch_gives_its_own_pictures_what_the_original_gives_them(case):
    if case.variant == "TAD66K":
        with pytest.raises(ValueError, match="uses no statistics"):
            calibrate(case.model, [case.batch("b12")])
        return
    model = load_original("tanet", case.weights, {"variant": "AVA"})
    assert calibrate(model, case.batch("b12").split(5)) == 12
    assert model.config.theme_calibrated
    with torch.no_grad():
        values = model.theme(case.batch("b12"))
    assert values.std(0).min() > 0.1
    close(values[:, 0], case.outputs["b12.target_out"].diagonal(), INNER)
