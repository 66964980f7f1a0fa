"""
ROC4MLLM (AAAI 2026): scores from any image-text-to-text model.

Paper: "Regression Over Classification: Assessing Image Aesthetics via Multimodal Large Language Models", AAAI 2026.
Written from the paper; the original code is built on mPLUG-Owl2 only.

How it works:
- the answer is known in advance: "The aesthetic rate of the image is [SCORE]."; ONE forward pass over the
  teacher-forced sentence reads every score, since the embedding fed for `[SCORE]` does not depend on the value
- h = the input of the backbone's output embedding at the position whose NEXT token is `[SCORE]`
- p = softmax(score_head(h)) in float32 or wider; score = Σ p_i s_i over equally spaced levels s_i
- a forward pre-hook on the output embedding takes h and hands only the rows that need text logits on to it, so scoring
  computes no logits at all and text loss keeps the backbone's own scaling and soft cap

It does not know which backbone it holds, how a prompt is made, or how pictures are prepared (see the processor).
Names of axes: B rows, T tokens, H hidden, A attributes, N levels, S score slots, M supervised tokens, V vocabulary.
"""

import os

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, GenerationMixin, PreTrainedModel
from transformers.utils import can_return_tuple

from .adapter_loading_roc4mllm import find_adapter, load_adapter
from .adapter_roc4mllm import drop_adapter, has_adapter, save_adapter, save_trained_on
from .backbone_roc4mllm import (
    HeadInput,
    add_score_row,
    adopt_placement,
    backbone_parts,
    free_token_id,
    head_owner,
    hub_name,
    output_embedding_of,
    reading_head_input,
    refuse_unsuitable,
    restore_rows,
)
from .configuration_mplug_owl2 import MPLUGOwl2Config
from .configuration_roc4mllm import ROC4MLLMConfig
from .loss_aesthetics import text_cross_entropy
from .modeling_aesthetics_mixin import AestheticsMixin, add_loss, remember_revision
from .modeling_mplug_owl2 import MPLUGOwl2ForConditionalGeneration
from .modeling_outputs_aesthetics import AestheticsOutput
from .score_head_aesthetics import ScoreHead
from .slots_roc4mllm import find_slots, supervised_positions

# As in configuration_roc4mllm.py: adapters on this backbone are read without the package too.
AutoModelForImageTextToText.register(MPLUGOwl2Config, MPLUGOwl2ForConditionalGeneration, exist_ok=True)
# By name, for auto classes compare classes: from a folder, transformers loads the configuration files a second time
# together with the model's, and a config made by the first ones is of another class.
OWN_BACKBONES = {"mplugowl2": MPLUGOwl2ForConditionalGeneration}


