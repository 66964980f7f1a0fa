"""
Small models of the families that score a picture alone, and the photographs that benchmarks train them on.

A photograph is stretched to a square, as these families see it. In training it is mirrored by chance and cropped a
little, each time anew; it is judged by its middle.
Names of axes: P photographs, B pictures, N levels.
"""

import datetime
import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ablation import rounded
from PIL import Image
from tiny_checkpoint import machine
from tiny_photographs import LEVELS, read_ratings
from transformers import BatchFeature
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

import roc4mllm
from roc4mllm.processing_roc4mllm.image_reading_aesthetics import read_image
from roc4mllm.trainer.rating_collator import RatingCollator
from roc4mllm.trainer.split_loss_config import SplitLossConfig
from roc4mllm.trainer.split_loss_trainer import SplitLossTrainer

SIDE, MARGIN = 64, 8  # pixels that a model sees, and around them that a crop may move by
SCORES = {"num_levels": LEVELS, "score_range": (1.0, float(LEVELS))}
BATCH = 32


class Rated(NamedTuple):
    """Photographs `(P, H, W, 3)`, uint8, their mean ratings `(P,)` and votes `(P, N)`."""

    pixels: np.ndarray
    mean: np.ndarray
    votes: np.ndarray

    def take(self, rows) -> "Rated":
        """These photographs only."""
        return Rated(*(part[rows] for part in self))

    def rows(self) -> list[dict]:
        """As a Trainer takes them."""
        pictures = map(Image.fromarray, self.pixels)
        parts = zip(pictures, self.mean.tolist(), self.votes.tolist(), strict=True)
        return [{"image": image, "score": mean, "votes": votes} for image, mean, votes in parts]


def read_rated(data: Path) -> Rated:
    """All photographs in the order of their names, on which the folds stand."""
    ratings, size = read_ratings(data), (SIDE + 2 * MARGIN,) * 2
    pixels = [np.asarray(read_image(data / "images" / name).resize(size, 3)) for name in ratings.image]  # 3: bicubic
    votes = ratings[[f"r{level}" for level in range(1, LEVELS + 1)]].to_numpy(dtype=np.float32)
    return Rated(np.stack(pixels), ratings["mean"].to_numpy(), votes)


class Crops:
    """An image processor of a training: mirrors and crops at random, by torch's generator."""

    def __call__(self, images, return_tensors: str = "pt") -> BatchFeature:
        """Prepared pictures, `(B, 3, SIDE, SIDE)`."""
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))  # (B, H, W, 3)
        tops, lefts = torch.randint(2 * MARGIN + 1, (2, len(pixels))).tolist()
        mirrored = torch.rand(len(pixels)) < 0.5
        crops = [
            picture[top : top + SIDE, left : left + SIDE]
            for picture, top, left in zip(pixels, tops, lefts, strict=True)
        ]
        flipped = [crop.flip(1) if flip else crop for crop, flip in zip(crops, mirrored, strict=True)]
        return BatchFeature({"pixel_values": normalized(torch.stack(flipped))})


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels `(B, H, W, 3)` as networks take them, `(B, 3, H, W)`, by the statistics of ImageNet."""
    mean, std = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
    return ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)


# ---- the models -----------------------------------------------------------------------------------------------------


def tanet():
    """Its networks at half their width or less; the scene network stays as it is drawn, for it is never trained."""
    scene = {"embedding_size": 16, "hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1]}
    perception = {"image_size": SIDE, "depth_multiplier": 0.5}
    config = roc4mllm.TANetConfig(mobilenet_config=perception, scene_config=scene, dropout=0.1, **SCORES)
    return roc4mllm.TANetForImageAesthetics(config)


def eat():
    """Three stages of two blocks, two of them deformable."""
    config = roc4mllm.EATConfig(
        image_size=SIDE,
        hidden_sizes=(32, 64, 128),
        stage_blocks=("LS", "LD", "LD"),
        num_heads=(2, 4, 8),
        window_sizes=(4, 4, 4),
        num_groups=(1, 2, 4),
        offset_range_factors=(2, 2, 2),
        offset_kernel_sizes=(7, 5, 3),
        position_biases=("none", "table", "table"),
        use_conv_mlps=(False, False, False),
        use_conv_patches=True,
        drop_path_rate=0.1,
        **SCORES,
    )
    return roc4mllm.EATForImageAesthetics(config)


def elta():
    """Three stages of two blocks."""
    swin = {"image_size": SIDE, "embed_dim": 32, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "window_size": 4}
    config = roc4mllm.ELTAConfig(swin_config=swin | {"drop_path_rate": 0.1}, **SCORES)
    return roc4mllm.ELTAForImageAesthetics(config)


FAMILIES = {"tanet": tanet, "eat": eat, "elta": elta}
# The colours' map has 20,736 inputs, all positive: at the rate of the rest its softmax is one-hot after a few steps.
RATES = {
    "tanet": {"learning_rate": 1e-3, "learning_rates": {"colour": 1e-5}},
    "eat": {"learning_rate": 1e-3},
    "elta": {"learning_rate": 1e-4},  # a fresh Swin V2, which normalises behind each block, learns nothing at 1e-3
}


# ---- training and scoring -------------------------------------------------------------------------------------------


def learn(model, family: str, rows: list[dict], steps: int, seed: int, **options) -> list[dict]:
    """Train on these rows; what the Trainer logged."""
    with tempfile.TemporaryDirectory() as folder:
        settings = SplitLossConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            loss_preset="emd",
            lr_scheduler_type="cosine",
            warmup_steps=steps // 20,
            weight_decay=0.05,
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=max(steps // 10, 1),
            **RATES[family],
            **options,
        )
        collator = RatingCollator(Crops(), model.config)
        trainer = SplitLossTrainer(model, settings, data_collator=collator, train_dataset=rows)
        trainer.train()
    model.eval()
    return trainer.state.log_history


@torch.no_grad()
def predict(model, photographs: Rated) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores `(P,)` from 1 to 7 and distributions `(P, N)` of the middles of photographs."""
    middle = slice(MARGIN, MARGIN + SIDE)
    pixels = normalized(torch.from_numpy(photographs.pixels[:, middle, middle]))
    outputs = [model(pixel_values=part) for part in pixels.split(BATCH)]
    return torch.cat([o.scores[:, 0] for o in outputs]), torch.cat([o.distribution[:, 0] for o in outputs])


def append(results: Path, line: dict) -> None:
    """Add a line to a file of results, with machine and versions."""
    results.parent.mkdir(exist_ok=True)
    line = rounded(line) | {"date": datetime.date.today().isoformat(), "machine": machine()}
    with results.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print({name: value for name, value in line.items() if name in ("srcc", "low", "high", "picked")}, flush=True)
