"""How and where mPLUG-Owl2 computes, on tiny random weights: attention, precision, devices, memory."""

import copy

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from mplug_owl2_batches import close, generated, inputs, logits, logits_and_gradients
from tiny import backbone
from torch.nn import functional
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, PreTrainedModel
from transformers import modeling_flash_attention_utils as flash_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


@pytest.fixture(scope="module")
def model():
    """Shared: a test that changes it works on a copy."""
    return backbone("mplugowl2")[0]


# ---- attention ------------------------------------------------------------------------------------------------------


class TestAttention:
    def test_eager_attention(self, model):
        other = copy.deepcopy(model)
        other.set_attn_implementation("eager")
        parts = (other.config.vision_config, other.config.abstractor_config, other.config.text_config)
        assert [part._attn_implementation for part in parts] == ["eager"] * 3
        batch = inputs(model, "4i3", "1ii2")
        close(logits(other, batch), logits(model, batch), atol=1e-4)

    def test_every_attention_goes_through_the_interface(self, model):
        """So whatever is registered there serves the tower, the abstractor and the language model."""
        calls = []

        def record(module, *args, **kwargs):
            calls.append((type(module).__name__.removeprefix("MPLUGOwl2"), module.is_causal, args[0].shape[2]))
            return ALL_ATTENTION_FUNCTIONS["sdpa"](module, *args, **kwargs)

        ALL_ATTENTION_FUNCTIONS.register("recording", record)
        other = copy.deepcopy(model)
        other.set_attn_implementation("recording")
        logits(other, inputs(model, "4i3"))
        expected = [("VisionAttention", False, 17), ("AbstractorAttention", False, 4), ("Attention", True, 12)]
        assert calls == [call for call in expected for _ in range(2)]

    def test_eager_attention_gives_its_weights(self, model):
        other = copy.deepcopy(model)
        other.set_attn_implementation("eager")
        output = other(**inputs(model, "4i3"), output_attentions=True, output_hidden_states=True)
        assert [tuple(weights.shape) for weights in output.attentions] == [(1, 4, 12, 12)] * 2
        assert len(output.hidden_states) == 3

    def test_what_is_offered(self, model):
        """In the whole and in each part: transformers asks the part that it is about to set."""
        modules = (model, model.model, model.model.vision_tower, model.model.abstractor, model.model.language_model)
        for module in modules:
            assert module._supports_sdpa
            assert module._supports_flash_attn
            assert module._supports_flex_attn
            assert module._supports_attention_backend

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between transformers and torch
    @pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning:torch")
    def test_flex_attention(self, model):
        """Without its compiler, which is for accelerators: masks, groups of heads and cached steps are the same."""
        other = copy.deepcopy(model)
        other.set_attn_implementation("flex_attention")
        with torch.compiler.set_stance("force_eager"):
            for batch in (inputs(model, "4i3", "1ii2", "6"), inputs(model, "4i3", "1ii2", "6", side="left")):
                close(logits(other, batch), logits(model, batch), atol=1e-4)
            prompts = inputs(model, "4i3", "6", side="left")
            assert torch.equal(
                generated(other, prompts, max_new_tokens=4), generated(model, prompts, max_new_tokens=4)
            )

    def test_flash_attention_is_asked_for_what_it_can_do(self, model, monkeypatch):
        """
        flash-attn runs on GPUs only. Here a stand-in takes the arguments of its functions, so what is tested is what
        reaches them from this model through transformers: lengths without pads, causality, groups of heads, cached
        steps. Their own numbers are not tested.
        """
        monkeypatch.setattr(PreTrainedModel, "_flash_attn_can_dispatch", lambda *args, **kwargs: True)
        monkeypatch.setattr(flash_attention, "_loaded_implementation", None)
        monkeypatch.setattr(flash_attention, "_lazy_imports", stand_in_for_flash_attention)
        other = copy.deepcopy(model)
        other.set_attn_implementation("flash_attention_2")
        config = other.config
        parts = (config, config.vision_config, config.abstractor_config, config.text_config)
        assert {part._attn_implementation for part in parts} == {"flash_attention_2"}
        for batch in (inputs(model, "4i3", "1ii2", "6"), inputs(model, "4i3", "1ii2", "6", side="left")):
            close(logits(other, batch), logits(model, batch), atol=1e-4)
        prompts = inputs(model, "4i3", "6", side="left")
        assert torch.equal(generated(other, prompts, max_new_tokens=4), generated(model, prompts, max_new_tokens=4))


