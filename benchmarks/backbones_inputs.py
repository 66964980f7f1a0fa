"""
What an architecture's `forward` wants for two pictures and a scoring sentence, without its processor.

The form of `pixel_values` follows from the arguments of `forward`; `PICTURES_AS` holds, as data, the architectures
where it does not. How many placeholder tokens a picture takes is asked of the model (`get_image_features`).
Axes: B pictures (one per row), T tokens, n patches of a picture. Used by `backbones.py`; nothing to run here.
"""

import inspect

import torch
from backbones_tiny import FIRST_SPECIAL_ID

SIDE, PATCH = 32, 8
GRID = SIDE // PATCH
PICTURE_ID_FIELDS = ("image_token_id", "image_token_index", "image_patch_id", "video_token_id", "video_token_index")
QUESTION = ([1, 11, 12], [13, 14, 15])  # before and after the picture
ANSWER = [21, 22, None, 23, 24, None, 25]  # None stands for [SCORE]

# placeholder tokens per picture where the model does not tell: none, where pictures enter by another way
PLACEHOLDERS = {
    "blip": 0,
    "git": 0,
    "granite4_vision": 10,
    "idefics": 0,
    "kosmos-2": 4,
    "kosmos-2.5": 4,
    "mllama": 1,
}


# ---- pixel_values and what belongs to it ----------------------------------------------------------------------------


def squares(pictures, side=PATCH):
    """Pictures (B, 3, H, W) cut into squares, (B, n, 3, side, side)."""
    columns = torch.nn.functional.unfold(pictures, side, stride=side)  # (B, 3·side², n)
    return columns.mT.unflatten(-1, (3, side, side))


def patches(pictures, frames=1, side=PATCH):
    """Flat patches (B, n, 3·frames·side²); a picture repeated over the frames of a patch."""
    cut = squares(pictures, side).flatten(-2)  # (B, n, 3, side²)
    return cut.unsqueeze(3).expand(-1, -1, -1, frames, -1).flatten(2)


def same(batch, value):
    """A tensor with the same row for each picture."""
    return torch.tensor([value] * batch)


