"""
Fresh model and processor of `roc4mllm-tiny`: transformers' own LLaVA of a SigLIP tower and a Llama, not pretrained.

It looks at every picture twice, at 128 × 128 pixels each: squeezed to a square for what the picture shows, and as
fragments, 16 pieces of 32 × 32 pixels at native resolution, for noise, sharpness and traces of compression. No
processor of transformers does that: those that cut tiles (LLaVA-NeXT, Idefics3, Gemma3) resize the picture before or
after, and what keeps its pixels (a centre crop) sees nothing else. So [`ROC4MLLMProcessor`] gives the backbone's own
processor two pictures, and resizing the second to the size that it has changes nothing.

The patch embedding starts as a rotated cosine transform in opponent colours: slow waves of the whole patch, and, far
stronger than they are in pictures, fast waves of its 8 × 8 blocks, which are those of a JPEG file.
"""

import torch
from tiny_damage import DAMAGES
from tiny_descriptors import COMMENTS, GRID, cosines
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

PATCH = SIZE // GRID  # 16: four blocks of a JPEG file, one image token per cell of the local descriptors
WIDTH, VISION_LAYERS, TEXT_LAYERS = 160, 3, 2
PIXEL_MEAN, PIXEL_STD = 0.5, 0.25
ATTRIBUTES = ["aesthetics", *DAMAGES]
SCORE_RANGE = [[1.0, 7.0], *[[0.0, 100.0]] * len(DAMAGES)]
ANSWERS = {name: f"The {name} is [SCORE]." for name in DAMAGES}  # five short clauses cost fewer tokens
ANSWERS["aesthetics"] = ANSWER.format(attribute="aesthetic")
FAST = ((0, 4), (4, 0), (2, 3), (3, 2), (4, 4), (5, 2), (2, 5), (0, 6), (6, 0), (6, 6), (7, 3), (3, 7))


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
    for answer in ANSWERS.values():
        sentences += answer.split("[SCORE]") + (", t" + answer[1:]).split("[SCORE]")
    bpe.train_from_iterator(sentences, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    return tokenizer


def build_processor() -> ROC4MLLMProcessor:
    """The prompt is the two pictures, question, newline."""
    pictures = SiglipImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, image_mean=[PIXEL_MEAN] * 3, image_std=[PIXEL_STD] * 3
    )
    backbone = LlavaProcessor(
        image_processor=pictures, tokenizer=build_tokenizer(), patch_size=PATCH, vision_feature_select_strategy="full"
    )
    return ROC4MLLMProcessor.from_backbone(backbone, attributes=ATTRIBUTES, answer=ANSWERS, fragment_size=SIZE)


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
    """Cosines of light and of two colour opponents, (WIDTH, 3, PATCH, PATCH)."""
    opponents = functional.normalize(torch.tensor([[1, 1, 1.0], [1, -1, 0], [0.5, 0.5, -1]]), dim=1)
    filters = []
    for opponent, places, gain in zip(opponents, (FAST, ((3, 3),), ((3, 3),)), (4.0, 6.0, 6.0), strict=True):
        for corner in ((0, 0), (0, 8), (8, 0), (8, 8)):
            filters += [opponent[:, None, None] * block_wave(*place, *corner) * gain for place in places]
    waves = cosines(PATCH)
    order = sorted((u * u + v * v, u, v) for u in range(PATCH) for v in range(PATCH))
    slow = WIDTH - len(filters)
    counts = [slow - 2 * (slow // 5), slow // 5, slow // 5]
    for opponent, count, constant, other in zip(opponents, counts, (0.15, 0.4, 0.4), (0.6, 1.5, 1.5), strict=True):
        for square, u, v in order[:count]:  # a patch's mean is far larger than its waves: it is scaled down
            wave = torch.outer(waves[u], waves[v]) * (constant if square == 0 else other)
            filters.append(opponent[:, None, None] * wave)
    return torch.stack(filters)


def block_wave(u: int, v: int, top: int, left: int) -> torch.Tensor:
    """One wave of the 8 × 8 block at that place of a patch, (PATCH, PATCH)."""
    plane = torch.zeros(PATCH, PATCH)
    plane[top : top + 8, left : left + 8] = torch.outer(cosines(8)[u], cosines(8)[v])
    return plane
