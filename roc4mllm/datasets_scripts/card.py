"""The card of a converted data set: what it is, on which terms, how it is divided, and the yaml that loaders read."""

from typing import TYPE_CHECKING

from huggingface_hub import DatasetCardData

from .data_set import DataSet
from .schema import features

if TYPE_CHECKING:
    from .convert import Report

CARD = """\
---
{yaml}
---

# {title}

{one_line}

**Terms.** {terms}{sharing}

```python
from datasets import load_dataset

pictures = load_dataset("FOLDER_OR_HUB_NAME", split="{split}")  # with streaming=True nothing is copied
```

`roc4mllm train --data` and `roc4mllm evaluate` read it as it is: the score as `aesthetics`, and of `attributes` those
that `--attributes` names.

## Splits

Protocol **`{protocol}`**: {protocol_text}. Numbers on another protocol are not comparable with those on this one.

| split | rows | hash of the set of ids |
|---|---:|---|
{splits}

Of {read} raw rows there were left out: {left_out}. `report.json` lists each.{notes}

## Columns

`score` is the {score}, in units of `score_range`. `std` is the standard deviation of the ratings in the same units,
`votes` counts them by level from the lowest to the highest, `distribution` are their shares. `attributes` is a list of
`name`, `score`, `score_range`, `std`, `votes`, each attribute in a range of its own. `split_protocol` stands in each
row. What is unknown is null; -1 and 0 are values.

## Source

- from: {homepage}
- converted by roc4mllm {version}; {pictures}
- cite: {citation}
"""


def data_card(data_set: DataSet, report: "Report") -> str:
    """
    Text of the `README.md` of a converted data set.

    Args:
        data_set ([`DataSet`]): What it says about itself.
        report ([`Report`]): What the conversion did.
    """
    lost = {kind.replace("_", " "): len(entries) for kind, entries in report.problems.lost().items()}
    left_out = {"outside of the protocol": report.outside} | lost
    max_side = report.options["max_side"]
    smaller = f"{report.resized} pictures were made smaller, to {max_side} pixels (Lanczos, JPEG), all others"
    notes = [*data_set.notes, *report.notes, *(f"{len(ids)} pictures: {name}" for name, ids in report.absent.items())]
    return CARD.format(
        yaml=card_yaml(data_set, report),
        title=data_set.title,
        one_line=one_line(data_set, report),
        terms=data_set.terms,
        sharing="" if data_set.may_be_shared else " Do not pass it on: keep a copy on the Hub private.",
        split=next(iter(report.rows)),
        protocol=report.protocol,
        protocol_text=data_set.protocols[data_set.protocol(report.protocol)],
        splits="\n".join(
            f"| {split} | {count} | `{report.id_set_hash[split]}` |" for split, count in report.rows.items()
        ),
        read=report.read,
        left_out=", ".join(f"{count} ({kind})" for kind, count in left_out.items() if count) or "none",
        notes="".join(f"\n- {note}" for note in notes) and "\n\nTo know:\n" + "".join(f"\n- {note}" for note in notes),
        score=data_set.score,
        homepage=data_set.homepage,
        version=report.version,
        pictures=f"{smaller if max_side else 'all pictures'} keep their bytes",
        citation=data_set.citation,
    )


def one_line(data_set: DataSet, report: "Report") -> str:
    """How much there is of what."""
    rows, pictures = sum(report.rows.values()), sum(report.pictures.values())
    what = "rated pictures" if rows == pictures else f"ratings of {pictures} pictures"
    return f"{rows} {what}; the score is the {data_set.score}."


def card_yaml(data_set: DataSet, report: "Report") -> str:
    """What the Hub and `load_dataset` read, as `push_to_hub` writes it."""
    from datasets import DatasetInfo, SplitDict, SplitInfo  # type: ignore[import-untyped]
    from datasets.info import DatasetInfosDict  # type: ignore[import-untyped]

    data = DatasetCardData(
        license=data_set.license, pretty_name=data_set.title, tags=["image-aesthetics", report.protocol]
    )
    if data_set.license == "other" and data_set.homepage.startswith("https://"):  # the Hub wants both of them then
        data["license_name"], data["license_link"] = f"{data_set.name}-terms", data_set.homepage
    data["redistribution"] = data_set.may_be_shared  # which `roc4mllm publish` reads, whatever the licence
    data["size_categories"] = [size_category(sum(report.rows.values()))]
    splits = [SplitInfo(split, report.loaded_bytes[split], count) for split, count in report.rows.items()]
    info = DatasetInfo(features=features(), splits=SplitDict({split.name: split for split in splits}))
    # load_dataset compares their sum with the free space before it fills the disk
    info.download_size, info.dataset_size = (sum(sizes.values()) for sizes in (report.bytes, report.loaded_bytes))
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in report.rows]
    data["configs"] = [{"config_name": "default", "data_files": files}]
    text: str = data.to_yaml()
    return text


def size_category(count: int) -> str:
    """As the Hub names them."""
    names = ("1K", "10K", "100K", "1M", "10M")
    bounds = [1000 * 10**power for power in range(len(names))]
    place = sum(count >= bound for bound in bounds)
    return f"n<{names[0]}" if not place else f"{names[place - 1]}<n<{names[place]}"


__all__ = ["data_card"]