class ROC4MLLMForImageAesthetics(AestheticsMixin, PreTrainedModel, GenerationMixin):
    """
    A multimodal LLM with a `[SCORE]` token and a score head.

    Build it from a backbone with [`~ROC4MLLMForImageAesthetics.from_backbone`], load it with `from_pretrained`.

    Args:
        config ([`ROC4MLLMConfig`]): Configuration.
        backbone (`PreTrainedModel`, *optional*): A loaded backbone; made from `config.mllm_config` when missing.

    Raises:
        ValueError: If the backbone is not a decoder-style image-text-to-text model.
    """

    config_class = ROC4MLLMConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    _tied_weights_keys = {}  # a dict, else peft ignores the backbone's own tied weights
    _keep_in_fp32_modules = ["score_head"]  # read by the quantisers, and for float16
    _keep_in_fp32_modules_strict = ["score_head"]  # for bfloat16
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean: the Trainer divides it by its accumulation steps
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: ROC4MLLMConfig, backbone: PreTrainedModel | None = None):
        super().__init__(config)
        if config.score_token_id is None:
            raise ValueError(
                f"This config ({config.name_or_path or type(config).__name__}) has no score_token_id, so it is not "
                "that of a ROC4MLLM model. To make one of a multimodal LLM, use "
                "ROC4MLLMForImageAesthetics.from_backbone."
            )
        if backbone is None:
            own = OWN_BACKBONES.get(config.mllm_config.model_type)
            make = AutoModelForImageTextToText.from_config if own is None else own._from_config
            backbone = make(config.mllm_config)
            restore_rows(backbone, config.score_token_id)
        refuse_unsuitable(backbone)
        self.backbone = backbone
        self.score_head = ScoreHead(output_embedding_of(backbone).weight.shape[1], config.num_levels, bias=False)
        self.post_init()

    # ---- building -----------------------------------------------------------------------------------------------

    @classmethod
    def from_backbone(
        cls,
        backbone,
        processor=None,
        num_levels: int = 10,
        score_range=(1.0, 10.0),
        attributes=("aesthetics",),
        higher_is_better: bool = True,
        **kwargs,
    ) -> "ROC4MLLMForImageAesthetics":
        """
        A scorer on an existing multimodal LLM; its score head is fresh and must be trained.

        Args:
            backbone (`str`, `os.PathLike` or `PreTrainedModel`): Hub name, folder or loaded image-text-to-text model.
            processor ([`ROC4MLLMProcessor`], *optional*): Decides the id of `[SCORE]` and the attributes; without one
                the id is the number of embedding rows, or the next one where the config uses that.
            num_levels (`int`, *optional*, defaults to 10): Levels of the score head.
            score_range (pair of `float`, or one pair per attribute, *optional*, defaults to `(1, 10)`): Score units.
            attributes (`list[str]`, *optional*): Attribute names, main one first; the processor's if it is given.
            higher_is_better (`bool`, *optional*, defaults to `True`): Direction of the score.
            **kwargs: Passed to the backbone's `from_pretrained` (`dtype`, `device_map`, `attn_implementation`,
                `quantization_config`, `revision`, …).

        Raises:
            ValueError: If the backbone is unsuitable or the id of `[SCORE]` is one of its special tokens.
        """
        name = None
        if isinstance(backbone, str | os.PathLike):
            name = os.fspath(backbone)
            kwargs.setdefault("use_safetensors", True)
            backbone = AutoModelForImageTextToText.from_pretrained(name, **kwargs)
        elif kwargs:
            raise TypeError(f"{sorted(kwargs)} apply to a backbone that is loaded here by name, not to a loaded one.")
        refuse_unsuitable(backbone)
        if processor is not None and not hasattr(processor, "score_token_id"):
            raise ValueError(
                f"Got a {type(processor).__name__}; expected a ROC4MLLMProcessor, which knows the id of [SCORE]. Wrap "
                "it first: ROC4MLLMProcessor.from_backbone(processor)."
            )
        score_token_id = free_token_id(backbone) if processor is None else processor.score_token_id
        config = ROC4MLLMConfig(
            mllm_config=backbone.config,
            score_token_id=score_token_id,
            num_levels=num_levels,
            score_range=score_range,
            attributes=attributes if processor is None else processor.attributes,
            higher_is_better=higher_is_better,
            backbone_name_or_path=hub_name(name),
            backbone_revision=kwargs.get("revision"),
        )
        add_score_row(backbone, score_token_id)
        model = cls(config, backbone=backbone)
        model.score_head.to(output_embedding_of(backbone).weight.device)
        model.reset_score_head()
        adopt_placement(model)
        return model.eval()

    @torch.no_grad()
    def reset_score_head(self) -> None:
        """
        Fresh level rows: the mean output row plus normal noise of a tenth of the rows' standard deviation. Identical
        rows would score every picture the same and send no gradient into the backbone.
        """
        rows = output_embedding_of(self.backbone).weight.float()  # (V, H)
        noise = torch.randn_like(self.score_head.weight) * rows.std(0) * 0.1  # (N, H)
        self.score_head.weight.copy_(rows.mean(0) + noise)
        self.config.score_head_trained = False

    def _init_weights(self, module):
        # The head's weights come from `reset_score_head` or a checkpoint; the backbone initialises its own parts.
        if isinstance(module, ScoreHead):
            nn.init.normal_(module.weight, std=0.02)

    # ---- scoring ------------------------------------------------------------------------------------------------

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        slot_attributes: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        scores: torch.Tensor | None = None,
        votes: torch.Tensor | None = None,
        loss_weights: dict[str, float] | None = None,
        loss_counts: dict[str, torch.Tensor | int] | None = None,
        tail_mixup: dict[str, float] | None = None,
        output_text_logits: bool = False,
        **kwargs,
    ) -> AestheticsOutput:
        """
        One pass over prompts and answers; pad on the right.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, length)`): Prompt and answer with `[SCORE]` in it.
            attention_mask (`torch.Tensor` of shape `(batch_size, length)`, *optional*): 0 on padding.
            slot_attributes (`torch.LongTensor` of shape `(batch_size, num_slots)`, *optional*): Attribute of each
                `[SCORE]` in reading order, an index into `config.attributes`; −1 for none. Without it each row holds
                exactly one slot per attribute, in their order.
            labels (`torch.LongTensor` of shape `(batch_size, length)`, *optional*): Text targets, −100 elsewhere.
            scores (`torch.Tensor` of shape `(batch_size, num_attributes)`, *optional*): Rated scores in
                `config.score_range`; NaN where there is none.
            votes (`torch.Tensor` of shape `(batch_size, num_attributes, num_levels)`, *optional*): Votes per level,
                counts or shares; NaN where there are none. Where only a score is known, a two-hot distribution of
                that mean stands in.
            loss_weights (`dict`, *optional*): Weights of the parts `text`, `smooth_l1`, `ce`, `emd` and, in training,
                `similarity`; by default text and smooth-L1 count 1, the others 0.
            loss_counts (`dict`, *optional*): Number of `text` tokens and of `scores` that the sums of the losses are
                divided by; those of this batch, mixed rows included, by default. A Trainer passes those of all its
                batches and processes.
            tail_mixup (`dict`, *optional*): In training, also learn from mixed pairs of slots of one attribute:
                `pairs`, `tau_1`, `tau_2`. Their losses count as those of other slots; neither the output nor the text
                loss has any of them.
            output_text_logits (`bool`, *optional*, defaults to `False`): Also return the supervised tokens' logits.
            **kwargs: Every other input of the backbone (`pixel_values`, `image_grid_thw`, `token_type_ids`, …).

        Raises:
            ValueError: If slots and attributes do not match, or a target has the wrong shape; the message says what
                came and what was expected.
        """
        self.warn_if_untrained()
        for name in ("num_items_in_batch", "use_cache"):
            kwargs.pop(name, None)
        text_rows = supervised_positions(input_ids, labels)
        slots = find_slots(input_ids, slot_attributes, self.config.score_token_id, len(self.config.attributes))
        head_input = HeadInput(text_rows, length=input_ids.shape[1])
        with reading_head_input(output_embedding_of(self.backbone), head_input):
            text_logits = self.backbone(
                input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **kwargs
            ).logits[0]  # (M, V)
        states = head_input.at(slots.rows, slots.positions - 1)  # (S, H)
        shape = (len(input_ids), len(self.config.attributes))
        logits, mask = slots.lay_out(self.score_head(states), shape)  # (B, A, N), (B, A)
        output = self.scored(logits, mask)
        if output_text_logits:
            output.text_logits = text_logits
        if labels is None and scores is None and votes is None:
            return output
        parts, weights = {}, self.checked_weights(loss_weights)
        if labels is not None:
            parts["text"] = text_losses(text_logits, labels[text_rows[0], text_rows[1] + 1])
        if scores is not None or votes is not None:
            features, _ = slots.lay_out(states, shape)  # (B, A, H)
            parts |= self.score_losses(output, features, scores, votes, weights, tail_mixup)
        add_loss(output, parts, weights, loss_counts or {})
        return output

    def head_values(self, features: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
        """Level logits `(S, N)` of states `(S, H)`, the same whatever the attribute is."""
        return self.score_head(features)

    @property
    def default_loss_weights(self) -> dict[str, float]:
        """Those of the paper, outside AVA."""
        return {"text": 1.0, "smooth_l1": 1.0}

    # ---- the backbone's part ------------------------------------------------------------------------------------

    @property
    def part_prefixes(self) -> dict[str, str]:
        """
        Parts that may get a learning rate of their own or be frozen, by the beginning of their parameters' names:
        `vision_tower`, `connector`, `language_model`, `score_head`. The longest beginning wins.
        """
        prefixes = {f"backbone.{name}".rstrip("."): part for name, part in backbone_parts(self.backbone).items()}
        return prefixes | {"score_head": "score_head"}

    @torch.no_grad()
    def generate(self, *args, slot_attributes=None, labels=None, scores=None, votes=None, **kwargs):
        """
        The backbone's own `generate`; pad prompts on the left. What only scoring and training need may stay in the
        batch.
        """
        return self.backbone.generate(*args, **kwargs)

    def prepare_inputs_for_generation(self, *args, **kwargs):
        """The backbone's own."""
        return self.backbone.prepare_inputs_for_generation(*args, **kwargs)

    @property
    def generation_config(self):
        """The backbone's generation config."""
        return self.backbone.generation_config

    @generation_config.setter
    def generation_config(self, value):
        if "backbone" in self._modules:  # PreTrainedModel sets it before the backbone exists
            self.backbone.generation_config = value

    def get_input_embeddings(self):
        """The backbone's input embedding."""
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value):
        """Replace the backbone's input embedding."""
        self.backbone.set_input_embeddings(value)

    def get_output_embeddings(self):
        """The backbone's output embedding; quantisers and peft leave it alone because they find it here."""
        return output_embedding_of(self.backbone)

    def set_output_embeddings(self, value):
        """Replace the backbone's output embedding."""
        head_owner(self.backbone).set_output_embeddings(value)

    def get_decoder(self):
        """The backbone's decoder."""
        return self.backbone.get_decoder()

    def resize_token_embeddings(self, *args, **kwargs):
        """Resize the backbone's embeddings, which keeps tied weights tied."""
        return head_owner(self.backbone).resize_token_embeddings(*args, **kwargs)

    def save_pretrained(
        self,
        save_directory,
        is_main_process: bool = True,
        state_dict: dict | None = None,
        save_original_format: bool = False,
        **kwargs,
    ):
        """
        As in the parent, safetensors, with keys equal to module names by default: the Trainer's resume and
        load-best-model use a plain `load_state_dict` that silently skips keys in a backbone's legacy layout
        (transformers 5.23, trainer.py `_load_from_checkpoint`). Of a model with an adapter only the adapter is saved.
        """
        if self._auto_class is not None:  # transformers writes one auto class by itself
            reference = f"{type(self).__module__.rpartition('.')[2]}.{type(self).__name__}"
            known = getattr(self.config, "auto_map", None) or {}
            self.config.auto_map = known | {"AutoModelForImageTextToText": reference}
        if has_adapter(self):
            if kwargs.get("push_to_hub"):
                raise ValueError("To publish an adapter, save it, then call model.push_to_hub(name).")
            if is_main_process:
                save_adapter(self, save_directory, state_dict)
            return
        super().save_pretrained(
            save_directory,
            is_main_process=is_main_process,
            state_dict=state_dict,
            save_original_format=save_original_format,
            **kwargs,
        )
        if is_main_process:
            drop_adapter(save_directory)
            save_trained_on(self, save_directory)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, backbone=None, **kwargs):
        """
        As in the parent, from safetensors only; remembers the revision for the records of the pipeline.

        An adapter, as training with LoRA saves it, is loaded together with the model that it names; `dtype`,
        `device_map`, `quantization_config`, … are for that model.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): Hub name or folder of a model or adapter.
            backbone (`str`, `os.PathLike` or `PreTrainedModel`, *optional*): Of an adapter: stands in for the model
                that it names, where that has moved or must be trusted to run code of its own.

        Raises:
            OSError: If a file is missing, or the model that an adapter names.
            ImportError: If an adapter is to be loaded without peft.
        """
        kwargs["use_safetensors"] = True
        folder = find_adapter(pretrained_model_name_or_path, **kwargs)
        if folder is not None:
            model = load_adapter(cls, pretrained_model_name_or_path, folder, backbone, **kwargs)
            model = (model, {}) if kwargs.get("output_loading_info") else model  # it would have raised
        elif backbone is not None:
            raise TypeError(f"{pretrained_model_name_or_path!r} is a whole model; `backbone=` is for an adapter.")
        else:
            model = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        remember_revision(model, kwargs)
        return model


def text_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the supervised tokens that the backbone has logits for, from `(M, V)` and ids `(M,)`."""
    targets = targets.to(logits.device)
    # a backbone may cut its logits at its own vocabulary: then it cannot learn to write [SCORE]
    return text_cross_entropy(logits, targets.masked_fill(targets >= logits.shape[-1], -100), reduction="none")


__all__ = ["ROC4MLLMForImageAesthetics"]
