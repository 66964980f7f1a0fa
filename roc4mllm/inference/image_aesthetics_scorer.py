"""
A scorer for data frameworks: `Dataset.map` of datasets, `map_batches` of Ray Data, `collate_fn` of a torch DataLoader.

It holds a name and options, and loads the model in the process that first calls it, once.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..processing_roc4mllm.pipeline_image_aesthetics import is_picture
from .cascade import Cascade
from .load_scorer import load_scorer
from .tables.score_formats import parquet_schema
from .tables.score_table import Row, make_row, table_columns

IMPORTED_BY = os.getpid()
OF_ONE_MODEL = ("revision", "backbone", "processor", "image_processor")  # options that fit no second model


class ImageAestheticsScorer:
    """
    Scores batches of pictures.

    ```python
    >>> scorer = ImageAestheticsScorer("user/scorer")
    >>> data.with_format("arrow").map(scorer, batched=True, batch_size=100)  # datasets
    >>> data.map_batches(scorer, batch_format="pyarrow")  # Ray Data; also the class, as an actor pool
    >>> DataLoader(paths, batch_size=8, collate_fn=scorer)  # torch
    ```

    Tables of Arrow go in and out with their types. A `dict` of lists does as well, but `datasets` takes the type of a
    column from the first batch: with no failure in it, `error` could hold no text later (or pass `features=`).

    A DataLoader's workers score on a GPU only if they are spawned (`multiprocessing_context="spawn"`): CUDA does not
    survive a fork.

    Args:
        model (`str`, *optional*): As in [`load_scorer`]; the bundled model by default.
        column (`str`, *optional*, defaults to `"image"`): Which column of a batch holds the pictures: paths, bytes,
            PIL images, arrays or `{"bytes", "path"}`.
        attributes (sequence of `str`, *optional*): What to score; all of the model's by default.
        alias (`str`, *optional*): Name under which the score stands a second time.
        batch_size (`int`, *optional*, defaults to 8): Pictures per forward pass.
        cascade (`str`, *optional*): A faster model that looks at every picture, as in [`Cascade`]; `model` then scores
            only those in the band.
        band (`tuple[float, float]`, *optional*): Lowest and highest score of the faster model that `model` looks at.
        **options: As in [`load_scorer`]: `device`, `dtype`, `revision`, `allow_untrained`, …; those that say where a
            model lies are of `model` alone.

    Raises:
        ValueError: If only one of `cascade` and `band` is given, or a personal taste beside them.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        column: str = "image",
        attributes: Sequence[str] | None = None,
        alias: str | None = None,
        batch_size: int = 8,
        cascade: Any = None,
        band: tuple[float, float] | None = None,
        **options: Any,
    ) -> None:
        if (cascade is None) != (band is None) or (cascade is not None and options.get("personal") is not None):
            raise ValueError("expected cascade= and band= together, and no personal= beside them")
        self.model, self.column, self.alias, self.batch_size, self.options = model, column, alias, batch_size, options
        self.cascade, self.band = cascade, band
        self.attributes = None if attributes is None else list(attributes)
        self._scorer: Any = None

    @property
    def scorer(self) -> Any:
        """The pipeline or [`Cascade`], loaded when it is first asked for."""
        if self._scorer is None:
            use_one_thread_in_forks()
            self._scorer = load_scorer(self.model, **self.options)
            if self.cascade is not None and self.band is not None:
                common = {name: value for name, value in self.options.items() if name not in OF_ONE_MODEL}
                self._scorer = Cascade(load_scorer(self.cascade, **common), self._scorer, self.band, self.attributes)
        return self._scorer

    def __getstate__(self) -> dict[str, Any]:
        # Not the weights: other processes load their own, and `datasets` hashes what it maps with.
        return self.__dict__ | {"_scorer": None}

    def __call__(self, batch: Any) -> Any:
        """
        Args:
            batch (`pyarrow.Table`, `pandas.DataFrame`, mapping or sequence): Columns, one of which holds pictures; or
                pictures.

        Returns:
            The batch with the columns of `roc4mllm score` but `path` added, of the type that came, with lists in a
            mapping; for a sequence, a `list[dict]` of rows. A picture that fails has an `error` and no score.

        Raises:
            ValueError: If there is no such column, or one that would be added is there.
            TypeError: If `batch` is a single row.
        """
        if hasattr(batch, "column_names"):
            return self._with_table(batch)
        if hasattr(batch, "assign"):
            return batch.assign(**self._new_columns({name: batch[name] for name in batch.columns}))
        if not isinstance(batch, Mapping):
            check_several(batch, "place of a list")
            return self.rows(list(batch))
        return {**batch, **self._new_columns(batch)}

    def _new_columns(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """What is added to columns."""
        self._check_columns(list(batch))
        check_several(batch[self.column], repr(self.column))
        rows = self.rows(list(batch[self.column]))
        return {name: [row[name] for row in rows] for name in self.columns}

    def _with_table(self, table: Any) -> Any:
        """A table with typed columns: of a list of `None`, as errors are, one would become that can hold no text."""
        import pyarrow  # type: ignore[import-untyped]

        self._check_columns(table.column_names)
        rows = self.rows(table[self.column].to_pylist())
        for field in parquet_schema(self.columns):
            table = table.append_column(field, pyarrow.array([row[field.name] for row in rows], field.type))
        return table

    def _check_columns(self, names: Sequence[str]) -> None:
        if self.column not in names:
            raise ValueError(f"the batch has no column {self.column!r}; it has {', '.join(names)}: say column=…")
        if taken := sorted(set(self.columns) & set(names)):
            raise ValueError(f"the batch has columns {', '.join(taken)} already: rename them first")

    @property
    def columns(self) -> list[str]:
        """The columns that are added to a batch."""
        beside = Cascade.columns if self.cascade is not None else ()
        return table_columns(self._attributes(), self.alias, beside)[1:]

    def rows(self, pictures: Sequence[Any]) -> list[Row]:
        """The rows of pictures, as `roc4mllm score` writes them; `path` is `None` for what is no path."""
        attributes = self._attributes()
        records = self.scorer(pictures, batch_size=self.batch_size, attributes=attributes)
        rows = [make_row("", record, attributes, self.alias) for record in records]
        return [
            row | {"path": picture if isinstance(picture, str) else None}
            for row, picture in zip(rows, pictures, strict=True)
        ]

    def _attributes(self) -> list[str]:
        return self.attributes or list(self.scorer.model.config.attributes)


def check_several(pictures: Any, place: str) -> None:
    """Refuse one picture where several should be: a text would be taken for its letters."""
    if is_picture(pictures) and not hasattr(pictures, "ndim"):  # an array of three axes may be several greys
        raise TypeError(f"got one {type(pictures).__name__} in {place}; pass batches (batched=True)")


def use_one_thread_in_forks() -> None:
    """
    Keep a forked process from waiting for ever: OpenMP's threads stay behind in the process that it was forked from.

    Both `datasets` with `num_proc` and torch's workers fork; the latter do this themselves.
    """
    if os.getpid() != IMPORTED_BY:
        import torch

        torch.set_num_threads(1)


__all__ = ["ImageAestheticsScorer"]
