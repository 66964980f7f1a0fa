"""What every test shares: an environment that cannot reach the Hub, and the shared data where there are any."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Nothing of a test stays in the user's cache, and of several processes none reads code that another one is writing.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="roc4mllm-tests-")
for name in ("HF_HUB_CACHE", "HF_MODULES_CACHE", "HF_DATASETS_CACHE"):
    os.environ.pop(name, None)

# Read when torch, transformers and huggingface_hub are first imported, and inherited by every child process of a test.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # transformers asks the same switch
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # tokenizers warn when a process that used threads forks
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: more threads are slower, and machines are shared

pytest.register_assert_rewrite("common_tests")  # its asserts explain themselves as those of a test file do

ROOT = Path(__file__).resolve().parent.parent


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the checkout, or where the variable ROC4MLLM_SHARED points."""
    folder = Path(os.environ.get("ROC4MLLM_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the shared data: no folder {folder.name!r} beside the checkout, ROC4MLLM_SHARED not set")
    return folder


class RaiseOnDeprecation(logging.Handler):
    """transformers announces removals in its log and not as warnings, where pytest's filter would see them."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "deprecat" in message.lower():
            raise DeprecationWarning(f"logged by {record.name}: {message}")


@pytest.fixture(autouse=True)
def logged_deprecations_are_errors() -> Iterator[None]:
    logger, handler = logging.getLogger("transformers"), RaiseOnDeprecation(level=logging.WARNING)
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
