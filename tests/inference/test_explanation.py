"""What explanations show is where the model looked, and it lies where that is in the picture."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import image_processor, photo, scorer_parts, shared_parts
from tiny_image_scorers import eat_scorer, tanet_scorer
from transformers import CLIPImageProcessorPil, ViTImageProcessorPil

from roc4mllm import ROC4MLLMProcessor, load_scorer
from roc4mllm.inference.explanation.explain import explain
from roc4mllm.inference.explanation.maps import (
    WHOLE,
    attention_map,
    gradient_map,
    image_token_id,
    is_flat,
    seen_box,
    token_grid,
)
from roc4mllm.processing_roc4mllm.image_processing_mplug_owl2 import MPLUGOwl2ImageProcessor
from roc4mllm.processing_roc4mllm.image_reading_aesthetics import PictureError

GRIDS = ["llava", "paligemma", "gemma3", "internvl", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"]


def scorer_of(kind: str):
    model, processor = shared_parts(kind)
    return load_scorer(model, processor=processor)


def prepared(processor, picture, **options) -> dict:
    return dict(processor(images=[picture], **options))


def with_light(row: int, column: int, rows: int, columns: int, side: int = 96) -> Image.Image:
    """A dark picture with one bright cell."""
    pixels = np.full((side, side, 3), 30, dtype=np.uint8)
    high, wide = side // rows, side // columns
    pixels[row * high : (row + 1) * high, column * wide : (column + 1) * wide] = 255
    return Image.fromarray(pixels)


# Attention -----------------------------------------------------------------------------------------------------------


def tokens_in(model, batch: dict) -> torch.Tensor:
    """What the decoder gets of the picture, `(T, H)`."""
    seen = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**batch)
    hook.remove()
    return seen[0][0, batch["input_ids"][0] == image_token_id(model.config.mllm_config)]


@pytest.mark.parametrize("kind", GRIDS)
def test_tokens_lie_row_by_row_as_the_map_takes_them(kind):
    model, processor = shared_parts(kind)
    options = {"crop_to_patches": False} if kind == "internvl" else {}
    dark = prepared(processor, Image.new("RGB", (96, 96), (30, 30, 30)), **options)
    before = tokens_in(model, dark)
    rows, columns = token_grid(model.config.mllm_config, dark, len(before))
    assert rows * columns == len(before) >= 4
    for row, column in [(0, 0), (0, columns - 1), (rows - 1, 0), (rows // 2, columns // 2)]:
        after = tokens_in(model, prepared(processor, with_light(row, column, rows, columns), **options))
        change = (after - before).norm(dim=1).view(rows, columns)
        assert divmod(int(change.argmax()), columns) == (row, column)


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl", "gemma3"])
def test_attention_is_that_of_the_state_the_head_reads(kind):
    """Against the weights that the decoder itself returns, and for a Qwen's grid that is not square."""
    model, processor = scorer_parts(kind)
    batch = prepared(processor, photo(1, 96, 48))
    found = attention_map(model, batch)
    attentions = []
    model.backbone.set_attn_implementation("eager")
    hook = model.backbone.register_forward_hook(lambda module, args, output: attentions.extend(output.attentions))
    with torch.no_grad():
        model(**batch, output_attentions=True)
    hook.remove()
    (position,) = (batch["input_ids"][0] == model.config.score_token_id).nonzero().flatten().tolist()
    is_image = batch["input_ids"][0] == image_token_id(model.config.mllm_config)
    later = torch.stack(attentions[len(attentions) // 2 :])  # (layers, 1, heads, T, T)
    expected = later[:, 0, :, position - 1].mean((0, 1))[is_image]
    np.testing.assert_allclose(found.ravel(), expected.numpy(), atol=1e-6)
    assert found.std() > 1e-3
    assert 0 < found.sum() < 1
    assert (found.shape[0] != found.shape[1]) == (kind == "qwen2_vl")


def test_attention_leaves_the_model_as_it_was():
    model, processor = scorer_parts("llava")
    batch = prepared(processor, photo(1))
    decoder = model.get_decoder()
    with torch.no_grad():
        expected = model(**batch).scores  # transformers adds hooks of its own in the first pass
    before, hooks = decoder.config._attn_implementation, [len(part._forward_hooks) for part in model.modules()]
    assert before != "eager"
    attention_map(model, batch)
    assert decoder.config._attn_implementation == before
    assert [len(part._forward_hooks) for part in model.modules()] == hooks
    with torch.no_grad():
        assert torch.equal(model(**batch).scores, expected)


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_of_a_picture_with_fragments_the_whole_one_is_shown(kind):
    model, plain = scorer_parts(kind)
    processor = ROC4MLLMProcessor.from_backbone(copy.deepcopy(plain.backbone_processor), fragment_size=32)
    both, alone = (prepared(each, photo(1)) for each in (processor, plain))
    count = [int((batch["input_ids"] == image_token_id(model.config.mllm_config)).sum()) for batch in (both, alone)]
    assert count[0] > count[1]
    found = attention_map(model, both, num_pictures=2)
    assert found.size == count[1]
    explanation = explain(load_scorer(model, processor=processor), photo(1))
    np.testing.assert_allclose(explanation.heatmap, found, atol=1e-6)
    assert "the rest to its fragments and to text" in explanation.caption


@pytest.mark.parametrize(
    ("kind", "method"), [("mplugowl2", "gradient"), ("idefics3", "none"), ("llava_onevision", "none")]
)
def test_where_tokens_have_no_place_the_caption_says_so(kind, method):
    explanation = explain(scorer_of(kind), photo(1))
    assert explanation.method == method
    assert "not known where in the picture the" in explanation.caption
    assert kind in explanation.caption
    assert (explanation.heatmap is None) == (method == "none")
    assert explanation.draw().mode == "RGB"


def test_attribute_of_the_map_is_the_one_asked_for():
    model, processor = shared_parts("llava", ("aesthetics", "color"))
    scorer = load_scorer(model, processor=processor)
    main, color = explain(scorer, photo(1)), explain(scorer, photo(1), "color")
    assert list(color.record["attributes"]) == ["color"]
    assert color.record["score"] == scorer(photo(1))["attributes"]["color"]
    assert np.abs(main.heatmap - color.heatmap).max() > 1e-4


# Points, colours, gradients ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eat():
    return eat_scorer()


@pytest.fixture(scope="module")
def tanet():
    return tanet_scorer()


def test_points_are_those_of_the_last_block_in_shares_of_the_picture(eat):
    picture = photo(1, 96, 48)
    explanation = explain(eat, picture)
    pixels = eat.image_processor(images=[picture], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = eat.model.eat(pixels)
    assert len(output.sampling_points) == 2
    points, reference = output.sampling_points[-1][0], output.reference_points[-1][0]  # (G, h, w, 2), as (y, x)
    assert explanation.sampling_points.shape == (2, 6, 6, 2)
    # a point on the centre of feature (i, j) lies at ((j + ½) / 6, (i + ½) / 6)
    for found, expected in [(explanation.sampling_points, points), (explanation.reference_points, reference)]:
        features = (expected.numpy() + 1) / 2 * 5  # from 0 to 5
        np.testing.assert_allclose(found[..., 0], (features[..., 1] + 0.5) / 6, atol=0.01)
        np.testing.assert_allclose(found[..., 1], (features[..., 0] + 0.5) / 6, atol=0.01)
    assert np.abs(explanation.sampling_points - explanation.reference_points).max() > 0.02


def test_colours_are_compared_where_they_are(tanet):
    """One odd cell in a picture of one colour is the one unlike the others."""
    pixels = np.full((64, 64, 3), (220, 60, 60), dtype=np.uint8)
    pixels[16:32, 48:] = (30, 60, 220)
    explanation = explain(tanet, Image.fromarray(pixels))
    assert explanation.similarity.shape == (16, 16)
    assert explanation.heatmap.shape == (4, 4)
    assert np.unravel_index(explanation.heatmap.argmin(), (4, 4)) == (1, 3)
    assert explanation.heatmap[0, 0] > explanation.heatmap[1, 3] + 0.5
    np.testing.assert_allclose(explanation.similarity.diagonal(), 1, atol=1e-5)


@pytest.mark.parametrize("picture", [Image.new("RGB", (64, 48)), photo(1, 1, 1)], ids=["black", "one pixel"])
def test_rounding_is_not_drawn(tanet, picture):
    explanation = explain(tanet, picture)
    assert "This is the same everywhere, so nothing is drawn over the picture." in explanation.caption
    assert "pale" not in explanation.caption
    photograph = np.asarray(explanation.draw())[28:-28, 28 : 28 + 720].astype(int)
    rows = photograph[: round(720 * picture.height / picture.width)]
    assert np.ptp(rows.reshape(-1, 3), axis=0).max() == 0
    assert "same everywhere" not in explain(tanet, photo(1)).caption


def test_map_of_rounding_is_flat():
    noise = np.random.default_rng(0).normal(0, 1e-7, (4, 4))
    assert is_flat(1 + noise)
    assert is_flat(np.zeros((4, 4)))
    assert not is_flat(noise)
    assert not is_flat(1 + 1e4 * noise)


def test_gradient_is_where_the_score_comes_from():
    """Of a model that looks at one quarter of the picture only."""

    class Quarter(torch.nn.Module):
        def forward(self, pixel_values):
            values = torch.zeros(1, 2)
            values[:, 1] = (pixel_values[:, :, :24, 24:] ** 2).mean()
            output = type("Output", (), {})()
            output.scores = values
            return output

    found = gradient_map(Quarter(), {"pixel_values": torch.randn(1, 3, 48, 48)}, column=1)
    assert found.shape == (16, 16)
    assert found[:6, 10:].min() > 0
    assert found[10:].max() == found[:, :6].max() == 0


def test_gradient_of_a_score_beyond_its_range_is_not_lost(tanet):
    model = copy.deepcopy(tanet.model)
    model.config.raw_head = True
    model.score_head.bias.data += 100.0
    pixels = tanet.image_processor(images=[photo(1)], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        assert model(pixels).scores.item() == 5.0  # the end of the range
    assert gradient_map(model, {"pixel_values": pixels}, 0).max() > 0


def test_bfloat16_model_is_explained_too(eat):
    rounded = load_scorer(copy.deepcopy(eat.model).to(torch.bfloat16), image_processor=eat.image_processor)
    explanation = explain(rounded, photo(1))
    assert np.isfinite(explanation.sampling_points).all()


# What part of the picture is seen ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("processor", "size", "expected"),
    [
        (ViTImageProcessorPil(size={"height": 48, "width": 48}), (200, 100), WHOLE),
        (
            CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 48, "width": 48}),
            (200, 100),
            (0.3125, 0.125, 0.6875, 0.875),
        ),
        (MPLUGOwl2ImageProcessor(size={"height": 64, "width": 64}), (200, 100), (0.0, -0.5, 1.0, 1.5)),
        (MPLUGOwl2ImageProcessor(size={"height": 64, "width": 64}), (2000, 3000), (-0.25, 0.0, 1.25, 1.0)),
    ],
    ids=["stretched", "cropped", "padded", "padded, large"],
)
def test_box_is_what_the_processor_keeps(processor, size, expected):
    assert seen_box(processor, size) == pytest.approx(expected, abs=0.011)


@pytest.mark.parametrize("size", [(6000, 4), (3, 6000), (1, 1), (1, 2), (9, 7)])
def test_box_of_a_stretched_picture_is_all_of_it_however_thin(size):
    assert seen_box(ViTImageProcessorPil(size={"height": 48, "width": 48}), size) == WHOLE


def test_box_of_a_thin_picture_that_is_padded_or_cropped():
    left, upper, right, lower = seen_box(MPLUGOwl2ImageProcessor(size={"height": 64, "width": 64}), (6000, 4))
    assert (left, right) == (0, 1)
    assert upper < -10
    assert lower > 10
    crop = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 48, "width": 48})
    left, upper, right, lower = seen_box(crop, (1, 1))
    assert (left, upper, right, lower) == pytest.approx((0.125, 0.125, 0.875, 0.875), abs=0.011)


