"""A scorer with pictures that kill who reads them, and that tells when it is loaded; actors of Ray import it."""

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roc4mllm.inference import ImageAestheticsScorer


class DeadlyScorer(ImageAestheticsScorer):
    """Files whose name begins with `deadly` kill; `log` is a folder that gets a file for each load and each death."""

    def __init__(self, model: str, log: str, **options: Any) -> None:
        super().__init__(model, **options)
        self.log = log

    @property
    def scorer(self) -> Any:
        if self._scorer is None:
            Path(self.log, f"load-{os.getpid()}").touch(exist_ok=False)
        return Deadly(super().scorer, self.log)


class Deadly:
    """The pipeline, but for deadly pictures."""

    def __init__(self, pipeline: Any, log: str) -> None:
        self.pipeline, self.log, self.model = pipeline, log, pipeline.model

    def __call__(self, sources: Iterable[Any], **options: Any) -> Any:
        return self.pipeline(self.prepared(sources), **options)

    def prepared(self, sources: Iterable[Any]) -> Iterator[Any]:
        for source in sources:
            yield DeadlySource(self.log) if os.path.basename(str(source)).startswith("deadly") else source


@dataclass
class DeadlySource:
    """As a picture at which a decoder crashes: kills the process that reads it, be it a worker or the scorer's own."""

    log: str

    def read_bytes(self) -> bytes:
        Path(self.log, f"death-{os.getpid()}").touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
        return b""
