"""Native-resolution pieces: taken unscaled, on the grid of JPEG blocks, and shown to any backbone beside the whole."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import BACKBONES, backbone, photo

from roc4mllm import ROC4MLLMForImageAesthetics, ROC4MLLMProcessor
from roc4mllm.processing_roc4mllm.fragments_aesthetics import fragments


def numbered(width: int, height: int) -> Image.Image:
    """Every pixel tells its own place: column in red and blue, row in green and blue."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x % 256, y % 256, x // 256 + 16 * (y // 256)], axis=2).astype(np.uint8))


def place(pixel) -> tuple[int, int]:
    """Column and row that a pixel of `numbered` tells."""
    red, green, blue = map(int, pixel)
    return red + 256 * (blue % 16), green + 256 * (blue // 16)


class TestFragments:
    def test_unscaled_pieces_on_the_grid_of_jpeg_blocks(self):
        mosaic = np.asarray(fragments(numbered(500, 400), 128))
        lefts = [place(mosaic[0, x])[0] for x in range(0, 128, 32)]
        tops = [place(mosaic[y, 0])[1] for y in range(0, 128, 32)]
        assert (lefts, tops) == ([32, 160, 288, 416], [32, 128, 224, 320])  # the middles of 4 cells, less up to 16
        whole = np.asarray(numbered(500, 400))
        for row, top in enumerate(tops):
            for column, left in enumerate(lefts):
                piece = mosaic[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
                assert np.array_equal(piece, whole[top : top + 32, left : left + 32])

    @pytest.mark.parametrize("size", [(4096, 4000), (128, 128), (129, 1000)])
    def test_pieces_lie_inside_of_a_picture_of_any_size(self, size):
        mosaic = np.asarray(fragments(numbered(*size), 128))
        assert mosaic.shape == (128, 128, 3)
        columns, rows = zip(*(place(mosaic[y, x]) for y in (0, 31, 127) for x in (0, 31, 127)), strict=True)
        assert max(columns) < size[0]
        assert max(rows) < size[1]

    def test_a_picture_of_that_size_is_its_own_mosaic(self):
        assert np.array_equal(np.asarray(fragments(photo(0, 64, 64), 64)), np.asarray(photo(0, 64, 64)))

    def test_a_smaller_picture_goes_on_mirrored(self):
        small = np.asarray(photo(0, 20, 40))  # width 20, height 40
        mosaic = np.asarray(fragments(photo(0, 20, 40), 32))
        assert np.array_equal(mosaic[:, :20], small[:32])
        assert np.array_equal(mosaic[:, 20:], small[:32, ::-1][:, :12])


class TestInProcessor:
    @pytest.fixture(params=BACKBONES)
    def scorer(self, request):
        mllm, processor = backbone(request.param)
        processor = ROC4MLLMProcessor.from_backbone(processor, fragment_size=32)
        model = ROC4MLLMForImageAesthetics.from_backbone(mllm, processor=processor)
        torch.nn.init.normal_(model.score_head.weight, std=0.5)
        model.config.score_head_trained = True
        return model.double(), processor

    @torch.no_grad()
    def test_a_score_depends_on_native_detail_and_not_on_batch_mates(self, scorer):
        model, processor = scorer
        whole = np.asarray(photo(0, 320, 320)).copy()
        noisy = whole.copy()
        noisy[144:176, 144:176] = np.random.default_rng(0).integers(0, 256, (32, 32, 3))  # where the one piece lies
        pictures = [Image.fromarray(whole), Image.fromarray(noisy), photo(1, 96, 64)]
        alone = torch.cat([double_scores(model, processor, [picture]) for picture in pictures])
        together = double_scores(model, processor, pictures)
        assert abs(alone[0] - alone[1]) > 1e-3
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)

    def test_saved_and_loaded(self, tmp_path):
        processor = ROC4MLLMProcessor.from_backbone(backbone("llava")[1], fragment_size=64)
        processor.save_pretrained(tmp_path)
        loaded = ROC4MLLMProcessor.from_pretrained(tmp_path)
        assert loaded.fragment_size == 64
        assert loaded.prompt.count("<image>") == 2
        assert torch.equal(loaded(images=photo())["pixel_values"], processor(images=photo())["pixel_values"])

    @pytest.mark.parametrize("size", [0, 100, -32])
    def test_refuses_a_size_that_pieces_do_not_fill(self, size):
        with pytest.raises(ValueError, match=f"multiple of 32.*got {size}"):
            ROC4MLLMProcessor.from_backbone(backbone("llava")[1], fragment_size=size)


def double_scores(model, processor, pictures) -> torch.Tensor:
    """Main scores `(B,)` in float64."""
    batch = processor(images=pictures)
    batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    return model(**batch).scores[:, 0]
