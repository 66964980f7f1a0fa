"""
mPLUG-Owl2 (CVPR 2024) as a native backbone of transformers.

Paper: "mPLUG-Owl2: Revolutionizing Multi-modal Large Language Model with Modality Collaboration", CVPR 2024.
Written from a description of the published models, not from their code. What differs from it:
- image tokens stand in `input_ids` as `config.image_token_id`, so lengths, masks and labels are known before the model
- keys that the mask hides stay hidden in every decoding step, whichever side is padded
- fewer key and value heads than query heads work
Names of axes: B rows, T tokens, I pictures of the batch, Q queries, H hidden, M image tokens of the batch.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from .abstractor_mplug_owl2 import MPLUGOwl2Abstractor
from .configuration_mplug_owl2 import MPLUGOwl2Config
from .language_mplug_owl2 import MPLUGOwl2TextModel, can_read, modality_of
from .vision_mplug_owl2 import MPLUGOwl2VisionModel


@dataclass
class MPLUGOwl2ModelOutputWithPast(BaseModelOutputWithPast):
    """
    Args:
        image_hidden_states (`torch.Tensor` of shape `(num_image_tokens_of_the_batch, hidden_size)`, *optional*):
            Image tokens as the language model reads them, in reading order.
    """

    image_hidden_states: torch.Tensor | None = None


@dataclass
class MPLUGOwl2CausalLMOutputWithPast(CausalLMOutputWithPast):
    """
    Args:
        image_hidden_states (`torch.Tensor` of shape `(num_image_tokens_of_the_batch, hidden_size)`, *optional*):
            Image tokens as the language model reads them, in reading order.
    """

    image_hidden_states: torch.Tensor | None = None


class MPLUGOwl2PreTrainedModel(PreTrainedModel):
    """What both classes below share."""

    config: MPLUGOwl2Config
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True


class MPLUGOwl2Model(MPLUGOwl2PreTrainedModel):
    """Vision encoder, abstractor and language model, without output embedding."""

    def __init__(self, config: MPLUGOwl2Config):
        super().__init__(config)
        vision = config.vision_config
        self.vision_tower = MPLUGOwl2VisionModel._from_config(vision)
        self.abstractor = MPLUGOwl2Abstractor._from_config(
            config.abstractor_config,
            grid_size=vision.image_size // vision.patch_size,
            output_size=config.text_config.hidden_size,
        )
        self.language_model = MPLUGOwl2TextModel._from_config(config.text_config)
        self.post_init()

    @can_return_tuple
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """
        Image tokens of pictures.

        Args:
            pixel_values (`torch.Tensor` of shape `(num_images, 3, image_size, image_size)`): Normalised pictures.
            **kwargs: `output_hidden_states`, `output_attentions` of the vision encoder.

        Returns:
            [`~transformers.modeling_outputs.BaseModelOutputWithPooling`]: `pooler_output`, the image tokens, of shape
            `(num_images, num_queries + 1, hidden_size)`, and `last_hidden_state`, the vision encoder's, of shape
            `(num_images, num_patches + 1, vision_hidden_size)`.

        Raises:
            TypeError: If the pictures are no tensor of floating point numbers.
            ValueError: If there is none, or they have another size than the config's.
        """
        vision = self.vision_tower(pixel_values, return_dict=True, **kwargs)
        return BaseModelOutputWithPooling(
            last_hidden_state=vision.last_hidden_state,
            pooler_output=self.abstractor(vision.last_hidden_state),
            hidden_states=vision.hidden_states,
            attentions=vision.attentions,
        )

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        mm_token_type_ids: torch.LongTensor | None = None,
        mm_encoder_outputs: dict | None = None,
        **kwargs,
    ) -> MPLUGOwl2ModelOutputWithPast:
        """Arguments as in [`MPLUGOwl2ForConditionalGeneration.forward`]."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass either input_ids or inputs_embeds.")
        features = self._image_tokens(pixel_values, mm_encoder_outputs)  # (M, H)
        is_image = self._image_positions(input_ids, mm_token_type_ids, features)  # (B, T)
        outputs = self.language_model(
            inputs_embeds=self._embed(input_ids, inputs_embeds, features, is_image),  # (B, T, H)
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            modality=modality_of(is_image),
            **kwargs,
        )
        return MPLUGOwl2ModelOutputWithPast(**outputs, image_hidden_states=features)

    def _image_tokens(self, pixel_values: torch.Tensor | None, mm_encoder_outputs: dict | None) -> torch.Tensor | None:
        """Image tokens `(M, H)` of all pictures, or those that `generate` made before; `None` without pictures."""
        made = (mm_encoder_outputs or {}).get("image")
        if made is not None and pixel_values is not None:
            raise ValueError("Pass either pixel_values or mm_encoder_outputs.")
        if holds_pictures(pixel_values):
            made = self.get_image_features(pixel_values, return_dict=True)
        return None if made is None else torch.cat(tuple(made.pooler_output))  # (M, H)

    def _image_positions(
        self, input_ids: torch.Tensor | None, mm_token_type_ids: torch.Tensor | None, features: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Where image tokens stand, `(B, T)`, as many as the pictures make; `None` if all tokens are text."""
        if input_ids is not None:
            is_image = input_ids == self.config.image_token_id
        elif mm_token_type_ids is not None:
            is_image = mm_token_type_ids == 1
        elif features is None:
            return None
        else:
            raise ValueError("Pictures with inputs_embeds need mm_token_type_ids, which are 1 on image tokens.")
        if features is None and input_ids is None:
            return is_image  # whoever made inputs_embeds put the image tokens in place
        self._check_count(is_image, 0 if features is None else len(features))
        return None if features is None else is_image

    def _embed(self, input_ids, inputs_embeds, features, is_image) -> torch.Tensor:
        """What the language model reads, `(B, T, H)`, image tokens in their places."""
        if inputs_embeds is None:
            # an image token's id may have no row, and what stands there is overwritten anyway
            ids = input_ids if is_image is None else input_ids.masked_fill(is_image, 0)
            inputs_embeds = self.get_input_embeddings()(ids)
        if features is None:
            return inputs_embeds
        device, dtype = inputs_embeds.device, inputs_embeds.dtype
        return inputs_embeds.masked_scatter(is_image.unsqueeze(-1).to(device), features.to(device, dtype))

    def _check_count(self, is_image: torch.Tensor, expected: int) -> None:
        """
        Refuse image tokens that are not as many as the pictures make, without waiting for an accelerator.

        On an accelerator an assertion ends the pass, and nothing more runs there until the process starts anew. What
        the processor makes of texts and pictures always passes: it refuses on the host what does not match.
        """
        if can_read(is_image) and (found := int(is_image.sum())) != expected:
            raise ValueError(
                f"input_ids hold {found} image tokens (id {self.config.image_token_id}); the pictures make "
                f"{expected}, {self.config.num_image_tokens} each. Pass input_ids and pixel_values that the processor "
                "of this model made together."
            )
        if is_image.is_cuda and expected:  # without pictures, an id that has no embedding ends the pass there
            torch._assert_async(is_image.sum() == expected, f"input_ids hold other than {expected} image tokens.")


def holds_pictures(pixel_values) -> bool:
    """Whether there is anything to encode; the vision encoder says what is wrong with things that are no pictures."""
    return pixel_values is not None and not (isinstance(pixel_values, torch.Tensor) and pixel_values.shape[:1] == (0,))


class MPLUGOwl2ForConditionalGeneration(MPLUGOwl2PreTrainedModel, GenerationMixin):
    """
    mPLUG-Owl2, which writes text about pictures.

    Args:
        config ([`MPLUGOwl2Config`]): Configuration.
    """

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: MPLUGOwl2Config):
        super().__init__(config)
        self.model = MPLUGOwl2Model(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """As in [`MPLUGOwl2Model.get_image_features`]."""
        return self.model.get_image_features(pixel_values, **kwargs)

    def generate(self, *args, **kwargs):
        """As in every model that writes text. Where `pixel_values` are `None` or hold no picture, prompts are text."""
        if not holds_pictures(kwargs.get("pixel_values")):
            kwargs.pop("pixel_values", None)  # transformers encodes what is there by name
        return super().generate(*args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        mm_token_type_ids: torch.LongTensor | None = None,
        mm_encoder_outputs: dict | None = None,
        **kwargs,
    ) -> MPLUGOwl2CausalLMOutputWithPast:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, length)`, *optional*):
                Ids; `config.num_image_tokens` times `config.image_token_id` for each picture.
            pixel_values (`torch.Tensor` of shape `(num_images, 3, image_size, image_size)`, *optional*):
                Pictures in the order of their tokens. Without any, or with none in them, all tokens are text.
            attention_mask (`torch.Tensor` of shape `(batch_size, length)`, *optional*): 0 on padding.
            position_ids (`torch.LongTensor` of shape `(batch_size, length)`, *optional*):
                Positions; counted from the left by default. `generate` counts them by the mask.
            past_key_values ([`~transformers.Cache`], *optional*): Keys and values of the tokens before.
            inputs_embeds (`torch.Tensor` of shape `(batch_size, length, hidden_size)`, *optional*):
                In the place of `input_ids`.
            labels (`torch.LongTensor` of shape `(batch_size, length)`, *optional*):
                Text targets; −100 and image tokens do not count.
            logits_to_keep (`int` or `torch.LongTensor`, *optional*, defaults to 0):
                Logits of the last so many positions, or of these; of all if 0.
            mm_token_type_ids (`torch.LongTensor` of shape `(batch_size, length)`, *optional*):
                With `inputs_embeds`: 1 on image tokens, whether `pixel_values` are to fill them or they are in place.
            mm_encoder_outputs (`dict`, *optional*): What `get_image_features` gave, as `image`.
            **kwargs: `use_cache`, `output_hidden_states`, `output_attentions`, and what attention takes.

        Returns:
            [`MPLUGOwl2CausalLMOutputWithPast`]: `logits` of shape `(batch_size, length, vocab_size)`, and `loss`, the
            mean cross entropy in nats, if there are labels.

        Raises:
            TypeError: If the pictures are no tensor of floating point numbers.
            ValueError: If pictures and image tokens do not match (on an accelerator, which is never waited for, they
                end the process's work there: let the processor make both), or a picture has another size than the
                config's.
        """
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            mm_token_type_ids=mm_token_type_ids,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])  # (B, kept, V)
        loss = None
        if labels is not None:
            targets = labels.masked_fill(labels == self.config.image_token_id, -100)
            loss = self.loss_function(logits, targets, vocab_size=self.config.text_config.vocab_size, **kwargs)
        return MPLUGOwl2CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
        )


__all__ = ["MPLUGOwl2ForConditionalGeneration", "MPLUGOwl2Model", "MPLUGOwl2PreTrainedModel"]
