"""
The pipeline of the task "image-aesthetics": pictures in, records with declared units out, for every family.

Promises: one record per input, in input order; a failure is a record without a score and with an error, never a
number; the same picture gets the same score whatever stands beside it in a batch.
"""

from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import Pipeline
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import logging

from .comments_aesthetics import CommentInputs, write_comments
from .image_reading_aesthetics import PictureError, read_image
from .picture_batches_aesthetics import REFUSALS, Batch, PicturePreparation, describe
from .picture_stream_aesthetics import batches
from .prompt_roc4mllm import check_attributes

__version__ = "0.1.0"

logger = logging.get_logger(__name__)


class ImageAestheticsPipeline(Pipeline):
    """
    Scores pictures.

    ```python
    >>> from transformers import pipeline

    >>> scorer = pipeline("image-aesthetics")
    >>> scorer("photo.jpg")["score"]
    >>> scorer(["a.jpg", "broken.jpg"], batch_size=8)
    ```

    Args:
        allow_untrained (`bool`, *optional*, defaults to `False`): Accept a model whose score head was never trained.
        **kwargs: As in [`~transformers.Pipeline`]; also every option of [`~ImageAestheticsPipeline.__call__`].

    Raises:
        ValueError: If the model was never trained to score, has no processor, or disagrees with its processor.
    """

    _load_processor = None  # multimodal models have a processor …
    _load_image_processor = None  # … and vision models a bare image processor
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_video_processor = False
    _pipeline_calls_generate = False
    _row_values: tuple[str, ...] = ("scores", "std", "distribution")  # what a raw result holds of the output

    def __init__(self, model, *args, allow_untrained: bool = False, **kwargs):
        check_scorer(model, allow_untrained)
        kwargs.pop("local_files_only", None)  # `pipeline` has used it, and hands it on as if it were ours
        super().__init__(model, *args, **kwargs)
        check_processor(self.model.config, self.processor, self.image_processor)

    # ---- calling ------------------------------------------------------------------------------------------------

    def __call__(self, inputs, *, batch_size: int | None = None, num_workers: int | None = None, **kwargs):
        """
        Args:
            inputs: One picture (path, URL, bytes, PIL image, array, tensor), or several: a list, a tensor
                `(B, 3, H, W)`, a column of a `datasets` data set, a generator.
            batch_size (`int`, *optional*, defaults to 1): Pictures per forward pass. A batch out of memory is halved,
                down to one, before a picture fails.
            num_workers (`int`, *optional*, defaults to 0): Processes that read and prepare pictures.
            text (`bool`, *optional*): Add `text`, a comment with the score in it.
            forced (`bool`, *optional*, defaults to `True`): With `text`, begin with the scoring sentence; `False`
                lets the model write freely and adds `text_scores`, the scores at the positions in that text.
            max_new_tokens (`int`, *optional*, defaults to 64): Longest comment, in tokens.
            question (`str`, *optional*): What the model is asked; the processor's own by default.
            attributes (`list[str]`, *optional*): Tell only these; `score` is the first one's. The model is asked for
                all of them in the order of its training: in another sentence its numbers would be others.
            strict (`bool`, *optional*, defaults to `False`): Raise at the first picture that fails.

        Returns:
            One record (`dict`) for one picture, a list for a list, an iterator for a generator. Keys: `score`,
            `score_range`, `higher_is_better`, `normalized` (0–1), `std`, `distribution`, `attributes`, `model`,
            `revision`, `version`, `error`.

        Raises:
            PictureError: With `strict`, if a picture fails.
        """
        batch_size = self._batch_size or 1 if batch_size is None else batch_size
        num_workers = self._num_workers or 0 if num_workers is None else num_workers
        params = zip(
            (self._preprocess_params, self._forward_params, self._postprocess_params),
            self._sanitize_parameters(**kwargs),
            strict=True,
        )
        preprocess, forward, postprocess = ({**fixed, **given} for fixed, given in params)
        if is_picture(inputs):
            return self.run_single(inputs, preprocess, forward, postprocess)
        records = self.get_iterator(inputs, num_workers, batch_size, preprocess, forward, postprocess)
        return records if is_stream(inputs) else list(records)

    def score(self, images: Sequence, **kwargs) -> torch.Tensor:
        """
        Scores of a list of pictures as a tensor of shape `(num_images,)`, in `model.config.score_range`, as users of
        Q-Align's `model.score` know it. A picture that fails raises.
        """
        images = [images] if is_picture(images) else list(images)
        return torch.tensor([record["score"] for record in self(images, strict=True, **kwargs)])

    def _sanitize_parameters(
        self, question=None, attributes=None, text=None, forced=None, max_new_tokens=None, strict=None
    ):
        if self.processor is None and (question is not None or text):
            raise ValueError(
                f"{type(self.model).__name__} has no language model: it takes no question, writes no text."
            )
        if max_new_tokens is not None and not (isinstance(max_new_tokens, Integral) and int(max_new_tokens) > 0):
            raise ValueError(f"max_new_tokens must be a whole number of at least 1, got {max_new_tokens!r}.")
        if self.processor is not None:  # what is wrong with the words is said once, not for every picture
            self.processor.check_words(question, attributes)
        preprocess = {"question": question}
        forward = preprocess | {"text": text, "forced": forced, "max_new_tokens": max_new_tokens}
        postprocess = {"attributes": attributes, "strict": strict}
        check_attributes(attributes, self.model.config.attributes)
        return tuple(
            {name: value for name, value in params.items() if value is not None}
            for params in (preprocess, forward, postprocess)
        )

    def get_iterator(self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params):
        """Records of many pictures, as they come."""
        preparation = self.preparation(**preprocess_params)
        self.model.eval()  # a Trainer may have left dropout on
        position, waiting = 0, {}
        for batch in batches(inputs, preparation, batch_size, num_workers):
            rows = self._rows(batch, preparation, forward_params)
            waiting |= {place: (row, batch, i) for i, (place, row) in enumerate(zip(batch.places, rows, strict=True))}
            while position in waiting:  # batches of pictures of one size come out of order
                row, of, index = waiting.pop(position)
                source = of.sources[index] if "error" in row else None  # fetched anew, to be named
                yield self.postprocess(row, source=source, position=position, **postprocess_params)
                position += 1

    def run_single(self, inputs, preprocess_params, forward_params, postprocess_params):
        """The record of one picture."""
        return next(self.get_iterator([inputs], 0, 1, preprocess_params, forward_params, postprocess_params))

    # ---- the steps ------------------------------------------------------------------------------------------------

    def preparation(self, question=None) -> PicturePreparation:
        """How this model's pictures are prepared."""
        if self.processor is not None:
            return PicturePreparation(self.processor, {"text": question})
        return PicturePreparation(self.image_processor, {"return_tensors": "pt"})

    def preprocess(self, source, **preprocess_params) -> Batch:
        """A batch of one."""
        return self.preparation(**preprocess_params)([source])

    def _rows(self, batch: Batch, preparation: PicturePreparation, forward_params: dict) -> list[dict]:
        """One dict of raw results, or of an error, per source. A batch that fails is halved down to one."""
        rows: list[dict] = [{"error": error} for error in batch.errors]
        if not batch.good:
            return rows
        results, failure = self._results(batch, forward_params)
        if failure is not None:
            return self._rows_of_halves(batch, preparation, forward_params, rows, failure)
        for index, result in zip(batch.good, results, strict=True):
            rows[index] = result
        return rows

    def _results(self, batch: Batch, forward_params: dict) -> tuple[list[dict], str | None]:
        """
        Raw results of the good pictures, or why there are none.

        Only the text of an error leaves this function: its traceback holds the activations of the failed batch, and
        the halves need that memory.
        """
        if batch.failure is not None:
            return [], batch.failure
        try:
            return self.forward(batch, **forward_params), None
        except REFUSALS as error:
            if is_device_lost(error) or is_of_a_reader(error):
                raise  # every batch from now on would fail alike; it is not the picture's fault
            return [], describe(error)

    def _rows_of_halves(self, batch, preparation, forward_params, rows, failure: str) -> list[dict]:
        good = batch.good
        if len(good) == 1:
            rows[good[0]] = {"error": failure}
            return rows
        logger.warning(f"A batch of {len(good)} pictures failed ({failure}); trying halves of it.")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(good) // 2
        for part in (good[:half], good[half:]):
            again = preparation([batch.sources[index] for index in part])
            for index, row in zip(part, self._rows(again, preparation, forward_params), strict=True):
                rows[index] = row
        return rows

    def _ensure_tensor_on_device(self, inputs, device):
        if isinstance(inputs, Batch):
            moved = None if inputs.inputs is None else inputs.inputs.to(device)
            return Batch(inputs.sources, inputs.errors, moved)
        return super()._ensure_tensor_on_device(inputs, device)

    def _score(self, inputs):
        """The model's output; a scorer with something to add overwrites this."""
        return self.model(**inputs)

    def _forward(self, batch: Batch, text=False, forced=True, max_new_tokens=64, **preprocess_params) -> list[dict]:
        """Raw results of each good picture: `(A,)` scores, std, `(A, N)` distribution."""
        output = self._score(batch.inputs.to(self.model.dtype))  # of the floating point inputs only
        # one transfer per batch: (B, A), (B, A), (B, A, N)
        values = {name: output[name].cpu() for name in self._row_values if name in output}
        values["finite"] = finite_rows(output).cpu()  # (B, A)
        rows: list[dict] = [{name: value[row] for name, value in values.items()} for row in range(len(output.scores))]
        if text:
            pictures = [read_image(batch.sources[index]) for index in batch.good]
            question = preprocess_params.get("question")
            prompts = CommentInputs(self.processor, pictures, question, forced, max_new_tokens)
            for row, comment in zip(
                rows, write_comments(self.model, self.processor, prompts, output.scores), strict=True
            ):
                row.update(comment)
        return rows

    def postprocess(self, row: dict, source=None, position: int = 0, attributes=None, strict: bool = False) -> dict:
        """The record of one picture."""
        config = self.model.config
        names = list(attributes or config.attributes)
        columns = [list(config.attributes).index(name) for name in names]
        record = self._empty_record(names, columns)
        error = row.get("error")
        if error is None and not row["finite"][columns].all():
            error = "the model's output is not finite (NaN or Inf)"
        if error is not None:
            if strict:
                raise PictureError(f"{named(source, position)}: {error}")
            return record | {"error": error}
        ranges = [attribute_range(config, column) for column in columns]
        scores = [
            min(max(row["scores"][column].item(), low), high)  # float32 knows no 0.3, but 0.30000001
            for column, (low, high) in zip(columns, ranges, strict=True)
        ]
        low, high = ranges[0]
        record["score"], record["normalized"] = scores[0], (scores[0] - low) / (high - low)
        record["attributes"] = dict(zip(names, scores, strict=True))
        for key in ("std", "distribution"):
            if key in row:
                record[key] = row[key][columns[0]].tolist()
        return record | {key: row[key] for key in ("text", "text_scores") if key in row}

    def _empty_record(self, names: list[str], columns: list[int]) -> dict:
        """A record with all that is known without the picture."""
        config = self.model.config
        ranges = dict(zip(names, (attribute_range(config, column) for column in columns), strict=True))
        record = {
            "score": None,
            "score_range": ranges[names[0]],
            "higher_is_better": config.higher_is_better,
            "normalized": None,
            "std": None,
            "distribution": None,
            "attributes": dict.fromkeys(names),
            "model": model_id(self.model),
            "revision": revision_of(self.model),
            "version": __version__,
            "error": None,
        }
        return record | ({"attribute_ranges": ranges} if has_range_per_attribute(config) else {})

    def save_pretrained(self, save_directory, **kwargs):
        """
        Save model, processor and the code that a process without this package needs.

        transformers saves tokenizer and image processor but no processor, and would write the task's default model,
        a folder of this machine, into the config.
        """
        if hasattr(self, "_registered_impl"):
            self._registered_impl = {
                task: {key: value for key, value in info.items() if key != "default"}
                for task, info in self._registered_impl.items()
            }
        super().save_pretrained(save_directory, **kwargs)
        custom_object_save(self, save_directory)
        if self.processor is not None:
            self.processor.save_pretrained(save_directory)


