"""
What a picture looks like, in numbers that need no label: lessons for `roc4mllm-tiny`, and the teacher built on them.

416 rated photographs are too few to learn to see from. A transformer of our size first has to learn what colour,
contrast and texture are; that needs pictures but no ratings. So its tokens are asked for descriptors of their own
patch and its score state for descriptors of the whole picture, and a kernel machine on the same descriptors, fitted to
the training photographs, tells it what votes to expect for a cropped or recoloured copy of them.

Names of axes: B pictures, P photographs, V views of a photograph, D descriptors, N levels. Pictures are RGB in 0–1.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from sklearn.model_selection import KFold
from torch.nn import functional

GRID = 8  # local descriptors have one value per token of the whole picture: 8 × 8 patches
ORIENTATIONS = 6
SCALES = 4
EDGE = 15.0  # L* per pixel from which a pixel counts as an edge
RGB_TO_XYZ = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
QUANTILES = [0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0]
RGB_TO_YCC = [[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]]
WHITE = [0.95047, 1.0, 1.08883]  # D65


class Descriptors(NamedTuple):
    """Groups of global descriptors, each (B, D), and a map of local ones, (B, GRID², D)."""

    groups: list[torch.Tensor]
    local: torch.Tensor


def to_lab(pictures: torch.Tensor) -> torch.Tensor:
    """CIE L*a*b* (B, 3, H, W) of sRGB pictures of the same shape."""
    linear = torch.where(pictures <= 0.04045, pictures / 12.92, ((pictures + 0.055) / 1.055).clamp_min(1e-6) ** 2.4)
    matrix = torch.tensor(RGB_TO_XYZ) / torch.tensor(WHITE)[:, None]
    xyz = torch.einsum("oc,bchw->bohw", matrix, linear)
    f = torch.where(xyz > 0.008856, xyz.clamp_min(1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
    return torch.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], dim=1)


def to_hsv(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hue, saturation and value, each (B, H, W) in 0–1."""
    value, strongest = pictures.max(1)
    chroma = value - pictures.min(1).values
    red, green, blue = pictures.unbind(1)
    span = chroma.clamp_min(1e-6)
    turns = [((green - blue) / span) % 6, (blue - red) / span + 2, (red - green) / span + 4]
    hue = torch.where(strongest == 0, turns[0], torch.where(strongest == 1, turns[1], turns[2])) / 6
    return hue, chroma / value.clamp_min(1e-6), value


def bins(values: torch.Tensor, low: float, high: float, count: int) -> torch.Tensor:
    """Index of the bin of each value; what lies outside falls into the first or last."""
    return ((values - low) / (high - low) * count).long().clamp(0, count - 1)


def histogram(indices: torch.Tensor, count: int) -> torch.Tensor:
    """Square roots of the shares of each bin, (B, count): Hellinger's distance suits histograms."""
    flat = indices.flatten(1)
    shares = torch.zeros(len(flat), count).scatter_add_(1, flat, torch.ones(flat.shape))
    return (shares / flat.shape[1]).sqrt()


def gabor_filters(size: int = 9, width: float = 1.9, frequency: float = 1.83) -> torch.Tensor:
    """Even and odd filters of each orientation, without response to a constant, (2 · ORIENTATIONS, 1, size, size)."""
    axis = torch.arange(size) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    window = torch.exp(-(x**2 + y**2) / (2 * width**2))
    filters = []
    for angle in (math.pi * step / ORIENTATIONS for step in range(ORIENTATIONS)):
        along = frequency * (x * math.cos(angle) + y * math.sin(angle))
        even, odd = window * along.cos(), window * along.sin()
        even = even - window * (even.sum() / window.sum())
        norm = (even**2 + odd**2).sum().sqrt()
        filters += [even / norm, odd / norm]
    return torch.stack(filters)[:, None]


FILTERS = gabor_filters()


def gabor_energies(lab: torch.Tensor) -> list[torch.Tensor]:
    """Amplitude per channel and orientation at each scale, a list of (B, 3 · ORIENTATIONS, H / 2^s, W / 2^s)."""
    picture = lab * torch.tensor([1.0, 1.5, 1.5])[:, None, None] / 100
    energies = []
    for _ in range(SCALES):
        batch, channels, height, width = picture.shape
        planes = functional.pad(picture.reshape(batch * channels, 1, height, width), (4, 4, 4, 4), mode="reflect")
        response = functional.conv2d(planes, FILTERS)
        energy = (response[:, 0::2] ** 2 + response[:, 1::2] ** 2 + 1e-8).sqrt()
        energies.append(energy.reshape(batch, -1, height, width))
        picture = functional.avg_pool2d(picture, 2)
    return energies


def pooled(plane: torch.Tensor, cells: int) -> torch.Tensor:
    """Means over cells × cells parts of the picture, (B, C, cells, cells), of (B, H, W) or (B, C, H, W)."""
    return functional.adaptive_avg_pool2d(plane if plane.dim() == 4 else plane[:, None], cells)


