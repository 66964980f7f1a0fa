"""
One person's taste: a linear head, fitted to 10 or 100 ratings, on the features that a model's own score head reads.

It predicts how far the person's ratings lie from the general score, as in "Personalized Image Aesthetics" (Ren et al.,
ICCV 2017); the personal score is their sum, within the score range. Ten ratings say little, so that the head shrinks
to nothing, and the personal score to the general one, where the ratings do not bear it out.

What differs from that paper: ridge regression in closed form instead of a support vector machine on attributes.
Names of axes: n rated pictures, C features, m the smaller of both, K strengths.
"""

import json
import os
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ...processing_roc4mllm.pipeline_image_aesthetics import __version__, attribute_range, model_id, revision_of
from ...whole_files import write_whole

Array: TypeAlias = npt.NDArray[np.float64]

FORMAT = "roc4mllm personal taste 1"
SAMPLE = 1024  # about as many numbers of each large tensor make its fingerprint
# What a config says about files, names and runs, and not about features.
NO_FEATURES = {
    "architectures",
    "auto_map",
    "custom_pipelines",
    "dtype",
    "id2label",
    "label2id",
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "transformers_version",
    "use_cache",
}
FEWEST_RATINGS = 5
MOST_SINGLE = 100  # pictures that are left out one by one; of more, a twentieth at a time
# Of the ridge, for pictures whose standardised features have a squared length of 1 on average. Below 3, ten noisy
# ratings bend the scores; the last one stands for no head at all.
STRENGTHS = np.append(np.logspace(0.5, 3, 11), np.inf)  # (K,)