def is_device_lost(error: Exception) -> bool:
    """Whether the accelerator is of no more use to this process; out of memory is not that."""
    return isinstance(error, getattr(torch, "AcceleratorError", ())) and not isinstance(error, torch.OutOfMemoryError)


def is_of_a_reader(error: Exception) -> bool:
    """Whether a reading process was killed: torch tells of it by a signal, in whatever is being done just then."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker")


def check_scorer(model, allow_untrained: bool) -> None:
    """Refuse a model that does not score, or whose score head was never trained."""
    if not hasattr(getattr(model, "config", None), "score_range"):
        raise ValueError(
            f"{type(model).__name__} is no image-aesthetics model: its config declares no score_range. To make one of "
            "a multimodal LLM, use ROC4MLLMForImageAesthetics.from_backbone."
        )
    if not (allow_untrained or getattr(model.config, "score_head_trained", True)):
        raise ValueError(
            "This head was never trained: every score would be near the middle of the range. Train the model first "
            "(and set `model.config.score_head_trained = True` after a training of your own), or pass "
            "allow_untrained=True to try it anyway."
        )


def check_processor(config, processor, image_processor) -> None:
    """Refuse a model whose processor is missing or belongs to another model."""
    token_id = getattr(config, "score_token_id", None)
    if processor is None and (image_processor is None or token_id is not None):
        raise ValueError(
            "This model needs its processor, which was not found or could not be loaded. Pass `processor=`, or see "
            "why `AutoProcessor.from_pretrained` fails on the model's folder."
        )
    if token_id is None:
        return
    for name, ours in (("score_token_id", token_id), ("attributes", list(config.attributes))):
        theirs = getattr(processor, name, None)
        if theirs != ours:
            raise ValueError(
                f"Model and processor disagree: {name} is {ours!r} in the model, {theirs!r} in the processor."
            )


def has_range_per_attribute(config) -> bool:
    """Whether `config.score_range` holds a `(min, max)` per attribute rather than one for all."""
    return isinstance(config.score_range[0], Sequence)


def attribute_range(config, column: int) -> list[float]:
    """`[min, max]` of one attribute."""
    pair = config.score_range[column] if has_range_per_attribute(config) else config.score_range
    return [float(end) for end in pair]


def finite_rows(output) -> torch.Tensor:
    """Where scores and the levels behind them are finite, `(B, A)`: a level of −Inf passes as a probability of 0."""
    finite = torch.isfinite(output.scores)
    return finite if output.logits is None else finite & torch.isfinite(output.logits).all(-1)


def is_picture(inputs) -> bool:
    """Whether `inputs` is one picture rather than several; an open file, which yields its lines, is not several."""
    if isinstance(inputs, str | Path | bytes | bytearray | memoryview | dict) or hasattr(inputs, "read"):
        return True
    if hasattr(inputs, "ndim"):  # an array or tensor; of one axis: a column of paths
        return inputs.ndim not in (1, 4)
    return not isinstance(inputs, Iterable) and not (hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__"))


def is_stream(inputs) -> bool:
    """Whether records are handed out as they come, rather than in a list."""
    return isinstance(inputs, Iterator | Dataset) or not hasattr(inputs, "__len__")


def model_id(model) -> str:
    """Hub name of a model, or the name of its folder without the path."""
    name = model.config.name_or_path or type(model).__name__
    return Path(name).absolute().name if Path(name).is_dir() else name


def revision_of(model) -> str | None:
    """The fingerprint that was taken of a model's folder when it was loaded, or else its revision on the Hub."""
    return getattr(model, "folder_revision", None) or getattr(model, "loaded_revision", None)


def named(source, position: int) -> str:
    """A source in an error message: its path, else where it stands among the inputs."""
    if isinstance(source, dict) and isinstance(source.get("path"), str):
        source = source["path"]
    if isinstance(source, str | Path):
        return str(source).encode("utf-8", "backslashreplace").decode()  # a name need not be UTF-8, a log must
    return f"inputs[{position}] ({type(source).__name__})"


__all__ = ["ImageAestheticsPipeline"]
