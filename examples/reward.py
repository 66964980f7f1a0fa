"""
Raise the score of a photograph by gradient ascent on its pixels, and let the pipeline score what was saved.

    python examples/reward.py [PICTURE]

writes before.png and after.png. A generator is tuned in the same way: `-reward(its pictures)` is its loss.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import roc4mllm

photograph = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("photos") / "chelsea.png"
scorer = roc4mllm.load_scorer()  # or the name of a model
reward = roc4mllm.DifferentiableScorer(scorer)

before = Image.open(photograph).convert("RGB")
pixels = torch.from_numpy(np.array(before) / 255).permute(2, 0, 1)[None]  # (1, 3, H, W), from 0 to 1
for step in range(5):
    pixels.requires_grad_()
    score = reward(pixels)[0, 0]  # of the first picture, for the main attribute
    (gradient,) = torch.autograd.grad(score, pixels)
    pixels = (pixels + gradient.sign() / 255).clamp(0, 1).detach()  # one 8-bit level
    print(f"step {step}: {score.item():.3f}")

after = Image.fromarray((pixels[0] * 255).round().byte().permute(1, 2, 0).numpy())
before.save("before.png")
after.save("after.png")
for name in ("before.png", "after.png"):
    print(f"{name}: {scorer(name)['score']:.3f}")
