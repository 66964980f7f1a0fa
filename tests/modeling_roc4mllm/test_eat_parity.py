"""
EAT against numbers of the authors' own code, run on tiny random weights (see the README of ../shared/fixtures).
Tolerances are those stated there.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from roc4mllm.hub.convert_original import load_original
from roc4mllm.hub.eat_keys import config_from_weights, original_name
from roc4mllm.modeling_roc4mllm.loss_aesthetics import earth_movers_distance

SHARED = Path(os.environ.get("ROC4MLLM_SHARED", Path(__file__).resolve().parents[3] / "shared"))
FOLDER = SHARED / "fixtures" / "eat"
CASES = sorted(path.name.split(".")[0] for path in FOLDER.glob("*.weights.safetensors")) or ["a"]
OUTPUT, POINTS, GRADIENT = 2e-5, 1e-5, 1e-4
BATCHES = {"b3": [0, 1, 2], "b2_01": [0, 1], "b1_0": [0], "b1_1": [1], "b1_2": [2]}
SINGLES = ["b1_0", "b1_1", "b1_2"]


class Case:
    """One set of tiny weights, what went in, and what the original made of it."""

    def __init__(self, name: str):
        self.facts = json.loads((FOLDER / f"{name}.json").read_text())
        self.config = self.facts["config"]
        self.inputs, self.outputs, self.weights = (
            load_file(FOLDER / f"{name}.{part}.safetensors") for part in ("inputs", "outputs", "weights")
        )
        self.model = self.load()
        self.legacy = self.load(legacy_batch_mixing=True)

    def load(self, **fields):
        return load_original("eat", self.weights, self.config | fields)

    def images(self, batch: str) -> torch.Tensor:
        return self.inputs["images"][BATCHES[batch]]

    def points(self, batch: str, kind: str) -> list[torch.Tensor]:
        """The original's `pos` or `ref` of all deformable blocks, in their order."""
        names = [name for name in self.outputs if name.startswith(f"{batch}.{kind}.")]
        return [self.outputs[name] for name in sorted(names, key=lambda name: [int(n) for n in digits(name)])]


def digits(name: str) -> list[str]:
    """Numbers of stage and block in a name such as `b3.pos.stage2.block1`."""
    return [part.lstrip("stageblock") for part in name.split(".")[2:]]


@pytest.fixture(scope="module", params=CASES)
def case(request, shared):
    return Case(request.param)


@torch.no_grad()
def run(model, images, **kwargs):
    return model(images, **kwargs)


def close(found, expected, atol: float):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def test_the_pictures_of_the_fixture_matter(case):
    """Without this, every equality below could hold for a model that is blind."""
    output = case.outputs["b3.output"]
    assert (output[0] - output[1]).abs().max() > 1e-2
    assert (output[0] - output[2]).abs().max() > 1e-2


@pytest.mark.parametrize("batch", BATCHES)
def test_outputs_with_legacy_batch_mixing(case, batch):
    output = run(case.legacy, case.images(batch))
    close(output.logits[:, 0], case.outputs[f"{batch}.output"], OUTPUT)


@pytest.mark.parametrize("batch", BATCHES)
def test_points_with_legacy_batch_mixing(case, batch):
    features = run(case.legacy.eat, case.images(batch))
    for found, kind in ((features.sampling_points, "pos"), (features.reference_points, "ref")):
        expected = case.points(batch, kind)
        assert len(found) == len(expected) == "".join(case.legacy.config.stage_blocks).count("D")
        for ours, theirs in zip(found, expected, strict=True):
            close(ours, theirs, POINTS)


def test_stages_with_legacy_batch_mixing(case):
    states = run(case.legacy.eat, case.images("b3"), output_hidden_states=True).hidden_states
    for stage, found in enumerate(states):
        close(found, case.outputs[f"b3.stage{stage}_out"], OUTPUT)


@pytest.mark.parametrize("batch", ["b3", *SINGLES])
def test_mean_opinion_scores(case, batch):
    """
    Within the range the score is the original's, with one output ten times that, as labels of TAD66K are; beyond it
    is the end of the range.
    """
    output = run(case.legacy, case.images(batch))
    expected = case.outputs[f"{batch}.mean_opinion_score"].flatten() * (10 if output.distribution is None else 1)
    found, _ = case.legacy.read_levels(output.logits)
    close(found[:, 0], expected, 10 * OUTPUT)  # a sum of ten outputs, each times up to 10
    close(output.scores[:, 0], expected.clamp(*case.legacy.config.score_range), 10 * OUTPUT)


@pytest.mark.parametrize("batch", SINGLES)
def test_single_pictures(case, batch):
    """Where nothing can be mixed, ours is the original's."""
    image = case.images(batch)
    close(run(case.model, image).logits[:, 0], case.outputs[f"{batch}.output"], OUTPUT)
    features = run(case.model.eat, image)
    for found, kind in ((features.sampling_points, "pos"), (features.reference_points, "ref")):
        for ours, theirs in zip(found, case.points(batch, kind), strict=True):
            close(ours, theirs, POINTS)


def test_a_batch_is_its_single_pictures(case):
    """The original's outputs of the same pictures depend on each other."""
    alone = torch.cat([case.outputs[f"{batch}.output"] for batch in SINGLES])
    close(run(case.model, case.images("b3")).logits[:, 0], alone, OUTPUT)
    assert (case.outputs["b3.output"] - alone).abs().max() > 0.1


def test_a_batch_is_its_single_pictures_to_the_last_digits(case):
    """In float64 nothing but rounding is left between them."""
    model, images = case.load().double(), case.images("b3").double()
    together = run(model, images).logits
    assert (together[0] - together[1]).abs().max() > 1e-2
    close(together, torch.cat([run(model, image[None]).logits for image in images]), 1e-10)


def test_loss_and_gradients(case):
    """Their loss of their raw outputs, and the norm of its gradient by weight."""
    model = case.load(legacy_batch_mixing=True)  # in evaluation, as the original was
    logits, target = model(case.images("b3")).logits[:, 0], case.inputs["target"]
    if model.config.num_levels == 1:
        loss = functional.mse_loss(logits, target)
    else:
        loss = earth_movers_distance(logits, target, reduction="batch_root")
    close(loss.view(1), case.outputs["b3.loss"], OUTPUT)
    loss.backward()
    found = {original_name(name, model.config): weight.grad.norm().item() for name, weight in model.named_parameters()}
    expected = case.facts["grad_norm"]
    assert found.keys() == expected.keys()
    for name, norm in expected.items():
        # a bias of keys has no influence: its gradient is rounding
        assert found[name] == pytest.approx(norm, rel=GRADIENT, abs=1e-6), name


def test_config_is_read_off_the_weights(case):
    known = {name: case.config[name] for name in ("offset_range_factor", "drop_path_rate")}
    found = config_from_weights(case.weights, **known)
    for name, value in found.items():
        if name not in ("heads", "groups", "dwc_pes"):
            assert value == case.config[name], name
    output = run(load_original("eat", case.weights, found), case.images("b1_0")).logits[:, 0]
    close(output, case.outputs["b1_0.output"], OUTPUT)
