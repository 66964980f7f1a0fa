"""
Language model of mPLUG-Owl2, on tiny random weights: which copy of a module a token gets, heads, caches, generation.
"""

import copy

import pytest
import torch
from mplug_owl2_batches import close, generated, inputs, logits, logits_and_gradients
from tiny import backbone
from transformers import DynamicCache, StaticCache

from roc4mllm import MPLUGOwl2ForConditionalGeneration
from roc4mllm.modeling_roc4mllm import language_mplug_owl2, modeling_mplug_owl2
from roc4mllm.modeling_roc4mllm.language_mplug_owl2 import by_modality, modality_of


@pytest.fixture(scope="module")
def model():
    """Shared: a test that changes it works on a copy."""
    return backbone("mplugowl2")[0]


# ---- modality -------------------------------------------------------------------------------------------------------

LAYOUTS = {
    "one": ["4i3"],
    "alike": ["4i3", "4i2", "4i5"],
    "unlike": ["4i3", "7i2", "2i"],
    "at the ends": ["i3", "4i", "i"],
    "side by side": ["2ii3", "i1ii", "3i3i3"],
    "with text rows": ["9", "3i3", "5"],
}


class TestModality:
    @pytest.mark.parametrize(
        ("pattern", "runs"),
        [
            (["..##.", "#...#"], (2, 2, 1, 1, 3, 1)),
            (["##..", "...."], (0, 2, 6)),
            (["####"], (0, 4)),
            (["#"], (0, 1)),
            (["..", ".."], None),
        ],
    )
    def test_runs(self, pattern, runs):
        is_image = torch.tensor([[sign == "#" for sign in row] for row in pattern])
        assert modality_of(is_image) == runs
        hidden = torch.randn(*is_image.shape, 3)
        found = by_modality(hidden, runs, lambda x: x + 10, lambda x: 2 * x)
        expected = torch.where(is_image.unsqueeze(-1), 2 * hidden, hidden + 10)
        assert torch.equal(found, expected)

    @pytest.mark.parametrize("layouts", LAYOUTS.values(), ids=LAYOUTS)
    def test_both_paths_agree(self, model, layouts, monkeypatch):
        """In logits and in gradients. Each copy of a projection sees its own tokens, or on the general path all."""
        batch = inputs(model, *layouts)
        tokens, images = batch["input_ids"].numel(), int((batch["input_ids"] == model.config.image_token_id).sum())
        runs, runs_seen = logits_and_gradients(model, batch)
        monkeypatch.setattr(language_mplug_owl2, "can_read", lambda _: False)
        monkeypatch.setattr(modeling_mplug_owl2, "can_read", lambda _: False)
        where, where_seen = logits_and_gradients(model, batch)
        assert runs_seen == {"k_proj": tokens - images, "image_k_proj": images}
        assert where_seen == {"k_proj": tokens, "image_k_proj": tokens}
        for name, value in runs.items():
            close(value, where[name], atol=1e-4 * max(1.0, value.abs().max().item()))

    def test_modality_matters(self, model):
        """Both copies of every module are drawn apart, and text rows next to a picture keep theirs."""
        batch = inputs(model, "4i3")
        expected = logits(model, batch)
        for name in ("image_k_proj", "image_v_proj"):
            changed = copy.deepcopy(model)
            for layer in changed.model.language_model.layers:
                getattr(layer.self_attn, name).weight.data.zero_()
            assert (logits(changed, batch) - expected).abs().max() > 1e-2
            text = inputs(model, "7")
            assert torch.equal(logits(changed, text), logits(model, text))

    def test_nothing_is_read_on_the_general_path(self, model):
        """A meta tensor has no values to read: whoever asks for one raises, as the host would wait for a GPU."""
        empty = copy.deepcopy(model).to("meta")
        empty.set_attn_implementation("eager")  # transformers' mask for SDPA looks whether it hides anything at all
        batch = {name: value.to("meta") for name, value in inputs(model, "4i3", "1ii").items()}
        assert empty(**batch).logits.shape == (2, 12, model.config.text_config.vocab_size)

    @pytest.mark.gpu
    def test_a_gpu_is_never_waited_for(self, model):
        batch = inputs(model, "4i3", "1ii")
        expected = logits(model, batch)
        on_gpu = copy.deepcopy(model).cuda()
        on_gpu.set_attn_implementation("eager")
        moved = {name: value.cuda() for name, value in batch.items()}
        logits(on_gpu, moved)  # libraries start at the first call
        torch.cuda.set_sync_debug_mode("error")
        try:
            found = logits(on_gpu, moved)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        close(found.cpu(), expected, atol=1e-3)

    def test_compiles_as_one_graph(self, model):
        batch = inputs(model, "4i3", "7i2")
        expected = logits(model, batch)
        torch.compiler.reset()
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        close(logits(compiled, batch), expected)
        torch.compiler.reset()