def places(batch, width):
    """(x, y) of every patch, (B, width², 2)."""
    return same(batch, [[number % width, number // width] for number in range(width * width)])


def whole(pictures, config):
    return {"pixel_values": pictures}


def packed(pictures, config):
    """All patches in a row, with the grid of each picture."""
    vision = config.vision_config
    frames = getattr(vision, "temporal_patch_size", None) or getattr(vision, "patch_temporal", None) or 1
    return {
        "pixel_values": patches(pictures, frames).flatten(0, 1),
        "image_grid_thw": same(len(pictures), [1, GRID, GRID]),
    }


def packed_squares(pictures, config):
    return packed(pictures, config) | {"pixel_values": squares(pictures).flatten(0, 1)}


def packed_blocks(pictures, config):
    """Blocks of 2 × 2 patches, colours last; the grid counts blocks."""
    blocks = squares(pictures, 2 * PATCH).flatten(0, 1).movedim(1, -1)
    return {"pixel_values": blocks, "image_grid_thw": same(len(pictures), [1, GRID // 2, GRID // 2])}


def packed_volumes(pictures, config):
    """Squares over two frames, colours last."""
    return {"pixel_values": squares(pictures).flatten(0, 1).movedim(1, -1).unsqueeze(1).expand(-1, 2, -1, -1, -1)}


def packed_merging(pictures, config):
    return packed(pictures, config) | {"image_merge_sizes": same(len(pictures), 2)}


def packed_flat(pictures, config):
    return {"pixel_values": patches(pictures).flatten(0, 1), "image_grid_hw": same(len(pictures), [GRID, GRID])}


def strip(pictures, config):
    """All squares side by side in one long picture."""
    row = torch.cat(list(squares(pictures).flatten(0, 1)), dim=-1)
    return {"pixel_values": row.unsqueeze(0), "target_sizes": same(len(pictures), [GRID, GRID])}


def flat(pictures, config):
    return {"pixel_values": patches(pictures)}


def flat_masked(pictures, config):
    count = len(pictures)
    mask = torch.ones(count, GRID * GRID, dtype=torch.long)
    return flat(pictures, config) | {"spatial_shapes": same(count, [GRID, GRID]), "pixel_attention_mask": mask}


def flat_placed(pictures, config):
    return flat(pictures, config) | {"image_position_ids": places(len(pictures), GRID)}


def blocks_placed(pictures, config):
    width = GRID // 2
    return {"pixel_values": patches(pictures, side=2 * PATCH), "image_position_ids": places(len(pictures), width)}


def flat_pooled(pictures, config):
    """Patches, and which four of them each placeholder token pools."""
    corners = [row * 2 * GRID + column * 2 for row in range(GRID // 2) for column in range(GRID // 2)]
    pooling = [
        [picture * GRID * GRID + corner + step for step in (0, 1, GRID, GRID + 1)]
        for picture in range(len(pictures))
        for corner in corners
    ]
    return flat(pictures, config) | {
        "image_token_pooling": torch.tensor(pooling),
        "image_grids": same(len(pictures), [GRID // 2, GRID // 2, 0, 0]),
        "image_num_crops": same(len(pictures), 1),
    }


def flattened_patches(pictures, config):
    """Row and column stand in front of each patch."""
    return {"flattened_patches": torch.cat([places(len(pictures), GRID).float(), patches(pictures)], dim=-1)}


def tiles(count):
    """Each picture `count` times, (B, count, 3, H, W)."""

    def recipe(pictures, config):
        return {"pixel_values": pictures.unsqueeze(1).expand(-1, count, -1, -1, -1)}

    return recipe


def masked_pixels(pictures, config):
    mask = torch.ones(len(pictures), 1, SIDE, SIDE, dtype=torch.bool)
    return tiles(1)(pictures, config) | {"pixel_attention_mask": mask}


def masked_tile(pictures, config):
    return tiles(1)(pictures, config) | {"pixel_attention_mask": same(len(pictures), [True])}


def tiles_of_ratio(pictures, config):
    """(B, pictures, tiles, 3, H, W)."""
    count = len(pictures)
    ratio = {"aspect_ratio_ids": same(count, [1]), "aspect_ratio_mask": same(count, [[1]])}
    return {"pixel_values": pictures[:, None, None], **ratio}


def two_resolutions(pictures, config):
    return {"pixel_values": pictures, "high_res_pixel_values": pictures}


def with_question(pictures, config):
    """The part that reads the picture is told the question too."""
    question = {"qformer_input_ids": [9, 9], "qformer_attention_mask": [1, 1]}
    return {"pixel_values": pictures} | {name: same(len(pictures), ids) for name, ids in question.items()}


PICTURES_AS = {
    "deepseek_vl_hybrid": two_resolutions,
    "fuyu": flat,
    "gemma4": flat_placed,
    "gemma4_unified": blocks_placed,
    "granite4_vision": tiles(2),
    "granite_docling": masked_tile,
    "idefics": tiles(1),
    "inkling2": packed_blocks,
    "inkling_mm_model": packed_volumes,
    "instructblip": with_question,
    "kimi_k25": packed_squares,
    "kosmos-2.5": flattened_patches,
    "llava_next": tiles(2),
    "llava_next_video": tiles(2),
    "llava_onevision": tiles(2),
    "minicpm_ocr": strip,
    "minicpmv4_6": strip,
    "minicpmv4_7": strip,
    "mllama": tiles_of_ratio,
    "molmo2": flat_pooled,
    "nemotron_h_omni": packed_flat,
    "paddleocr_vl": packed_squares,
    "perception_lm": tiles(1),
    "video_llama_3": packed_merging,
}
PICTURES_BY_ARGUMENT = {
    "image_grid_thw": packed,
    "spatial_shapes": flat_masked,
    "pixel_attention_mask": masked_pixels,
    "pixel_values": whole,
}


# ---- a batch --------------------------------------------------------------------------------------------------------


class Example:
    """
    Pictures and a scoring sentence with two slots, the same sentence in every row.

    `ids` (B, T); `prompt` tokens stand before the answer; `slots` are the positions of `[SCORE]`.
    """

    def __init__(self, name: str, backbone, score_token_id: int, pictures: torch.Tensor):
        self.arguments = inspect.signature(backbone.forward).parameters
        self.config = backbone.config
        self.pictures = picture_inputs(name, backbone, pictures, self.arguments)
        count = placeholders(name, backbone, self.pictures, len(pictures))
        before, after = QUESTION
        prompt = before + [picture_id(self.config)] * count + after
        answer = [score_token_id if token is None else token for token in ANSWER]
        self.prompt = len(prompt)
        self.slots = [self.prompt + place for place, token in enumerate(ANSWER) if token is None]
        self.ids = same(len(pictures), prompt + answer)

    def inputs(self, ids=None, mask=None) -> dict:
        """Everything `forward` wants, for other ids too."""
        ids = self.ids if ids is None else ids
        mask = torch.ones_like(ids) if mask is None else mask
        return {"input_ids": ids, "attention_mask": mask, **self.pictures, **self.per_token(ids)}

    def per_token(self, ids: torch.Tensor) -> dict:
        """Inputs with one entry per token."""
        is_picture = (ids == picture_id(self.config)).long()  # (B, T)
        ones = torch.ones_like(ids)
        inputs = {
            "mm_token_type_ids": is_picture,
            "moe_mm_token_type_ids": is_picture,
            "token_type_ids": is_picture,
            "image_embeds_position_mask": is_picture,
            "image_attention_mask": ones.unsqueeze(-1),
            "cross_attention_mask": ones[..., None, None],
        }
        if self.config.model_type == "paligemma":  # it attends both ways over tokens of type 0
            inputs["token_type_ids"] = (torch.arange(ids.shape[1]) >= self.prompt).long().expand_as(ids)
        return {name: value for name, value in inputs.items() if name in self.arguments}


def picture_inputs(name: str, backbone, pictures: torch.Tensor, arguments) -> dict:
    """Pictures in the form that an architecture reads."""
    recipes = [recipe for argument, recipe in PICTURES_BY_ARGUMENT.items() if argument in arguments]
    inputs = PICTURES_AS.get(name, recipes[0] if recipes else whole)(pictures, backbone.config)
    reader = getattr(backbone, "get_image_features", None) or getattr(backbone, "model", None)
    reader = getattr(reader, "get_image_features", reader)
    if "image_sizes" in arguments and "image_sizes" in inspect.signature(reader).parameters:
        inputs["image_sizes"] = same(len(pictures), [SIDE, SIDE])
    return inputs


def feature_source(backbone):
    """The method that turns pictures into token states; the base model's names its arguments."""
    return getattr(getattr(backbone, "model", None), "get_image_features", None) or backbone.get_image_features


@torch.no_grad()
def placeholders(name: str, backbone, inputs: dict, batch: int) -> int:
    """Placeholder tokens that a picture takes in the prompt."""
    if name in PLACEHOLDERS:
        return PLACEHOLDERS[name]
    source = feature_source(backbone)
    known = inspect.signature(source).parameters
    output = source(**{key: value for key, value in inputs.items() if key in known})
    if not isinstance(output, torch.Tensor | list | tuple):
        pooled = getattr(output, "pooler_output", None)
        output = output.last_hidden_state if pooled is None else pooled
    parts = [output] if isinstance(output, torch.Tensor) else output
    return sum(part.shape[:-1].numel() for part in parts) // batch


def picture_id(config) -> int:
    """The id that stands for a piece of a picture."""
    ids = (getattr(config, field, None) for field in PICTURE_ID_FIELDS)
    return next((number for number in ids if isinstance(number, int)), FIRST_SPECIAL_ID)


def two_pictures() -> torch.Tensor:
    """Two different pictures, (2, 3, H, W)."""
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
