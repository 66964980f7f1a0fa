"""
A scorer for data frameworks: `Dataset.map` of datasets, `map_batches` of Ray Data, `collate_fn` of a torch DataLoader.

It holds a name and options, and loads the model in the process that first calls it, once.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .load_scorer import load_scorer
from .score_table import Row, make_row, table_columns

IMPORTED_BY = os.getpid()


class ImageAestheticsScorer:
    """
    Scores batches of pictures.

    ```python
    >>> data.map(ImageAestheticsScorer("user/scorer"), batched=True)  # datasets
    >>> data.map_batches(ImageAestheticsScorer, fn_constructor_kwargs={"model": "user/scorer"}, concurrency=2)  # Ray
    >>> DataLoader(paths, batch_size=8, collate_fn=ImageAestheticsScorer("user/scorer"))  # torch
    ```

    Args:
        model (`str`, *optional*): As in [`load_scorer`]; the bundled model by default.
        column (`str`, *optional*, defaults to `"image"`): Which column of a batch holds the pictures: paths, bytes,
            PIL images, arrays or `{"bytes", "path"}`.
        attributes (sequence of `str`, *optional*): What to score; all of the model's by default.
        alias (`str`, *optional*): Name under which the score stands a second time.
        batch_size (`int`, *optional*, defaults to 8): Pictures per forward pass.
        **options: As in [`load_scorer`]: `device`, `dtype`, `revision`, `allow_untrained`, ….
    """

    def __init__(
        self,
        model: Any = None,
        *,
        column: str = "image",
        attributes: Sequence[str] | None = None,
        alias: str | None = None,
        batch_size: int = 8,
        **options: Any,
    ) -> None:
        self.model, self.column, self.alias, self.batch_size, self.options = model, column, alias, batch_size, options
        self.attributes = None if attributes is None else list(attributes)
        self._scorer: Any = None

    @property
    def scorer(self) -> Any:
        """The pipeline, loaded when it is first asked for."""
        if self._scorer is None:
            use_one_thread_in_forks()
            self._scorer = load_scorer(self.model, **self.options)
        return self._scorer

    def __getstate__(self) -> dict[str, Any]:
        # Not the weights: other processes load their own, and `datasets` hashes what it maps with.
        return self.__dict__ | {"_scorer": None}

    def __call__(self, batch: Any) -> Any:
        """
        Args:
            batch (mapping or sequence): Columns, one of which holds pictures; or pictures.

        Returns:
            `dict`: the batch with the columns of `roc4mllm score` but `path` added, as lists; or, for a sequence, a
            `list[dict]` of rows. A picture that fails has an `error` and no score.

        Raises:
            ValueError: If there is no such column, or one that would be added is there.
        """
        if not isinstance(batch, Mapping):
            return self.rows(list(batch))
        if self.column not in batch:
            raise ValueError(f"the batch has no column {self.column!r}; it has {', '.join(batch)}: say column=…")
        if taken := sorted(set(self.columns) & set(batch)):
            raise ValueError(f"the batch has columns {', '.join(taken)} already: rename them first")
        rows = self.rows(list(batch[self.column]))
        return {**batch, **{name: [row[name] for row in rows] for name in self.columns}}

    @property
    def columns(self) -> list[str]:
        """The columns that are added to a batch."""
        return table_columns(self._attributes(), self.alias)[1:]

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


def use_one_thread_in_forks() -> None:
    """
    Keep a forked process from waiting for ever: OpenMP's threads stay behind in the process that it was forked from.

    Both `datasets` with `num_proc` and torch's workers fork; the latter do this themselves.
    """
    if os.getpid() != IMPORTED_BY:
        import torch

        torch.set_num_threads(1)


__all__ = ["ImageAestheticsScorer"]
