"""
ELTA's heads against numbers of the authors' own code (see the README of ../shared/fixtures). The backbone is not in
the fixtures: what it would give is fed behind the last norm. Tolerances are those stated there.
"""

import os
from pathlib import Path

import pytest
import torch
from family_weights import elta_weights
from safetensors.torch import load_file

from roc4mllm import ELTAConfig, ELTAForImageAesthetics
from roc4mllm.hub.convert_original import load_original

SHARED = Path(os.environ.get("ROC4MLLM_SHARED", Path(__file__).resolve().parents[3] / "shared"))
FOLDER = SHARED / "fixtures" / "elta"
CASES = sorted(path.name.split(".")[0] for path in FOLDER.glob("*.weights.safetensors")) or ["a"]
TOLERANCE = 2e-6
ONE_STAGE = {"image_size": 32, "embed_dim": 1024, "depths": [1], "num_heads": [32], "window_size": 8}


class Case:
    """Both heads, what they read, and what the original made of it."""

    def __init__(self, name: str):
        inputs, self.outputs, self.heads = (
            load_file(FOLDER / f"{name}.{part}.safetensors") for part in ("inputs", "outputs", "weights")
        )
        self.tokens = inputs["tokens"].float()  # (3, 64, 1024)
        stand_in = ELTAForImageAesthetics(ELTAConfig(swin_config=ONE_STAGE))
        self.swin = {name: weight for name, weight in elta_weights(stand_in).items() if "linear" not in name}

    @torch.no_grad()
    def run(self, variant: str):
        """Features and output of a converted model behind these tokens."""
        swin = {"image_size": 32, "window_size": 8}
        model = load_original("elta", self.swin | self.heads, {"variant": variant, "swin": swin})
        model.swin.layernorm.register_forward_hook(lambda *call: self.tokens)
        pictures = torch.zeros(len(self.tokens), 3, 32, 32)
        return model.aesthetic_features(pictures), model(pictures)


@pytest.fixture(scope="module", params=CASES)
def case(request, shared):
    return Case(request.param)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


def test_distribution_head(case):
    features, output = case.run("AVA")
    expected = case.outputs["head.probs"]
    assert (expected[0] - expected[1]).abs().max() > 1e-3  # a head that says one thing would not do
    close(features, case.outputs["head.features"])
    close(output.logits[:, 0], case.outputs["head.logits"])
    close(output.distribution[:, 0], expected)
    close(output.scores[:, 0], (expected * torch.arange(1.0, 11.0)).sum(-1))


def test_score_head(case):
    _, output = case.run("TAD66K")
    expected = case.outputs["head.mse_output"]
    assert expected.diff().abs().min() > 1e-3
    close(output.logits[:, 0, 0].sigmoid(), expected)
    close(output.scores[:, 0], 10 * expected)  # the labels of TAD66K go to 10