def stand_in_for_flash_attention(*args, **kwargs):
    """What transformers imports of flash-attn: two functions of attention, one of paged caches, two of padding."""

    def attend(query, key, value, dropout_p=0.0, softmax_scale=None, causal=False):  # (B, T, heads, head_dim)
        query, key, value = (states.transpose(1, 2) for states in (query, key, value))
        rows, columns = query.shape[2], key.shape[2]
        mask = torch.ones(rows, columns, dtype=torch.bool)
        mask = mask.tril(columns - rows) if causal else mask  # the last query sees the last key
        found = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=softmax_scale, enable_gqa=True
        )
        return found.transpose(1, 2)

    def attend_to_lengths(
        query, key, value, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **options
    ):  # (tokens of all rows, heads, head_dim)
        parts = (
            states.split(ends.diff().tolist())
            for states, ends in ((query, cu_seqlens_q), (key, cu_seqlens_k), (value, cu_seqlens_k))
        )
        found = [attend(*(part.unsqueeze(0) for part in row), **options)[0] for row in zip(*parts, strict=True)]
        return torch.cat(found)

    return attend, attend_to_lengths, None, flash_attention._pad_input, flash_attention._unpad_input


# ---- precision, devices, memory -------------------------------------------------------------------------------------


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision(self, model, dtype):
        batch = inputs(model, "4i3", "1ii2")
        other = copy.deepcopy(model).to(dtype)
        found = logits(other, batch)  # pixels stay float32, as a processor gives them
        assert found.dtype == dtype
        expected = logits(other.float(), batch)  # the same rounded weights
        assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max()

    def test_4_bit(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
        loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, quantization_config=config)
        names = {name for name, layer in loaded.named_modules() if type(layer).__name__ == "Linear4bit"}
        assert names == {
            name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear) and name != "lm_head"
        }
        batch = inputs(model, "4i3")
        # with gradients: the CPU kernel for inference refuses layers as narrow as these
        found = loaded(**batch).logits
        rounded = copy.deepcopy(model)
        for name in names:
            weight = loaded.get_submodule(name).weight
            rounded.get_submodule(name).weight.data = dequantize_4bit(weight.data, weight.quant_state)
        torch.testing.assert_close(found, logits(rounded, batch), atol=1e-4, rtol=1e-4)
        assert (found - logits(model, batch)).abs().max() > 1e-2


class TestMemory:
    def test_parts_on_several_devices(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        layer = "model.language_model.layers"
        names = ("model.vision_tower", "model.language_model.embed_tokens", "model.language_model.norm", f"{layer}.0")
        device_map = dict.fromkeys([*names, "model.language_model.rotary_emb", "lm_head"], "cpu")
        device_map |= {"model.abstractor": "disk", f"{layer}.1": "disk"}
        loaded = AutoModelForImageTextToText.from_pretrained(
            tmp_path, device_map=device_map, offload_folder=tmp_path / "disk"
        )
        batch = inputs(model, "4i3", "1ii2")
        close(logits(loaded, batch), logits(model, batch))

    def test_what_a_device_map_may_not_split(self, model):
        names = {"VisionEmbeddings", "VisionLayer", "Abstractor", "DecoderLayer"}
        assert model._no_split_modules == {f"MPLUGOwl2{name}" for name in names}

    def test_gradient_checkpointing(self, model):
        """In the tower, the abstractor and the language model alike."""
        batch = inputs(model, "4i3", "1ii2")
        plain, _ = logits_and_gradients(model, batch)
        model = copy.deepcopy(model)
        # the name of 5.23 on; the other one is then deprecated
        enable = getattr(model, "activation_checkpointing_enable", None)
        (enable or model.gradient_checkpointing_enable)()
        parts = (model.model.vision_tower, model.model.abstractor, model.model.language_model)
        assert all(part.layers[0].gradient_checkpointing for part in parts)
        checkpointed, _ = logits_and_gradients(model, batch)
        assert plain.keys() == checkpointed.keys()
        for name, value in plain.items():
            close(checkpointed[name], value, atol=1e-6 * max(1.0, value.abs().max().item()))
