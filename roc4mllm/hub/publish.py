"""
A folder goes to the Hub: planned, shown, checked, and uploaded as one commit.

The commit holds everything or nothing, so that no revision is half a model. What was uploaded before a connection
broke stays in the Hub's storage, and is not sent again when the same is published again.

That was tried by git-lfs (`HF_HUB_DISABLE_XET=1`), which mirrors and other servers have. What the Hub's own storage,
Xet, does when a connection breaks is up to huggingface_hub, and no test goes that road.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError  # type: ignore[attr-defined]
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from transformers import AutoConfig

from ..modeling_roc4mllm.adapter_roc4mllm import ADAPTER_CONFIG, is_adapter_folder
from .data_terms import DataTerms, data_terms
from .evaluation_figures import read_evaluation
from .model_card import PAPERS, CardFacts, model_card
from .original_files import read_json
from .published_files import FolderFiles, data_files, model_files
from .trained_on import read_trained_on

# What a loader would pick up beside the new files, if an earlier revision of the repository left it there.
REPLACED = {
    "model": ("*.safetensors", "*.safetensors.index.json", "*.py", "adapter/*"),
    "dataset": ("*.parquet",),
}


@dataclass(frozen=True)
class Publication:
    """
    What would go to the Hub.

    Args:
        kind (`str`): `"model"` or `"dataset"`.
        folder (`Path`): Where it lies.
        repo (`str`): Name on the Hub.
        files (`dict[str, Path | bytes]`): By path in the repository; a card that was written now as bytes.
        left_out (`list[str]`): What stays in the folder.
        private (`bool`, *optional*): Whether only its owner may see it; `None` leaves it to the Hub.
        config: The model's.
        is_adapter (`bool`): Whether it is an adapter.
        terms ([`DataTerms`], *optional*): Of a data set.
    """

    kind: str
    folder: Path
    repo: str
    files: dict[str, Path | bytes]
    left_out: list[str]
    private: bool | None
    config: Any = None
    is_adapter: bool = False
    terms: DataTerms | None = None
    sizes: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        sizes = {
            name: file.stat().st_size if isinstance(file, Path) else len(file) for name, file in self.files.items()
        }
        object.__setattr__(self, "sizes", sizes)


# Planning ------------------------------------------------------------------------------------------------------------


def plan_model(
    folder: Path,
    repo: str,
    *,
    private: bool | None = None,
    evaluation: str | None = None,
    licence: str | None = None,
    new_card: bool = False,
) -> Publication:
    """
    What would be published of a model or an adapter. Nothing is written, and no network used.

    Args:
        folder (`Path`): As `save_pretrained`, `train` and `convert` write it.
        repo (`str`): Name on the Hub.
        private (`bool`, *optional*): Whether only its owner may see it; the Hub's own default otherwise.
        evaluation (`str`, *optional*): JSON file of `roc4mllm evaluate` of this model, for the card.
        licence (`str`, *optional*): Of the weights, as the Hub calls it, for the card.
        new_card (`bool`, *optional*, defaults to `False`): Write a card even where there is one.

    Raises:
        ValueError: If the folder is no scorer or must not be published as it is, or the card that is there would not
            show what was given for it.
    """
    check_name(repo)
    found = model_files(folder)
    config = scorer_config(folder)
    files: dict[str, Path | bytes] = dict(found.published)
    if new_card or "README.md" not in files:
        facts = CardFacts(
            repo=repo,
            config=config,
            base_model=base_model(folder, config),
            is_adapter=is_adapter_folder(folder),
            licence=licence,
            trained_on=read_trained_on(folder),
            figures=read_evaluation(evaluation, config.attributes) if evaluation is not None else None,
        )
        files["README.md"] = model_card(facts).encode()
    elif given := [name for name, value in (("evaluation", evaluation), ("licence", licence)) if value is not None]:
        raise ValueError(
            f"{str(folder)!r} has a README.md, which is kept, so nobody would see the {' and the '.join(given)}; add "
            "that to it, or have a new card written (--new-card)"
        )
    return publication(
        "model", folder, repo, found, files, private, config=config, is_adapter=is_adapter_folder(folder)
    )


def plan_dataset(folder: Path, repo: str, *, private: bool | None = None) -> Publication:
    """
    What would be published of a data set; its card is not touched. Nothing is written, and no network used.

    Args:
        folder (`Path`): With a card and Parquet files, as `roc4mllm data` writes it.
        repo (`str`): Name on the Hub.
        private (`bool`, *optional*): Whether only its owner may see it; by default so unless its terms let others
            pass it on.

    Raises:
        ValueError: If the folder is no data set or must not be published as it is.
    """
    check_name(repo)
    found = data_files(folder)
    terms = data_terms(found.published["README.md"].read_text(encoding="utf-8"))
    private = not terms.may_be_shared if private is None else private
    return publication("dataset", folder, repo, found, dict(found.published), private, terms=terms)


def publication(
    kind: str,
    folder: Path,
    repo: str,
    found: FolderFiles,
    files: dict[str, Path | bytes],
    private: bool | None,
    **rest: Any,
) -> Publication:
    """A plan with its files in order."""
    return Publication(kind, folder, repo, dict(sorted(files.items())), found.left_out, private, **rest)


def check_name(repo: str) -> None:
    """Refuse what is no full name on the Hub."""
    if not is_name(repo) or repo.count("/") != 1:
        raise ValueError(f"{repo!r} is no full name on the Hub; expected one as in user/name")


def is_name(repo: Any) -> bool:
    """Whether the Hub would take a text as the name of a repository."""
    try:
        validate_repo_id(repo)
    except HFValidationError:
        return False
    return isinstance(repo, str)


def scorer_config(folder: Path) -> Any:
    """
    The config of a scorer that may be published.

    Raises:
        ValueError: If the folder holds another model, or one that was never trained to score.
    """
    kind = read_json(folder, "config.json").get("model_type")
    if kind not in PAPERS:
        raise ValueError(
            f"{str(folder)!r} is no scorer of roc4mllm: model_type in its config.json is {kind!r}, expected one of "
            f"{', '.join(PAPERS)}"
        )
    config = AutoConfig.from_pretrained(folder)
    if not getattr(config, "score_head_trained", True):
        raise ValueError(f"the score head of {str(folder)!r} was never trained; train it, then publish")
    return config


def base_model(folder: Path, config: Any) -> str | None:
    """Name on the Hub of the model below, where one is recorded."""
    below = read_json(folder, ADAPTER_CONFIG).get("base_model_name_or_path")
    name = below or getattr(config, "backbone_name_or_path", None)
    return name if is_name(name) else None


# Uploading -----------------------------------------------------------------------------------------------------------


@contextmanager
def plain_errors(endpoint: str) -> Iterator[None]:
    """What goes wrong on the way to the Hub, as an `OSError` that says it in a sentence."""
    again = "what was uploaded stays there: publish once more to go on"
    try:
        yield
    except HfHubHTTPError as error:
        reason = error.server_message or str(error)
        status = error.response.status_code if error.response is not None else "no status"
        raise OSError(f"{endpoint} refused with {status}: {reason}") from error
    except (HTTPError, RuntimeError) as error:  # huggingface_hub and Xet tell of uploads by a RuntimeError
        cause = error.__cause__ or error
        name = f"{type(cause).__name__}: {cause}".rstrip(": ")
        raise OSError(f"the connection to {endpoint} broke ({name}); {again}") from error


def sign_in() -> HfApi:
    """
    The Hub, for one whom it knows.

    Raises:
        OSError: If there is no token, or the Hub does not take it or cannot be reached.
    """
    api = HfApi(library_name="roc4mllm")
    if get_token() is None:
        raise OSError("no token to write to the Hub: set HF_TOKEN, or run: hf auth login")
    with plain_errors(api.endpoint):
        api.whoami()
    return api


def upload(plan: Publication, api: HfApi, *, branch: str | None = None, message: str | None = None) -> str:
    """
    Upload as one commit, and make the repository and the branch if need be.

    Weights, code and tables of an earlier revision that a loader would take for new ones are deleted in that commit;
    all other files that are there stay.

    Args:
        plan ([`Publication`]): What goes.
        api (`HfApi`): The Hub.
        branch (`str`, *optional*, defaults to `"main"`): Where to.
        message (`str`, *optional*): Of the commit.

    Returns:
        `str`: The commit's address.

    Raises:
        OSError: If the Hub refuses or cannot be reached.
        ValueError: If the repository is there already, and seen by others than the plan says.
    """
    place: dict[str, Any] = {"repo_id": plan.repo, "repo_type": plan.kind}
    with plain_errors(api.endpoint):
        api.create_repo(**place, private=plan.private, exist_ok=True)
        if plan.private is not None and api.repo_info(**place).private != plan.private:
            found, wanted = ("public", "private") if plan.private else ("private", "public")
            raise ValueError(
                f"{plan.repo} is there already, and {found}; make it {wanted} in its settings, pass --{found}, or "
                "choose another name"
            )
        if branch is not None and branch != "main":
            api.create_branch(**place, branch=branch, exist_ok=True)
        there = api.list_repo_files(**place, revision=branch)
        gone = [name for name in there if name not in plan.files and is_replaced(name, plan.kind)]
        operations: list[Any] = [CommitOperationDelete(name) for name in gone]
        operations += [CommitOperationAdd(name, file) for name, file in plan.files.items()]
        message = message or f"Publish {plan.folder.resolve().name}"
        commit = api.create_commit(**place, operations=operations, commit_message=message, revision=branch)
    return str(commit.commit_url)


def is_replaced(name: str, kind: str) -> bool:
    """Whether a file of an earlier revision would be loaded beside the new ones."""
    return any(fnmatchcase(name, pattern) for pattern in REPLACED[kind])


__all__ = ["Publication", "plan_dataset", "plan_model", "sign_in", "upload"]
