"""
One JSON object per line of log, on stderr.

Never in it: content of pictures, names of files, queries, keys. What a client chose and still stands there (method,
path) is escaped by JSON, so that it cannot end a line, and cut.
"""

import json
import logging
import sys
import time
from typing import Any

from transformers.utils import logging as transformers_logging

logger = logging.getLogger("roc4mllm.service")

LONGEST_TEXT = 300


class JsonLines(logging.Formatter):
    """A record as one line; what was passed as `extra={"fields": {…}}` becomes keys of it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: dict[str, Any] = {"time": now, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({key: cut(value) if key != "exception" else value for key, value in line.items()})


def cut(value: Any) -> Any:
    """A long text shortened."""
    return value[:LONGEST_TEXT] + "…" if isinstance(value, str) and len(value) > LONGEST_TEXT else value


def log_as_json_lines() -> None:
    """Send what this process logs, and Python's warnings, to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.captureWarnings(True)
    transformers_logging.disable_default_handler()
    transformers_logging.enable_propagation()


__all__ = ["JsonLines", "log_as_json_lines", "logger"]