class TestHeads:
    def test_fewer_key_and_value_heads(self, model):
        """Equals a model with as many heads whose weights repeat; the originals cannot run it."""
        config = copy.deepcopy(model.config)
        text = config.text_config
        groups = text.num_attention_heads // text.num_key_value_heads
        assert groups == 2
        text.num_key_value_heads = text.num_attention_heads
        full = MPLUGOwl2ForConditionalGeneration(config).eval()
        weights = model.state_dict()
        for name, weight in weights.items():
            if name.endswith(("k_proj.weight", "v_proj.weight")) and "layers" in name and "language" in name:
                heads = weight.unflatten(0, (-1, text.head_dim))
                weights[name] = heads.repeat_interleave(groups, dim=0).flatten(0, 1)
        full.load_state_dict(weights)
        batch = inputs(model, "4i3", "1ii2")
        close(logits(full, batch), logits(model, batch))


# ---- generation -----------------------------------------------------------------------------------------------------


class TestGeneration:
    LAYOUTS = ("4i3", "1i1i2", "6")

    def test_caches_agree(self, model):
        batch = inputs(model, *self.LAYOUTS, side="left")
        expected = generated(model, batch, max_new_tokens=6)
        assert len({tuple(row) for row in expected.tolist()}) == 3
        for options in ({"cache_implementation": "static", "disable_compile": True}, {"use_cache": False}):
            assert torch.equal(generated(model, batch, max_new_tokens=6, **options), expected)

    @pytest.mark.parametrize("kind", ["dynamic", "static"])
    def test_cached_steps_equal_one_pass(self, model, kind):
        """Keys that the mask hides stay hidden in later steps; the originals show them from the second step on."""
        batch = inputs(model, "4i9", "1i8", side="left")
        batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        whole, length = logits(model, batch), batch["input_ids"].shape[1]
        config = model.config.text_config
        cache = DynamicCache(config=config) if kind == "dynamic" else StaticCache(config, max_cache_len=length)
        prompt, found = length - 5, []
        for start, stop in [(0, prompt), *((at, at + 1) for at in range(prompt, length))]:
            part = {name: batch[name][:, start:stop] for name in ("input_ids", "position_ids")}
            part["attention_mask"] = batch["attention_mask"][:, :stop]
            if start == 0:
                part["pixel_values"] = batch["pixel_values"]
            with torch.no_grad():
                found.append(model(**part, past_key_values=cache, use_cache=True).logits)
        close(torch.cat(found, 1) * batch["attention_mask"].unsqueeze(-1), whole)

    def test_left_padded_prompts_equal_single_ones(self, model):
        batch = inputs(model, *self.LAYOUTS, side="left")
        together = generated(model, batch, max_new_tokens=6)
        images = batch["pixel_values"].split([1, 2])
        for row, mask in enumerate(batch["attention_mask"].bool()):
            alone = {"input_ids": batch["input_ids"][row : row + 1, mask]}
            if row < len(images):
                alone["pixel_values"] = images[row]
            single = generated(model, alone, max_new_tokens=6)[0]
            assert torch.equal(together[row, : len(single)], single)

    def test_beams_with_several_pictures_per_prompt(self, model):
        batch = inputs(model, *self.LAYOUTS[:2], side="left")
        together = generated(model, batch, max_new_tokens=4, num_beams=3)
        images = batch["pixel_values"].split([1, 2])
        for row, mask in enumerate(batch["attention_mask"].bool()):
            alone = {"input_ids": batch["input_ids"][row : row + 1, mask], "pixel_values": images[row]}
            single = generated(model, alone, max_new_tokens=4, num_beams=3)[0]
            assert torch.equal(together[row, : len(single)], single)

    def test_processors_of_logits_bear_an_id_beyond_the_vocabulary(self, model):
        batch = inputs(model, "4i3")
        assert model.config.image_token_id == model.config.text_config.vocab_size
        options = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2}
        assert generated(model, batch, max_new_tokens=8, **options).shape == (1, 8)
