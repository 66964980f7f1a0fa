"""Resizing in torch gives what this Pillow gives, to the last bit, and has the gradient of resizing."""

import numpy as np
import pytest
import torch
from PIL import Image

from roc4mllm.inference.differentiable import resize as resize_module
from roc4mllm.inference.differentiable.resize import clip, pillow_height_first, resize

FILTERS = [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS]


def as_levels(picture) -> torch.Tensor:
    return torch.from_numpy(np.array(picture, np.float64)).permute(2, 0, 1)[None]


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    """Black and white only, so that filters shoot beyond both and much is clipped."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 2, (height, width, 3), dtype=np.uint8) * 255)


@pytest.mark.parametrize("kind", FILTERS)
def test_pixels_are_those_of_pillow(kind):
    sizes = np.random.default_rng(0).integers(1, 90, (120, 4)).tolist()
    sizes += [(96, 32, 64, 22), (96, 32, 32, 64), (60, 65, 22, 46), (120, 40, 60, 10), (64, 64, 64, 16), (9, 9, 9, 9)]
    for seed, (height, width, *size) in enumerate(sizes):
        picture = noise(height, width, seed)
        found = resize(as_levels(picture), tuple(size), kind, pillow_height_first((height, width), tuple(size)))
        expected = as_levels(picture.resize(size[::-1], kind))
        assert torch.equal(found.round(), expected), (height, width, size)
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def test_order_of_the_axes_matters():
    """Else the test above would not tell which Pillow takes."""
    picture = as_levels(noise(96, 32))
    height_first, width_first = (resize(picture, (40, 20), Image.Resampling.LANCZOS, order) for order in (True, False))
    assert (height_first - width_first).abs().max() > 5


def test_older_pillow_takes_the_width_first(monkeypatch):
    assert pillow_height_first((96, 32), (40, 20)) == resize_module.knows_height_first()
    monkeypatch.setattr(resize_module, "knows_height_first", lambda: False)
    assert not pillow_height_first((96, 32), (40, 20))


@pytest.mark.parametrize("kind", FILTERS)
def test_gradient_is_that_of_resizing(kind):
    levels = (60 + 100 * torch.rand(1, 3, 9, 7, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: resize(values, (5, 8), kind, rounded=False), (levels,))
    weights = torch.rand(1, 3, 5, 8, dtype=torch.float64)
    smooth, rounded = (
        torch.autograd.grad((weights * resize(levels, (5, 8), kind, rounded=choice)).sum(), levels)[0]
        for choice in (False, True)
    )
    assert smooth.abs().min() > 0
    torch.testing.assert_close(rounded, smooth)


@pytest.mark.parametrize("level", [0.0, 255.0])
def test_black_and_white_keep_their_gradient(level):
    levels = torch.full((1, 3, 31, 47), level, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(resize(levels, (13, 11), Image.Resampling.BICUBIC).sum(), levels)
    assert (gradient != 0).all()


def test_what_is_clipped_has_no_gradient():
    levels = torch.tensor([-9.0, -0.2, 100.4, 100.5, 255.2, 280.0], requires_grad=True)
    clipped = clip(levels)
    assert clipped.tolist() == [0.0, 0.0, 100.0, 101.0, 255.0, 255.0]
    (gradient,) = torch.autograd.grad(clipped.sum(), levels)
    assert gradient.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]


def test_other_filters_are_refused():
    with pytest.raises(ValueError, match="BILINEAR, BICUBIC, LANCZOS; got HAMMING"):
        resize(torch.zeros(1, 3, 8, 8, dtype=torch.float64), (4, 4), Image.Resampling.HAMMING)
