"""
Fresh model and processor of `roc4mllm-tiny`: transformers' own LLaVA of a SigLIP tower and a Llama, not pretrained.

The patch embedding starts as a rotated cosine transform in opponent colours, so that it loses no detail at the start.
"""

import math

import torch
from tiny_descriptors import COMMENTS, GRID
from tiny_photographs import LEVELS, SIZE
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from roc4mllm import ROC4MLLMForImageAesthetics, ROC4MLLMProcessor
from roc4mllm.processing_roc4mllm.processing_roc4mllm import ANSWER, QUESTION

PATCH = SIZE // GRID  # 14: one image token per cell of the local descriptors
WIDTH, VISION_LAYERS, TEXT_LAYERS = 160, 3, 2
PIXEL_MEAN, PIXEL_STD = 0.5, 0.25
SCORE_RANGE = (1.0, 7.0)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE on the sentences of the model: each of their words is one token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    sentences = [QUESTION, *COMMENTS, *(f" {sentence}" for sentence in COMMENTS)]
    sentences += ANSWER.format(attribute="aesthetic").split("[SCORE]")
    bpe.train_from_iterator(sentences, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    return tokenizer


def build_processor() -> ROC4MLLMProcessor:
    """Pictures squeezed to a square, as the descriptors see them; the prompt is image, question, newline."""
    pictures = SiglipImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, image_mean=[PIXEL_MEAN] * 3, image_std=[PIXEL_STD] * 3
    )
    backbone = LlavaProcessor(
        image_processor=pictures, tokenizer=build_tokenizer(), patch_size=PATCH, vision_feature_select_strategy="full"
    )
    return ROC4MLLMProcessor.from_backbone(backbone, attributes=["aesthetics"])


def build_model(processor: ROC4MLLMProcessor) -> ROC4MLLMForImageAesthetics:
    """A scorer on a fresh LLaVA."""
    tokenizer = processor.tokenizer
    heads = {"num_attention_heads": WIDTH // 32, "hidden_size": WIDTH}
    vision = SiglipVisionConfig(
        **heads,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=VISION_LAYERS,
        image_size=SIZE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    text = LlamaConfig(
        **heads,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=TEXT_LAYERS,
        num_key_value_heads=WIDTH // 32,
        vocab_size=processor.score_token_id,  # `[SCORE]` adds its own row
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=GRID**2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    backbone = LlavaForConditionalGeneration(config)
    start_matrices(backbone)
    return ROC4MLLMForImageAesthetics.from_backbone(
        backbone, processor=processor, num_levels=LEVELS, score_range=SCORE_RANGE
    )


@torch.no_grad()
def start_matrices(backbone: nn.Module) -> None:
    """Matrices that keep the size of what passes through them; the patch embedding as a cosine transform."""
    for name, weight in backbone.named_parameters():
        if weight.dim() == 2 and "embed" not in name:
            nn.init.normal_(weight, std=0.8 / weight.shape[1] ** 0.5)
    embeddings = backbone.model.vision_tower.embeddings
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH)).Q
    embeddings.patch_embedding.weight.copy_(torch.einsum("ij,jchw->ichw", rotation, cosine_filters()))
    nn.init.zeros_(embeddings.patch_embedding.bias)
    nn.init.normal_(embeddings.position_embedding.weight, std=0.1)


def cosine_filters() -> torch.Tensor:
    """The slowest cosines of light and of two colour opponents, (WIDTH, 3, PATCH, PATCH)."""
    place = torch.arange(PATCH) + 0.5
    waves = torch.stack([torch.cos(math.pi * index * place / PATCH) for index in range(PATCH)])
    waves = functional.normalize(waves, dim=1)
    order = sorted((u * u + v * v, u, v) for u in range(PATCH) for v in range(PATCH))
    opponents = functional.normalize(torch.tensor([[1, 1, 1.0], [1, -1, 0], [0.5, 0.5, -1]]), dim=1)
    counts = [WIDTH - 2 * (WIDTH // 6), WIDTH // 6, WIDTH // 6]
    filters = []
    for opponent, count, constant, other in zip(opponents, counts, (0.15, 0.4, 0.4), (0.6, 1.5, 1.5), strict=True):
        for square, u, v in order[:count]:  # a patch's mean is far larger than its waves: it is scaled down
            wave = torch.outer(waves[u], waves[v]) * (constant if square == 0 else other)
            filters.append(opponent[:, None, None] * wave)
    return torch.stack(filters)