def test_box_of_patches_is_the_whole_picture():
    images = image_processor("Qwen2VLImageProcessor", patch_size=4, merge_size=2, temporal_patch_size=2)
    assert seen_box(images, (200, 100)) == WHOLE


def test_what_is_not_seen_is_drawn_pale():
    scorer = scorer_of("llava")  # CLIP: the middle square
    explanation = explain(scorer, Image.new("RGB", (200, 100), (0, 0, 0)))
    drawn = np.asarray(explanation.draw())
    middle, edge = drawn[28 + 180, 28 + 360], drawn[28 + 180, 28 + 20]
    assert middle.mean() < 150 < edge.mean()
    assert explanation.caption.endswith("The model does not see the pale part of the picture.")
    assert "pale" not in explain(scorer, photo(1, 64, 64)).caption


# Drawings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 48), (48, 640), (1200, 3)])
def test_drawing_of_any_shape(eat, tanet, size):
    for scorer in (eat, tanet):
        drawn = explain(scorer, photo(1, *size)).draw()
        assert drawn.mode == "RGB"
        assert 600 < max(drawn.size) <= 720 + 360 + 3 * 28
        assert min(drawn.size) > 200


def test_model_of_one_value_has_no_bars(tanet):
    one = tanet_scorer(num_levels=1, score_range=(0.0, 10.0), theme_activation="softmax")
    explanation = explain(one, photo(1))
    assert explanation.record["distribution"] is None
    assert explanation.draw().height < explain(tanet, photo(1)).draw().height


def test_record_is_the_scorers_own(tanet):
    assert explain(tanet, photo(1)).record == tanet(photo(1))


def test_saved_file_is_whole_or_absent(tanet, tmp_path):
    explanation = explain(tanet, photo(1))
    explanation.save(tmp_path / "why.png")
    with Image.open(tmp_path / "why.png") as again:
        assert again.format == "PNG"
        assert again.size == explanation.draw().size
    with pytest.raises(OSError, match="folder that exists"):
        explanation.save(tmp_path / "missing" / "why.png")
    assert [path.name for path in tmp_path.iterdir()] == ["why.png"]


def test_model_that_gives_no_number_is_an_error(tanet):
    model = copy.deepcopy(tanet.model)
    model.score_head.bias.data[:] = float("nan")
    with pytest.raises(PictureError, match="not finite"):
        explain(load_scorer(model, image_processor=tanet.image_processor), photo(1))


def test_picture_that_cannot_be_read_and_unknown_attribute(tanet, tmp_path):
    (tmp_path / "no.jpg").write_text("no picture")
    with pytest.raises(PictureError, match="not a picture"):
        explain(tanet, tmp_path / "no.jpg")
    with pytest.raises(ValueError, match="'color'"):
        explain(tanet, photo(1), "color")
