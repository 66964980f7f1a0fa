"""
What runs in the actors of Ray: the model, and for what happens when a picture kills its process, a note that outlives
it.

Ray starts an actor anew that was killed, and gives it the block again, without end. So a block that was begun before
is scored picture by picture, each noted before it is read: the one that kills twice more becomes a row with an error.
An actor that is killed again and again while it loads the model, as where memory is short, gives up.
"""

import json
from collections.abc import Iterator
from typing import Any

from ..processing_roc4mllm.picture_batches_aesthetics import Unreadable
from .cascade import Cascade
from .freed_memory import keep_freed_memory
from .image_aesthetics_scorer import ImageAestheticsScorer
from .ray_blocks import read_ahead

ATTEMPTS = 3  # of a picture: once among others, then alone; of loading the model


class BlockScorer:
    """
    What an actor runs: a scorer that is loaded when the actor starts.

    Args:
        scorer ([`ImageAestheticsScorer`]): Names the model.
        threads (`int`): Of the model.
        options (`dict`): Of each call of the scorer.
        notes (handle of an actor): What `start_notes` returned.

    Raises:
        RuntimeError: If this actor was killed before, each time that it loaded the model.
    """

    def __init__(self, scorer: ImageAestheticsScorer, threads: int, options: dict[str, Any], notes: Any) -> None:
        import ray
        import torch

        torch.set_num_threads(threads)
        self.options, self.notes = options, notes
        actor = ray.get_runtime_context().get_actor_id()  # the same after a restart
        if self._note("load", actor) > ATTEMPTS:
            raise RuntimeError(f"a process that loads the model was killed {ATTEMPTS} times; is there memory for it?")
        self.scorer = scorer.scorer
        self._note("loaded", actor)
        if self.scorer.model.device.type == "cpu":
            keep_freed_memory()

    def __call__(self, block: Any) -> Any:
        """The records of a block of pictures, in its order."""
        import pyarrow  # type: ignore[import-untyped]

        rows = block.to_pylist()
        first = rows[0]["place"]
        deaths = self._note("begin", first)
        records = self._together(rows) if deaths is None else None
        if records is None:
            records = list(self._one_by_one(rows, deaths or {}))
        self._note("finish", first)
        totals = [json.dumps(self.scorer.take_totals())] if isinstance(self.scorer, Cascade) else [None]
        columns = {"record": [json.dumps(record) for record in records], "totals": totals + [None] * (len(rows) - 1)}
        return pyarrow.table({"place": block["place"], "path": block["path"], **columns})

    def _together(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """Records of a block; `None` if one of the processes that read for it was killed."""
        try:
            return list(self.scorer(read_ahead(rows), **self.options))
        except RuntimeError:  # as torch tells it; what is wrong with the scorer itself comes again, one by one
            if not self.options.get("num_workers"):
                raise
            return None

    def _one_by_one(self, rows: list[dict[str, Any]], deaths: dict[int, int]) -> Iterator[dict[str, Any]]:
        """Records of a block at which a process was killed."""
        options = self.options | {"num_workers": 0}
        for row in rows:
            if 1 + deaths.get(row["place"], 0) >= ATTEMPTS:
                error = f"the process that scored it was killed, {ATTEMPTS} times of {ATTEMPTS}"
                yield from self.scorer(iter([Unreadable(error)]), **options)
            else:
                self._note("alone", rows[0]["place"], row["place"])
                yield from self.scorer(read_ahead([row]), **options)

    def _note(self, what: str, *values: Any) -> Any:
        """Note something, and wait until it is."""
        import ray

        return ray.get(getattr(self.notes, what).remote(*values))


def start_notes(ray: Any) -> Any:
    """
    An actor that knows which blocks were begun, each by the place of its first picture, and which pictures killed.

    Its class is defined here so that Ray sends it by its content: by its name its process would import torch.
    """

    class Notes:
        def __init__(self) -> None:
            self.loads: dict[str, int] = {}
            self.alone_now: dict[int, int | None] = {}
            self.deaths: dict[int, dict[int, int]] = {}

        def load(self, actor: str) -> int:
            """How often it has begun to load since it last was through."""
            self.loads[actor] = self.loads.get(actor, 0) + 1
            return self.loads[actor]

        def loaded(self, actor: str) -> None:
            """It is through."""
            self.loads.pop(actor, None)

        def begin(self, block: int) -> dict[int, int] | None:
            """`None` the first time; else how often each picture has killed the process that scored it alone."""
            if block not in self.alone_now:
                self.alone_now[block] = None
                return None
            deaths = self.deaths.setdefault(block, {})
            if (picture := self.alone_now[block]) is not None:
                deaths[picture] = deaths.get(picture, 0) + 1
                self.alone_now[block] = None
            return deaths

        def alone(self, block: int, picture: int) -> None:
            """It is scored now, by itself."""
            self.alone_now[block] = picture

        def finish(self, block: int) -> None:
            """Forget a block."""
            self.alone_now.pop(block, None)
            self.deaths.pop(block, None)

    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Notes).remote()


__all__ = ["BlockScorer", "start_notes"]
