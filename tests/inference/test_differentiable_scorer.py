"""Tensors get the pipeline's scores, and what the gradient says of them is true of the pictures that are saved."""

import copy
import functools
import io
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import photo, scorer_parts
from tiny_image_scorers import eat_scorer, image_scorer, tanet_scorer

import roc4mllm
from roc4mllm import DifferentiableScorer, ELTAConfig, ELTAForImageAesthetics, load_scorer
from roc4mllm.inference.differentiable import differentiable_scorer
from roc4mllm.inference.personal.personal_scorer import FeatureScorer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SWIN = {
    "image_size": 32,
    "embed_dim": 8,
    "depths": [1, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "drop_path_rate": 0.0,
}
SIZES = {"landscape": (160, 100), "portrait": (90, 200), "tiny": (9, 7), "larger": (1100, 700), "strip": (300, 16)}
STEPS = 3


def elta_scorer():
    levels = {"num_levels": 5, "score_range": (1.0, 5.0), "score_head_trained": True}
    return image_scorer(ELTAForImageAesthetics(ELTAConfig(swin_config=SWIN, head_size=6, **levels)))


def mllm_scorer(kind: str = "mplugowl2"):
    model, processor = scorer_parts(kind, attributes=("aesthetics", "noise"))
    return load_scorer(model, processor=processor)


BUILDERS = {
    "bundled": load_scorer,
    "roc4mllm": mllm_scorer,
    "eat": eat_scorer,
    "tanet": tanet_scorer,
    "elta": elta_scorer,
}


@functools.cache
def made(name: str):
    return BUILDERS[name]()


@pytest.fixture(params=BUILDERS)
def scorer(request):
    """Of each of the four families, and the bundled one."""
    return made(request.param)


@pytest.fixture
def tanet():
    return made("tanet")


def photographs(size=None) -> list[Image.Image]:
    """Ten photographs: those of examples/photos, and parts of three."""
    whole = [Image.open(path).convert("RGB") for path in sorted((EXAMPLES / "photos").glob("*.[pj][np]g"))]
    parts = [picture.crop((40, 30, 40 + picture.width // 2, 30 + picture.height // 2)) for picture in whole[2:5]]
    return [picture if size is None else picture.resize(size) for picture in [*whole, *parts]]


def as_pixels(picture) -> torch.Tensor:
    return torch.from_numpy(np.array(picture, np.float32) / 255).permute(2, 0, 1)[None]  # (1, 3, H, W)


def saved(pixels: torch.Tensor) -> bytes:
    """A PNG file of one picture `(1, 3, H, W)`."""
    file = io.BytesIO()
    Image.fromarray((pixels[0] * 255).round().byte().permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


def report(line: str) -> None:
    """Shown by pytest with -s or -rP."""
    print(line)  # noqa: T201


def normalized(scorer, scores: torch.Tensor) -> torch.Tensor:
    low, high = torch.tensor(scorer.model.config.score_range, dtype=scores.dtype).reshape(-1, 2).T
    return (scores - low) / (high - low)


def pipeline_scores(scorer, pictures) -> torch.Tensor:
    return torch.tensor([list(record["attributes"].values()) for record in scorer(pictures)])  # (B, A)


# Scores --------------------------------------------------------------------------------------------------------------


def test_scores_are_the_pipelines(scorer):
    reward = DifferentiableScorer(scorer)
    assert reward.attributes == list(scorer.model.config.attributes)
    pictures = [*photographs()[:4], *(photographs()[-1].resize(size) for size in SIZES.values())]
    found = normalized(scorer, torch.cat([reward(as_pixels(picture)) for picture in pictures]))
    expected = normalized(scorer, pipeline_scores(scorer, pictures))
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    assert expected.std(0).max() > 0.01
    worst = (found - expected).abs().max()
    report(f"{type(scorer.model).__name__}: largest normalized difference {worst:.1e} of {len(pictures)} pictures")
    assert worst < 1e-5  # asked for are 1e-3; float32 rounds


def test_batch_equals_singles(scorer):
    reward = DifferentiableScorer(scorer)
    pixels = torch.cat([as_pixels(photo(seed, 70, 50)) for seed in range(3)])
    together, alone = reward(pixels), torch.cat([reward(picture[None]) for picture in pixels])
    assert (alone[0] - alone[1]).abs().max() > 1e-3
    torch.testing.assert_close(together, alone, atol=5e-5, rtol=1e-5)


def test_attributes_and_question_are_asked_for():
    scorer = mllm_scorer("qwen2_vl")
    pixels, picture = as_pixels(photo(1)), photo(1)
    for options in ({"attributes": ["noise"]}, {"attributes": ["noise", "aesthetics"]}, {"question": "Is it sharp?"}):
        reward = DifferentiableScorer(scorer, **options)
        record = scorer(picture, **options)
        assert reward.attributes == list(record["attributes"])
        assert reward(pixels)[0].tolist() == pytest.approx(list(record["attributes"].values()), abs=1e-5)
    assert abs(scorer(picture)["score"] - record["score"]) > 1e-3  # the question matters
    narrow = load_scorer(scorer.model, processor=scorer.processor, attributes=["noise"])
    assert DifferentiableScorer(narrow).attributes == ["noise"]


def test_scores_follow_8_bits_unless_they_need_not(tanet):
    pixels = as_pixels(photo(1))
    between = (pixels + 0.3 / 255).clamp(0, 1)
    rounded, smooth = DifferentiableScorer(tanet), DifferentiableScorer(tanet, rounded=False)
    assert torch.equal(rounded(between), rounded(pixels))
    assert not torch.equal(smooth(between), smooth(pixels))
    assert (normalized(tanet, smooth(pixels)) - normalized(tanet, rounded(pixels))).abs() < 0.1


def test_default_is_the_bundled_model(tmp_path):
    pixels = as_pixels(photo(1))
    assert torch.equal(DifferentiableScorer()(pixels), DifferentiableScorer(load_scorer())(pixels))
    eat = eat_scorer()
    eat.save_pretrained(tmp_path)
    torch.testing.assert_close(DifferentiableScorer(tmp_path)(pixels), DifferentiableScorer(eat)(pixels))


# Gradients -----------------------------------------------------------------------------------------------------------


def test_gradient_reaches_the_pixels_and_no_weight(scorer):
    reward = DifferentiableScorer(scorer)
    scorer.model.train()
    pixels = as_pixels(photo(1)).requires_grad_()
    scores = reward(pixels)
    assert scores.requires_grad
    scores.sum().backward()
    assert torch.isfinite(pixels.grad).all()
    assert pixels.grad.abs().max() > 1e-4
    assert not scorer.model.training
    assert all(weight.grad is None and not weight.requires_grad for weight in scorer.model.parameters())
    assert not isinstance(reward, torch.nn.Module)


def test_gradient_agrees_with_differences(scorer):
    exact = copy.copy(scorer)
    exact.model = copy.deepcopy(scorer.model).double()
    reward = DifferentiableScorer(exact, rounded=False)
    pixels = (0.2 + 0.6 * as_pixels(photo(1)).double()).requires_grad_()
    score = reward(pixels)[0, 0]
    assert score.dtype == torch.float64
    (gradient,) = torch.autograd.grad(score, pixels)
    torch.manual_seed(0)
    direction = gradient / gradient.norm() + torch.randn_like(gradient) / gradient.numel() ** 0.5
    # a language model's norms compute in float32, and so many digits are left
    step, tolerance = (1e-3, 2e-3) if scorer.processor else (1e-6, 1e-5)
    with torch.no_grad():
        ahead, behind = (reward(pixels + sign * step * direction)[0, 0] for sign in (1, -1))
    slope = (ahead - behind) / (2 * step)
    assert slope.abs() > 1e-2
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=tolerance, atol=0)


def ascend(reward, pixels: torch.Tensor) -> torch.Tensor:
    """
    A few steps of one 8-bit level, in the twentieth of all values that the score reacts to most: in all of them it is
    a step too far for the wildest of these random models.
    """
    for _ in range(STEPS):
        pixels = pixels.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(reward(pixels)[:, 0].sum(), pixels)
        steepest = gradient.abs() >= gradient.abs().quantile(0.95)
        pixels = (pixels + steepest * gradient.sign() / 255).clamp(0, 1)
    return pixels.detach()


def count_raised(scorer, pictures) -> int:
    reward = DifferentiableScorer(scorer)
    files = [saved(ascend(reward, as_pixels(picture))) for picture in pictures]
    raised = [after["score"] - before["score"] for before, after in zip(scorer(pictures), scorer(files), strict=True)]
    name = type(scorer.model).__name__
    report(f"{name}: {sum(rise > 0 for rise in raised)} of {len(raised)} raised, by {np.median(raised):.3f} (median)")
    return sum(rise > 1e-3 for rise in raised)


def test_few_steps_raise_the_score_of_ten_photographs(scorer):
    assert count_raised(scorer, photographs((160, 120))) == 10


def test_few_steps_raise_the_score_of_ten_photographs_of_oasis(scorer, shared):
    folder = shared / "data" / "oasis_beauty" / "images"
    if not folder.is_dir():
        pytest.skip("needs the shared data: there is no folder 'data/oasis_beauty'")
    pictures = [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())[::42]]
    assert count_raised(scorer, [picture.resize((160, 120)) for picture in pictures]) == len(pictures) == 10


def test_score_beyond_its_range_keeps_a_gradient(tanet):
    model = copy.deepcopy(tanet.model)
    model.config.raw_head = True
    model.score_head.bias.data -= 100.0
    reward = DifferentiableScorer(load_scorer(model, image_processor=tanet.image_processor))
    pixels = as_pixels(photo(1)).requires_grad_()
    score = reward(pixels)
    assert score.item() == 1.0  # the end of the range
    (gradient,) = torch.autograd.grad(score.sum(), pixels)
    assert gradient.abs().max() > 0


def test_checkpointing_gives_the_same_gradient(tanet):
    reward, pixels = DifferentiableScorer(tanet), as_pixels(photo(1)).requires_grad_()
    (plain,) = torch.autograd.grad(reward(pixels).sum(), pixels)
    scores = torch.utils.checkpoint.checkpoint(reward, pixels, use_reentrant=False)
    (again,) = torch.autograd.grad(scores.sum(), pixels)
    torch.testing.assert_close(again, plain)


# Precision -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_pixels_of_any_dtype(dtype, tanet):
    pixels = as_pixels(photo(1)).to(dtype).requires_grad_()
    reward = DifferentiableScorer(tanet)
    scores = reward(pixels)
    torch.testing.assert_close(scores, reward(pixels.detach().float()))
    (gradient,) = torch.autograd.grad(scores.sum(), pixels)
    assert gradient.dtype == dtype
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


def test_autocast_and_bfloat16_models(scorer):
    pixels = as_pixels(photo(1)).requires_grad_()
    expected = normalized(scorer, DifferentiableScorer(scorer)(pixels).detach())
    rounded = copy.copy(scorer)
    rounded.model = copy.deepcopy(scorer.model).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        cast = DifferentiableScorer(scorer)(pixels)
    for scores in (cast, DifferentiableScorer(rounded)(pixels)):
        assert (normalized(scorer, scores.detach().float()) - expected).abs().max() < 0.2
        (gradient,) = torch.autograd.grad(scores.sum(), pixels)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0


# Sizes and errors ----------------------------------------------------------------------------------------------------


def test_a_size_is_followed_once_and_forgotten_in_the_end(tanet, monkeypatch):
    followed = []
    follow = differentiable_scorer.follow

    def counting(*args):
        followed.append(args[2:4])
        return follow(*args)

    monkeypatch.setattr(differentiable_scorer, "follow", counting)
    reward = DifferentiableScorer(tanet)
    widths = [*range(20, 30), 29, 28, 20]
    for width in widths:
        reward(torch.rand(1, 3, 24, width))
    assert followed == [(24, width) for width in [*range(20, 30), 20]]


@pytest.mark.parametrize(
    ("pixels", "error", "message"),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, r"got torch.uint8; divide 8-bit values by 255"),
        (np.zeros((1, 3, 8, 8)), TypeError, r"floating point tensor from 0 to 1, got ndarray"),
        (torch.zeros(3, 8, 8), ValueError, r"\(batch_size, 3, height, width\), got \(3, 8, 8\)"),
        (torch.zeros(1, 8, 8, 3), ValueError, r"got \(1, 8, 8, 3\)"),
        (torch.zeros(0, 3, 8, 8), ValueError, r"got \(0, 3, 8, 8\)"),
        (torch.linspace(-1, 1, 192).view(1, 3, 8, 8), ValueError, r"got -1 to 1; pass \(pixels \+ 1\) / 2"),
        (torch.full((1, 3, 8, 8), 1.001), ValueError, r"got 1.001 to 1.001"),
        (torch.full((1, 3, 8, 8), float("nan")), ValueError, r"got nan to nan"),
    ],
)
def test_pixels_that_are_refused(tanet, pixels, error, message):
    with pytest.raises(error, match=message):
        DifferentiableScorer(tanet)(pixels)


def test_scorers_that_are_refused(tanet):
    with pytest.raises(ValueError, match="'colour'"):
        DifferentiableScorer(tanet, attributes=["colour"])
    with pytest.raises(ValueError, match="takes no question"):
        DifferentiableScorer(tanet, question="Is it sharp?")
    with pytest.raises(ValueError, match="FeatureScorer adds to the model's scores what has no gradient"):
        DifferentiableScorer(FeatureScorer(tanet))


def test_example_raises_the_score(tmp_path, monkeypatch, capsys):
    photographs((200, 150))[0].save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["reward.py", "photo.png"])
    runpy.run_path(str(EXAMPLES / "reward.py"))
    before, after = (float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()[-2:])
    assert after > before + 0.05
    first, second = roc4mllm.load_scorer()(["before.png", "after.png"])
    assert (first["score"], second["score"]) == pytest.approx((before, after), abs=1e-3)
