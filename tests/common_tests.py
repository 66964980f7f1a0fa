"""
What every family of image-aesthetics models promises, written once.

A family's test module subclasses [`ImageAestheticsModelTests`] and says how to build a tiny model and its inputs.
"""

import copy

import pytest
import torch
from tiny import photo
from transformers import AutoModel

from roc4mllm import AutoModelForImageAesthetics

PICTURES = [photo(seed, width, height) for seed, (width, height) in enumerate([(64, 48), (32, 96), (48, 48)])]


class ImageAestheticsModelTests:
    """
    Subclasses give a fixture `parts`: `(model, prepare)`, where `prepare(pictures, scores=None)` makes model inputs.
    The model is shared: a test that changes it works on a copy.
    """

    @pytest.fixture
    def parts(self):
        raise NotImplementedError

    def test_pictures_differ(self, parts):
        """Without this, every other equality below could hold for a model that is blind."""
        model, prepare = parts
        scores = run(model, prepare(PICTURES)).scores
        assert (scores[0] - scores[1]).abs().min() > 1e-3
        assert (scores[0] - scores[2]).abs().min() > 1e-3

    def test_shapes_and_range(self, parts):
        model, prepare = parts
        output = run(model, prepare(PICTURES))
        attributes = len(model.config.attributes)
        assert output.scores.shape == output.std.shape == output.score_mask.shape == (3, attributes)
        assert output.distribution.shape == (3, attributes, model.config.num_levels)
        assert output.score_mask.all()
        low, high = model.config.score_range
        assert ((low <= output.scores) & (output.scores <= high)).all()
        torch.testing.assert_close(output.distribution.sum(-1), torch.ones(3, attributes))

    @pytest.mark.parametrize(
        ("dtype", "tolerance", "normalized"), [(torch.float32, 5e-5, 1e-5), (torch.float64, 1e-10, 1e-10)]
    )
    def test_batch_equals_singles(self, parts, dtype, tolerance, normalized):
        model, prepare = parts
        model = model if dtype == torch.float32 else copy.deepcopy(model).to(dtype)
        together = run(model, prepare(PICTURES)).scores
        turned = run(model, prepare(PICTURES[::-1])).scores.flip(0)
        alone = torch.cat([run(model, prepare([picture])).scores for picture in PICTURES])
        assert together.dtype == dtype
        low, high = model.config.score_range
        for other in (alone, turned):
            assert (together - other).abs().max() <= tolerance
            assert ((together - other).abs() / (high - low)).max() <= normalized

    def test_repeats_exactly(self, parts):
        model, prepare = parts
        assert torch.equal(run(model, prepare(PICTURES)).scores, run(model, prepare(PICTURES)).scores)

    def test_save_and_load(self, parts, tmp_path):
        model, prepare = parts
        model.save_pretrained(tmp_path)
        assert {path.suffix for path in tmp_path.glob("*model*") if path.suffix != ".py"} == {".safetensors"}
        expected = run(model, prepare(PICTURES)).scores
        for auto_class in (AutoModel, AutoModelForImageAesthetics):
            again, info = auto_class.from_pretrained(tmp_path, output_loading_info=True)
            assert type(again) is type(model)
            assert not any(info.values())  # no key was missing, unexpected or of another shape
            # not bit by bit: kernels depend on how the loaded tensors lie in memory
            torch.testing.assert_close(run(again, prepare(PICTURES)).scores, expected, atol=5e-6, rtol=0)

    def test_loads_safetensors_only(self, parts, tmp_path):
        model, _ = parts
        model.config.save_pretrained(tmp_path)
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
        with pytest.raises(OSError, match="safetensors"):
            type(model).from_pretrained(tmp_path)

    def test_bfloat16_is_close(self, parts):
        model, prepare = parts
        expected = run(model, prepare(PICTURES)).scores
        rounded = run(copy.deepcopy(model).to(torch.bfloat16), prepare(PICTURES))
        assert rounded.scores.dtype == torch.float32
        low, high = model.config.score_range
        assert ((rounded.scores - expected).abs() / (high - low)).max() < 0.2

    def test_loss_is_the_weighted_parts(self, parts):
        model, prepare = parts
        weights = {"text": 0.5, "smooth_l1": 2.0, "ce": 3.0, "emd": 4.0}
        batch = prepare(PICTURES, scores=[2.0, 3.0, 4.5])
        output = run(model, batch, loss_weights=weights)
        named = {name: output.get(f"{name}_loss") for name in weights}
        expected = sum(weights[name] * value for name, value in named.items() if value is not None)
        assert output.smooth_l1_loss > 0
        assert output.ce_loss > 0
        assert output.emd_loss > 0
        torch.testing.assert_close(output.loss, expected)

    def test_output_as_a_tuple(self, parts):
        model, prepare = parts
        batch = prepare(PICTURES)
        as_tuple, output = run(model, batch, return_dict=False), run(model, batch)
        assert type(as_tuple) is tuple
        assert torch.equal(as_tuple[0], output.scores)

    def test_target_of_wrong_shape(self, parts):
        model, prepare = parts
        batch = dict(prepare(PICTURES))
        attributes, levels = len(model.config.attributes), model.config.num_levels
        with pytest.raises(ValueError, match=rf"\(3, {attributes}\).*got \(2, {attributes}\)"):
            model(**batch, scores=torch.ones(2, attributes))
        with pytest.raises(ValueError, match=rf"\(3, {attributes}, {levels}\).*got \(3, {attributes}, {levels + 2}\)"):
            model(**batch, votes=torch.ones(3, attributes, levels + 2))

    def test_gradient_checkpointing_agrees(self, parts):
        model, prepare = parts
        batch = prepare(PICTURES, scores=[2.0, 3.0, 4.5])
        gradients = []
        for checkpointing in (False, True):
            trained = copy.deepcopy(model).train()
            if checkpointing:
                # the name of 5.23 on; the other one is then deprecated
                enable = getattr(trained, "activation_checkpointing_enable", None)
                (enable or trained.gradient_checkpointing_enable)()
            trained(**batch).loss.backward()
            gradients.append({name: value.grad for name, value in trained.named_parameters()})
        plain, checkpointed = gradients
        assert any(value is not None and value.abs().max() > 1e-4 for value in plain.values())
        for name, value in plain.items():
            if value is not None:
                torch.testing.assert_close(value, checkpointed[name], msg=name)


def run(model, batch, **kwargs):
    """A forward pass in evaluation, floating point inputs in the model's dtype."""
    inputs = {
        name: value.to(model.dtype) if value.is_floating_point() and name == "pixel_values" else value
        for name, value in batch.items()
    }
    with torch.no_grad():
        return model(**inputs, **kwargs)