def gradients(lightness: torch.Tensor) -> torch.Tensor:
    """Change of lightness per pixel, (B, H, W), zero on the rim."""
    right = lightness[:, 1:-1, 2:] - lightness[:, 1:-1, :-2]
    down = lightness[:, 2:, 1:-1] - lightness[:, :-2, 1:-1]
    return functional.pad(torch.hypot(right, down) / 2, (1, 1, 1, 1))


def statistics(lab: torch.Tensor, saturation, value, chroma, gradient) -> torch.Tensor:
    """Means, spreads and extremes of the whole picture, and centre against all, (B, 21)."""
    lightness = lab[:, 0]
    columns = []
    for plane in (*lab.unbind(1), saturation, chroma, gradient):
        columns += [plane.mean((1, 2)), plane.std((1, 2))]
    columns += [value.mean((1, 2)), (gradient.mean((1, 2)) + 1).log()]
    for plane, quantile in ((lightness, 0.05), (lightness, 0.95), (chroma, 0.9), (gradient, 0.9)):
        columns.append(plane.flatten(1)[:, ::7].quantile(quantile, dim=1))
    quarter = lightness.shape[-1] // 4
    for plane in (lightness, chroma, gradient):
        columns.append(plane[:, quarter:-quarter, quarter:-quarter].mean((1, 2)) - plane.mean((1, 2)))
    return torch.stack(columns, dim=1)


def describe(pictures: torch.Tensor) -> Descriptors:
    """Descriptors of square pictures (B, 3, H, W); H is a multiple of GRID."""
    lab = to_lab(pictures)
    hue, saturation, value = to_hsv(pictures)
    lightness, a, b = lab.unbind(1)
    chroma = torch.hypot(a, b)
    gradient = gradients(lightness)
    edges = (gradient > EDGE).float()
    colours = bins(lightness, 0, 100, 4) * 36 + bins(a, -60, 60, 6) * 6 + bins(b, -60, 60, 6)
    energies = gabor_energies(lab)
    grid = torch.stack([(gradient + 1).log(), chroma, lightness, a, b, edges], dim=1)
    texture = [pooled(energy, 2).flatten(1) for energy in energies]
    texture += [(energy**2).mean((2, 3)).sqrt() for energy in energies]
    groups = [
        histogram(colours, 144),
        histogram(bins(hue, 0, 1, 12) * 4 + bins(saturation, 0, 1, 4), 48),
        statistics(lab, saturation, value, chroma, gradient),
        pooled(grid, 4).flatten(1),
        (torch.cat(texture, dim=1) + 1e-3).log(),
    ]
    mean = pooled(lab, GRID)
    spread = (pooled(lab**2, GRID) - mean**2).clamp_min(0).sqrt()
    local = [mean, spread, pooled(grid[:, [0, 1, 5]], GRID)]
    local += [(pooled(energy, GRID) + 1e-2).log() for energy in energies[:3]]
    local.append(pooled(functional.one_hot(colours, 144).permute(0, 3, 1, 2).float(), GRID).sqrt())
    return Descriptors(groups, torch.cat(local, dim=1).flatten(2).transpose(1, 2))


def cosines(size: int) -> torch.Tensor:
    """Rows of the orthonormal cosine transform of that many values, (size, size)."""
    place = torch.arange(size) + 0.5
    waves = torch.stack([torch.cos(math.pi * index * place / size) for index in range(size)])
    return functional.normalize(waves, dim=1)


def describe_blocks(tiles: torch.Tensor) -> torch.Tensor:
    """
    Descriptors of each 16 × 16 patch of tiles (B, S, S, 3) uint8, (B, patches, 29): how strong each frequency is in
    the 8 × 8 blocks of JPEG, how much larger the step between blocks is than beside it, tone and its extremes.
    """
    count, side = len(tiles), tiles.shape[1] // 16
    planes = (tiles.float() @ torch.tensor(RGB_TO_YCC).T).permute(0, 3, 1, 2)  # (B, 3, S, S)
    blocks = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8))  # (B, 3, S/8, 8, S/8, 8)
    waves = torch.einsum("ui,bcyixj,vj->bcyxuv", cosines(8), blocks, cosines(8)).abs()
    order = torch.arange(8)[:, None] + torch.arange(8)  # (8, 8), 0 is the block's mean
    bands = [(0, order == band) for band in range(1, 15)]
    bands += [(plane, (order >= low) & (order <= high)) for plane in (1, 2) for low, high in ((1, 2), (3, 5), (6, 14))]
    columns = [
        (functional.avg_pool2d(waves[:, plane][..., band].mean(-1), 2) + 0.3).log() for plane, band in bands
    ]  # (B, side, side)
    patches = planes.reshape(count, 3, side, 16, side, 16)
    light = patches[:, 0]  # (B, side, 16, side, 16)
    for rows in (light, light.transpose(2, 4)):
        before, middle, after = ((rows[..., x] - rows[..., x - 1]).abs().mean(2) for x in (7, 8, 9))
        columns.append(((middle + 0.3) / ((before + after) / 2 + 0.3)).log())
    columns += [*patches.mean((3, 5)).unbind(1), light.amax((2, 4)), light.amin((2, 4))]
    columns += [(light > 250).float().mean((2, 4)), (light < 5).float().mean((2, 4))]
    return torch.stack(columns, dim=-1).flatten(1, 2)