@dataclass(frozen=True)
class PersonalTaste:
    """
    A fitted head and what it was fitted on; saved as a safetensors file of a few kB.

    Args:
        weight (`np.ndarray` of shape `(num_features,)`): In units of the score per unit of the feature.
        bias (`float`): In units of the score.
        model (`str`): Hub name of the model, or name of its folder; for a reader, since names change.
        revision (`str`, *optional*): The model's, as its records have it; for a reader too.
        fingerprint (`str`): Of the model's weights and config, as [`fingerprint`] gives it, which tells models apart.
        attribute (`str`): What was rated.
        score_range (pair of `float`): Lowest and highest score.
        num_ratings (`int`): Pictures that it was fitted on.
        strength (`float`, *optional*): Of the ridge; `None` where the ratings only move all scores alike.
        general_srcc, personal_srcc (`float`, *optional*): SRCC with the ratings of left-out pictures, −1 to 1, of the
            general score and of the personal one; `None` where nobody measured it, or the ratings do not vary.
        version (`str`): Of the package.

    Raises:
        ValueError: If the numbers are no head.
    """

    weight: npt.NDArray[np.float32]
    bias: float
    model: str
    revision: str | None
    fingerprint: str
    attribute: str
    score_range: tuple[float, float]
    num_ratings: int
    strength: float | None = None
    general_srcc: float | None = None
    personal_srcc: float | None = None
    version: str = __version__

    def __post_init__(self) -> None:
        low, high = self.score_range
        if self.weight.ndim != 1 or not np.isfinite([*self.weight, self.bias]).all() or not low < high:
            raise ValueError("expected one finite weight per feature, a finite bias and a range from low to high")

    def personal_scores(self, general: Array, features: Array) -> Array:
        """
        Scores of this person.

        Args:
            general (`np.ndarray` of shape `(n,)`): The model's scores, in `score_range`.
            features (`np.ndarray` of shape `(n, num_features)`): What the model's score head read.

        Returns:
            `np.ndarray` of shape `(n,)`, in `score_range`.
        """
        scores = general + features.astype(np.float64) @ self.weight + self.bias
        return np.asarray(np.clip(scores, *self.score_range))

    def check_model(self, model: Any) -> None:
        """
        Refuse a model whose features or scores this taste was not fitted on.

        Raises:
            ValueError: With what the taste was made for and what came.
        """
        advice = "take the model that it was made for, or make a taste for this one with `roc4mllm personalize`"
        its = identity(model, self.attribute)
        for name, words in (("attribute", "attribute"), ("score_range", "the score range")):
            if getattr(self, name) != its[name]:
                raise ValueError(
                    f"this personal taste was made for {words} {in_words(getattr(self, name))}, but the model has "
                    f"{in_words(its[name])}; {advice}"
                )
        if self.fingerprint != its["fingerprint"]:
            mine, other = (in_words(name) for name in (self.model, its["model"]))
            raise ValueError(
                f"this personal taste was made for the model {mine}, but {'this' if mine == other else other} has "
                f"other weights or another config; {advice}"
            )
        if not takes_features(model.score_head, len(self.weight)):
            raise ValueError(
                f"this personal taste was made for {len(self.weight)} features, which the model's score head does "
                f"not read; {advice}"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """
        Write a safetensors file, numbers in float32, all else in its metadata.

        Raises:
            OSError: If the file cannot be written there.
        """
        fields = {name: value for name, value in asdict(self).items() if name not in ("weight", "bias")}
        metadata = {"format": FORMAT} | {name: json.dumps(value) for name, value in fields.items()}
        tensors = {"weight": self.weight, "bias": np.array([self.bias], dtype=np.float32)}
        write_whole(path, save(tensors, metadata))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "PersonalTaste":
        """
        Read what `save` wrote.

        Raises:
            ValueError: If the file is none of these.
            OSError: If there is no such file, or it cannot be read.
        """
        Path(path).open("rb").close()  # an error of the operating system, which tells why
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.pop("format", None) != FORMAT:
                    raise ValueError(f"its metadata do not say {FORMAT!r}")
                weight, bias = file.get_tensor("weight"), float(file.get_tensor("bias").item())
            fields = {name: json.loads(value) for name, value in metadata.items()}
            return cls(weight=weight, bias=bias, **fields | {"score_range": tuple(fields["score_range"])})
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{os.fspath(path)!r} is no personal taste of `roc4mllm personalize`: {error}") from error


def identity(model: Any, attribute: str) -> dict[str, Any]:
    """What tells a model and its attribute, or its first one where it lacks that, from others, by field of a taste."""
    names = list(model.config.attributes)
    known = attribute if attribute in names else names[0]
    low, high = attribute_range(model.config, names.index(known))
    return {
        "model": model_id(model),
        "revision": revision_of(model),
        "attribute": known,
        "score_range": (low, high),
        "fingerprint": fingerprint(model),
    }


def fingerprint(model: Any) -> str:
    """
    What tells a model's features from another's, without a forward pass: a hash of its config and of the name, shape
    and a sample of each parameter and saved buffer, all of it up to 4096 numbers.

    Numbers are rounded to bfloat16, so that a model has one fingerprint on every device, and in float32 as in
    bfloat16. In float16, which neither holds the smallest of them nor rounds alike, it may have another. Of weights
    that are offloaded only names and shapes count.
    """
    digest = sha256(json.dumps(feature_fields(model.config.to_dict()), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        if not tensor.is_meta:
            numbers = sample(tensor.detach())
            rounded = numbers.bfloat16().float() if numbers.is_floating_point() else numbers
            digest.update(rounded.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def sample(tensor: torch.Tensor) -> torch.Tensor:
    """About as many numbers of a large tensor, in odd steps, so that they fall on all columns of a matrix."""
    step = 1 if tensor.numel() <= 4 * SAMPLE else tensor.numel() // SAMPLE | 1
    return tensor.reshape(-1)[::step]


def feature_fields(fields: Any) -> Any:
    """A config's fields, nested ones too, that may change features; without those that are not set."""
    if not isinstance(fields, dict):
        return fields
    return {
        str(name): feature_fields(value)
        for name, value in fields.items()
        if value is not None and not str(name).startswith("_") and name not in NO_FEATURES
    }


def takes_features(score_head: torch.nn.Module, count: int) -> bool:
    """Whether a head, which may have layers of its own, reads that many features."""
    like = next(score_head.parameters())
    try:
        with torch.no_grad():
            score_head(like.new_zeros(1, count))
    except RuntimeError:
        return False
    return True


def in_words(value: Any) -> str:
    """A value in a message: `1 to 7` for a range, `'aesthetics'` for a name."""
    return " to ".join(f"{end:g}" for end in value) if isinstance(value, tuple) else repr(value)


# Fitting -------------------------------------------------------------------------------------------------------------


def fit_taste(
    model: Any, attribute: str, features: Array, general: Array, ratings: Array
) -> tuple[PersonalTaste, Array]:
    """
    The taste behind ratings, and personal scores of the same pictures by heads that never saw them.

    Args:
        model (`PreTrainedModel`): The model that scored.
        attribute (`str`): What was rated.
        features (`np.ndarray` of shape `(n, num_features)`): What its score head read.
        general (`np.ndarray` of shape `(n,)`): Its scores.
        ratings (`np.ndarray` of shape `(n,)`): The person's, in the same units.

    Returns:
        `tuple`: the taste, and scores `(n,)` that tell what it is worth.

    Raises:
        ValueError: If there are fewer than five ratings.
    """
    if len(ratings) < FEWEST_RATINGS:
        raise ValueError(f"a taste needs {FEWEST_RATINGS} rated pictures at least, got {len(ratings)}")
    weight, bias, strength = fit_ridge(features, ratings - general)
    taste = PersonalTaste(
        weight=weight.astype(np.float32),
        bias=bias,
        **identity(model, attribute),
        num_ratings=len(ratings),
        strength=None if np.isinf(strength) else strength,
    )
    return taste, left_out_scores(features, general, ratings, taste.score_range)


def left_out_scores(features: Array, general: Array, ratings: Array, score_range: tuple[float, float]) -> Array:
    """
    Personal scores `(n,)` of pictures by heads that never saw them, the strength of the ridge chosen without them too.

    Each picture is left out by itself, of more than a hundred each twentieth together. The mean of the deviations is
    that of all: where a picture is left out, the mean of the others lies on the far side of it, which would turn the
    ranks of pictures round without any head having been wrong.
    """
    deviations, scores = ratings - general, np.array(general, dtype=np.float64)
    parts = len(ratings) if len(ratings) <= MOST_SINGLE else 20
    for part in range(parts):
        out = np.arange(len(ratings)) % parts == part  # (n,)
        weight, _, _ = fit_ridge(features[~out], deviations[~out])
        scores[out] += (features[out] - features[~out].mean(0)) @ weight
    return np.asarray(np.clip(scores + deviations.mean(), *score_range))


def fit_ridge(features: Array, deviations: Array) -> tuple[Array, float, float]:
    """
    Ridge regression on standardised features, its strength the one with the least leave-one-out error.

    Args:
        features (`np.ndarray` of shape `(n, num_features)`): Inputs, usually more than there are pictures.
        deviations (`np.ndarray` of shape `(n,)`): Targets.

    Returns:
        `tuple`: weights `(num_features,)` and bias for the features as they came, and the strength; infinite where the
        weights are 0.
    """
    features = features.astype(np.float64)
    mean, spread = features.mean(0), features.std(0)  # (C,)
    varies = spread > 1e-6 * np.abs(features).max(0)  # more than float32 rounds
    scale = np.divide(1, spread * np.sqrt(len(spread)), out=np.zeros_like(spread), where=varies)  # (C,)
    inputs = (features - mean) * scale  # (n, C)
    eigenvalues, vectors = eigenvectors_of(inputs)  # (m,), (n, m)
    middle = deviations.mean()
    targets = deviations - middle  # (n,)
    strength = STRENGTHS[leave_one_out_errors(eigenvalues, vectors, targets).argmin()]
    weight = scale * (inputs.T @ (vectors @ (vectors.T @ targets / (eigenvalues + strength))))  # (C,)
    return weight, float(middle - mean @ weight), float(strength) if weight.any() else np.inf


def eigenvectors_of(inputs: Array) -> tuple[Array, Array]:
    """Eigenvalues `(m,)` and vectors `(n, m)` of the products of `(n, C)` inputs, without those that must be 0."""
    if len(inputs) > inputs.shape[1]:  # n³ steps would take minutes of 2000 pictures
        vectors, singular, _ = np.linalg.svd(inputs, full_matrices=False)
        return singular**2, vectors
    eigenvalues, vectors = np.linalg.eigh(inputs @ inputs.T)
    return eigenvalues.clip(min=0), vectors  # below 0 by rounding


def leave_one_out_errors(eigenvalues: Array, vectors: Array, targets: Array) -> Array:
    """
    Mean squared error, `(K,)`, of each strength on pictures left out one by one, in closed form: the residual of a
    picture over 1 − h, h its own weight in its fitted value (PRESS; Allen, Technometrics 1974).

    Args:
        eigenvalues (`np.ndarray` of shape `(m,)`), vectors (`np.ndarray` of shape `(n, m)`): Of the inputs' products.
        targets (`np.ndarray` of shape `(n,)`): Centred.
    """
    kept = eigenvalues / (eigenvalues + STRENGTHS[:, None])  # (K, m), how much of each vector is fitted
    residuals = targets - (kept * (vectors.T @ targets)) @ vectors.T  # (K, n)
    own = 1 / len(targets) + kept @ (vectors**2).T  # (K, n), the mean included
    return np.asarray(((residuals / (1 - own)) ** 2).mean(-1))


__all__ = ["PersonalTaste", "fit_taste", "in_words"]
