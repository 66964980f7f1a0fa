"""`roc4mllm publish`: a folder of this machine to a repository on the Hub."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from ..hub.publish import Publication, plan_dataset, plan_model, sign_in, upload
from ..hub.upload_check import check_data, check_model
from ..inference.tables.score_table import shown
from ..processing_roc4mllm.pipeline_image_aesthetics import attribute_range

MODEL_OPTIONS = ("evaluation", "license", "new_card")


def run(args: argparse.Namespace) -> int:
    """Publish `args.folder`, or show what would be published; always 0."""
    plan = make_plan(args)
    branch = args.revision or "main"
    if args.dry_run:
        print("\n".join(map(shown, [*described(plan, branch, with_files=True), *announced(plan, args)])))
        return 0
    for line in described(plan, branch):
        tell(line)
    if plan.terms is not None and not plan.terms.may_be_shared:
        confirm(plan, args.yes)
    api = sign_in()
    if not args.skip_check:
        tell(checked(plan))
    url = upload(plan, api, branch=args.revision, message=args.commit_message)
    tell(f"published; try: {how_to_load(plan, args.revision)}")
    print(url)
    return 0


def make_plan(args: argparse.Namespace) -> Publication:
    """What would be published."""
    folder = Path(args.folder)
    if args.kind == "model":
        options = {"evaluation": args.evaluation, "licence": args.license, "new_card": args.new_card}
        return plan_model(folder, args.repo, private=args.private, **options)
    if unfit := [name for name in MODEL_OPTIONS if getattr(args, name)]:
        raise ValueError(f"--{unfit[0].replace('_', '-')} is for a model; the card of a data set is not touched")
    return plan_dataset(folder, args.repo, private=args.private)


def tell(line: str) -> None:
    """A line for a person; stdout is for the result."""
    print(shown(line), file=sys.stderr)


def described(plan: Publication, branch: str, with_files: bool = False) -> Iterator[str]:
    """What goes where, in lines."""
    seen_by = {True: "private", False: "public", None: "public unless you have set another default there"}
    what = "adapter" if plan.is_adapter else plan.kind.replace("dataset", "data set")
    yield f"{what} {plan.folder} to {plan.repo}, branch {branch}; {seen_by[plan.private]}"
    if with_files:
        width = max(map(len, plan.files))
        yield from (f"  {name:<{width}}  {in_bytes(size):>8}" for name, size in plan.sizes.items())
    written = isinstance(plan.files["README.md"], bytes)
    card = "its card is written from a template" if written else "its card is kept as it is"
    yield f"{len(plan.files)} files, {in_bytes(sum(plan.sizes.values()))}; {card}"
    if plan.left_out:
        yield f"left out: {', '.join(plan.left_out)}"
    if plan.terms is not None:
        yield f"terms: {plan.terms.text}"


def announced(plan: Publication, args: argparse.Namespace) -> Iterator[str]:
    """What else would happen."""
    if plan.terms is not None and not plan.terms.may_be_shared:
        yield "would ask for confirmation, since these terms are not known to let you pass the data on"
    if not args.skip_check and plan.kind == "model":
        below = ", with the model below it," if plan.is_adapter else ""
        yield f"would first load it{below} in a fresh process without roc4mllm and score a picture"
    elif not args.skip_check:
        yield "would first read a row of each split"
    yield "would then upload it as one commit; nothing was sent"


def confirm(plan: Publication, yes: bool) -> None:
    """
    Have a person answer for passing on data whose terms are not known to allow it.

    Raises:
        ValueError: Unless the answer is yes.
    """
    who = "you and whom you let in" if plan.private else "EVERYBODY"
    tell(f"these terms are not known to let you pass the data on; on the Hub they could be read by {who}")
    if yes:
        return
    if not sys.stdin.isatty():
        raise ValueError("nobody is there to confirm that these data may be uploaded; a script says --yes")
    tell("upload them? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ValueError("not confirmed, so nothing was uploaded")


def checked(plan: Publication) -> str:
    """The outcome of trying the folder as others will use it."""
    if plan.kind == "dataset":
        splits = check_data(plan.folder)
        return f"checked: {', '.join(f'{name} has {len(columns)} columns' for name, columns in splits.items())}"
    tell("checking: loading it in a fresh process without roc4mllm …")
    score = check_model(plan.folder, plan.config, plan.is_adapter)
    low, high = attribute_range(plan.config, 0)
    below = " (with the model below it)" if plan.is_adapter else ""
    return f"checked{below}: a generated picture scores {score:.3f} on {low:g} to {high:g}"


def how_to_load(plan: Publication, revision: str | None) -> str:
    """A line of Python."""
    at = f', revision="{revision}"' if revision else ""
    call = "roc4mllm.load_scorer" if plan.kind == "model" else "datasets.load_dataset"
    return f'{call}("{plan.repo}"{at})'


def in_bytes(size: float) -> str:
    """A size as people read it."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000 or unit == "GB":
            break
    return f"{size:.1f} {unit}"


__all__ = ["run"]