def describe_tones(pictures: torch.Tensor) -> torch.Tensor:
    """How light and the strongest channel are spread over pictures (B, S, S, 3) uint8, and clipped, (B, 24)."""
    values = pictures[:, ::2, ::2].flatten(1, 2).float() / 255  # (B, S² / 4, 3)
    columns = []
    for plane in (values @ torch.tensor(RGB_TO_YCC[0]), values.amax(2)):
        columns += [plane.quantile(torch.tensor(QUANTILES), dim=1).T]
        columns += [(plane > 252 / 255).float().mean(1, keepdim=True), (plane < 3 / 255).float().mean(1, keepdim=True)]
    return torch.cat(columns, dim=1)


def comment(pictures: torch.Tensor) -> list[str]:
    """One sentence per picture (B, 3, H, W) from its mean lightness, chroma and gradient."""
    lab = to_lab(pictures)
    values = [
        lab[:, 0].mean((1, 2)),
        torch.hypot(lab[:, 1], lab[:, 2]).mean((1, 2)),
        gradients(lab[:, 0]).mean((1, 2)),
    ]
    return [
        f"The picture is {word(light, 42, 62, LIGHT)} and {word(colour, 14, 27, COLOUR)}, "
        f"with {word(detail, 4.5, 8.5, DETAIL)}."
        for light, colour, detail in torch.stack(values, dim=1).tolist()
    ]


LIGHT = ("dark", "evenly lit", "bright")
COLOUR = ("muted", "moderately coloured", "colourful")
DETAIL = ("smooth areas", "some detail", "much fine detail")
COMMENTS = [f"The picture is {x} and {y}, with {z}." for x in LIGHT for y in COLOUR for z in DETAIL]


def word(value: float, low: float, high: float, words: tuple[str, str, str]) -> str:
    """The word for a value below, between or above the two limits."""
    return words[0] if value < low else words[2] if value > high else words[1]


class Teacher:
    """
    Kernel ridge from descriptors to the vote distribution: the mean of one Gaussian kernel per group of descriptors,
    each as wide as the median distance. Only the strength of the ridge is chosen, by cross-validation within `fit`.

    Args:
        groups (`list[torch.Tensor]`): Descriptors of the training pictures, each `(B, D)`.
        shares (`torch.Tensor` of shape `(B, N)`): Their share of votes per level.
        photographs (`np.ndarray` of shape `(B,)`): Which photograph a picture shows, kept together in the validation.
    """

    RIDGES = (0.03, 0.1, 0.3, 1.0)

    def __init__(self, groups: list[torch.Tensor], shares: torch.Tensor, photographs: np.ndarray):
        self.groups, self.mean = groups, shares.mean(0)
        self.widths = [(torch.cdist(group, group) ** 2).median() for group in groups]
        kernel, target = self.kernel(groups).double(), (shares - self.mean).double()
        folds = list(KFold(5, shuffle=True, random_state=0).split(np.unique(photographs)))
        errors = [self._held_out_error(kernel, target, photographs, folds, ridge) for ridge in self.RIDGES]
        self.ridge = self.RIDGES[int(np.argmin(errors))]
        self.weights = solve(kernel, target, self.ridge).float()  # (B, N)

    def kernel(self, groups: list[torch.Tensor]) -> torch.Tensor:
        """Similarity of other pictures to the training pictures, (other B, B)."""
        pairs = zip(groups, self.groups, self.widths, strict=True)
        return torch.stack([(-(torch.cdist(other, own) ** 2) / width).exp() for other, own, width in pairs]).mean(0)

    def predict(self, groups: list[torch.Tensor]) -> torch.Tensor:
        """Share of votes per level, (B, N)."""
        shares = (self.kernel(groups) @ self.weights + self.mean).clamp_min(1e-3)
        return shares / shares.sum(-1, keepdim=True)

    @staticmethod
    def _held_out_error(kernel, target, photographs, folds, ridge: float) -> float:
        """Mean squared error on held-out photographs."""
        names, error = np.unique(photographs), 0.0
        for _, held_out in folds:
            test = torch.from_numpy(np.isin(photographs, names[held_out]))
            weights = solve(kernel[~test][:, ~test], target[~test], ridge)
            error += ((kernel[test][:, ~test] @ weights - target[test]) ** 2).sum().item()
        return error / target.numel()


def solve(kernel: torch.Tensor, target: torch.Tensor, ridge: float) -> torch.Tensor:
    """Weights of kernel ridge regression, (B, N)."""
    return torch.linalg.solve(kernel + ridge * torch.eye(len(kernel), dtype=kernel.dtype), target)
