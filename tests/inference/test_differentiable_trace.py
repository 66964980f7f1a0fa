"""What torch prepares is what the processor prepares, for every kind of processor that the package knows."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from tiny import BACKBONES, backbone, photo, shared_parts
from transformers import BatchFeature, CLIPImageProcessorPil, SiglipImageProcessorPil, ViTImageProcessorPil
from transformers.image_processing_utils import BaseImageProcessor

from roc4mllm import MPLUGOwl2ImageProcessor, ROC4MLLMProcessor
from roc4mllm.inference.differentiable import trace
from roc4mllm.inference.differentiable.trace import follow

CPU = torch.device("cpu")
SIZES = [(48, 64), (96, 32), (61, 150), (5, 9)]  # height, width
TENSORS = {"return_tensors": "pt"}


def assert_prepares_alike(prepare, sizes=SIZES, **options):
    for height, width in sizes:
        pictures = [photo(seed, width, height) for seed in range(2)]
        expected = prepare(images=pictures, **options)
        pixels = torch.stack([torch.from_numpy(np.array(picture) / 255).permute(2, 0, 1) for picture in pictures])
        found = follow(prepare, options, height, width, CPU).inputs(pixels)
        assert set(found) == set(expected)
        assert expected["pixel_values"].double().std() > 0.1
        for name, values in expected.items():
            torch.testing.assert_close(found[name].to(values.dtype), values, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("kind", BACKBONES)
def test_every_backbone(kind):
    assert_prepares_alike(shared_parts(kind)[1])


@pytest.mark.parametrize("kind", ["qwen2_vl", "idefics3", "llava_onevision", "mplugowl2"])
def test_fragments(kind):
    assert_prepares_alike(ROC4MLLMProcessor.from_backbone(backbone(kind)[1], fragment_size=64))


@pytest.mark.parametrize(
    "processor",
    [
        ViTImageProcessorPil(size={"height": 48, "width": 40}),
        ViTImageProcessorPil(do_resize=False),
        ViTImageProcessorPil(do_resize=False, do_rescale=False, do_normalize=False),
        ViTImageProcessorPil(size={"shortest_edge": 33}, do_normalize=False),
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 64, "width": 24}),
        MPLUGOwl2ImageProcessor(size={"height": 40, "width": 40}),
        MPLUGOwl2ImageProcessor(size={"height": 40, "width": 24}, do_pad=False),
        MPLUGOwl2ImageProcessor(do_resize=False),
    ],
    ids=["stretched", "as it is", "8-bit", "shortest edge", "cropped and padded", "padded", "not padded", "square"],
)
def test_options_of_image_processors(processor):
    assert_prepares_alike(processor, **TENSORS)


def test_processor_itself_is_left_alone():
    processor = shared_parts("qwen2_vl")[1]
    image_processor = processor.backbone_processor.image_processor
    kind, state = type(image_processor), set(vars(image_processor))
    follow(processor, {}, 48, 64, CPU)
    assert processor.backbone_processor.image_processor is image_processor
    assert type(image_processor) is kind
    assert set(vars(image_processor)) == state


# With torchvision ----------------------------------------------------------------------------------------------------


class SiglipImageProcessor(BaseImageProcessor):
    """Stands for the class of that name, which works with torchvision: the same kernels of torch on 8-bit pixels."""

    def __init__(self, side: int = 32):
        self.options = {"size": {"height": side, "width": side}, "resample": 3}

    def __call__(self, images, return_tensors=None):
        levels = torch.cat([torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] for image in images])
        size = tuple(self.options["size"].values())
        small = torch.nn.functional.interpolate(levels, size, mode="bicubic", antialias=True)
        return BatchFeature({"pixel_values": (small / 255 - 0.5) / 0.5})

    def to_dict(self):
        return self.options


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_torchvision_is_followed_by_way_of_pillow(height, width):
    processor, picture = SiglipImageProcessor(), photo(1, width, height)
    pixels = torch.from_numpy(np.array(picture) / 255).permute(2, 0, 1)[None]
    found = follow(processor, TENSORS, height, width, CPU).pixel_values(pixels)
    expected = processor([picture])["pixel_values"]
    assert 255 / 2 * (found - expected).abs().max() < 1.5  # levels: it rounds otherwise


# Refused -------------------------------------------------------------------------------------------------------------


class Stretching(ViTImageProcessorPil):
    """Stretches the contrast, which is another map for each picture."""

    def __call__(self, images, **kwargs):
        return super().__call__([ImageOps.autocontrast(image, cutoff=5) for image in images], **kwargs)


class Reading(ViTImageProcessorPil):
    """Reads pictures in a way of its own, so that their places are taken for pixels."""

    def process_image(self, image, **kwargs):
        return np.asarray(image).transpose(2, 0, 1)


class Squaring(ViTImageProcessorPil):
    def rescale(self, image, scale, **kwargs):
        return super().rescale(image, scale) ** 2


class Named(BaseImageProcessor):
    def __call__(self, images, **kwargs):
        return ViTImageProcessorPil()(images, **kwargs)


@pytest.mark.parametrize("kind", [Stretching, Reading, Squaring, Named])
def test_processor_that_does_something_else_is_refused(kind):
    with pytest.raises(ValueError, match=f"scores with {kind.__name__} cannot be differentiated: it "):
        follow(kind(), TENSORS, 48, 64, CPU)


def test_other_filter_is_refused():
    with pytest.raises(ValueError, match="got HAMMING"):
        follow(SiglipImageProcessorPil(resample=Image.Resampling.HAMMING), TENSORS, 48, 64, CPU)


def test_too_many_pixels_are_refused(monkeypatch):
    monkeypatch.setattr(trace, "MOST_PIXELS", 1000)
    with pytest.raises(ValueError, match="40 x 30 pixels; at most 1000"):
        follow(ViTImageProcessorPil(), TENSORS, 40, 30, CPU)
