"""
Models, adapters and data sets from a Hub: by name and revision, from the cache, offline, with and without the package.

The Hub is `hub_server`, which is also what a mirror is: another address in HF_ENDPOINT. What huggingface_hub reads
when it is imported (HF_ENDPOINT, HF_HUB_OFFLINE) takes a process of its own; each asks many things.
"""

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from hub_server import HubServer, client, environment
from huggingface_hub import HfApi
from tiny import photo, scorer_parts

from roc4mllm import add_lora, load_scorer
from roc4mllm.datasets_scripts.convert import convert_data
from roc4mllm.datasets_scripts.generic_csv import generic_csv
from roc4mllm.hub.publish import plan_dataset, plan_model, upload

# huggingface_hub 2.4 sends large files by an argument that httpx has renamed (`_upload_single_part` in its lfs.py).
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "hf_the-secret-of-ann"
# Each child asks a list of named things and prints what it got: a value, or the error in one line.
CHILD = """
import json, os, sys
{first}
found = {{}}
def ask(name, question):
    try:
        found[name] = question()
    except Exception as error:
        found[name] = f"{{type(error).__name__}}: {{' '.join(str(error).split())}}"
picture, first, second = sys.argv[1:4]
{rest}
print("\\n" + json.dumps(found))
"""
WITH_PACKAGE = """
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 4096  # in place of 10 MB, from which on a download is kept where it breaks off
from roc4mllm import load_scorer
def score(name, **options):
    record = load_scorer(name, **options)(picture)
    return [record["score"], record["revision"]]
ask("name", lambda: score("ann/scorer"))
ask("tag", lambda: score("ann/scorer", revision="v1"))
ask("branch", lambda: score("ann/scorer", revision="trial"))
ask("commit", lambda: score("ann/scorer", revision=first))
ask("from the cache", lambda: score("ann/scorer", local_files_only=True))
ask("tag from the cache", lambda: score("ann/scorer", revision="v1", local_files_only=True))
ask("adapter", lambda: score("ann/adapter"))
ask("adapter from the cache", lambda: score("ann/adapter", local_files_only=True))
ask("another cache", lambda: score("ann/scorer", cache_dir="elsewhere"))
ask("files there", lambda: os.listdir("elsewhere"))
ask("private", lambda: score("ann/private"))
ask("data", lambda: rows(load_dataset("ann/rated")))
if os.environ["HF_HUB_OFFLINE"] == "0":
    ask("streamed data", lambda: rows(load_dataset("ann/rated", streaming=True)))
    ask("data by tag", lambda: rows(load_dataset("ann/rated", revision="v1")))
    ask("no revision", lambda: score("ann/scorer", revision="v9"))
    ask("private without a token", lambda: score("ann/secret", token=False))
ask("no name", lambda: score("ann/nothing"))
ask("not in the cache", lambda: score("ann/secret", local_files_only=True))
"""
DATA = """
from hashlib import sha256
from datasets import Image, load_dataset
def told(row):
    return row | {"image": [row["image"]["path"], sha256(row["image"]["bytes"]).hexdigest()]}
def rows(splits):
    as_stored = {split: data.cast_column("image", Image(decode=False)) for split, data in splits.items()}
    assert next(iter(splits["train"]))["image"].size == (64, 48)
    return {split: list(map(told, data)) for split, data in as_stored.items()}
"""
WITHOUT_PACKAGE = """
from transformers import AutoModel, AutoProcessor, pipeline
def score(name, **options):
    return pipeline("image-aesthetics", model=name, **options)(picture)["score"]
def by_classes(name, **options):
    options |= {"trust_remote_code": True}
    model = AutoModel.from_pretrained(name, **options).eval()
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    return model(**AutoProcessor.from_pretrained(name, **options)(images=picture)).scores[0, 0].item()
ask("trusted", lambda: score("ann/scorer", trust_remote_code=True))
ask("tag", lambda: score("ann/scorer", trust_remote_code=True, revision="v1"))
ask("by classes", lambda: by_classes("ann/scorer"))
ask("adapter", lambda: score("ann/adapter", trust_remote_code=True))
ask("adapter by classes", lambda: by_classes("ann/adapter"))
ask("from the cache", lambda: score("ann/scorer", trust_remote_code=True, local_files_only=True))
ask("not trusted", lambda: score("ann/scorer", trust_remote_code=False))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def published(place):
    """A Hub with a scorer in two revisions, an adapter for the first, a data set; scores of a picture by each."""
    photo(0).save(place / "picture.png")
    model, processor = scorer_parts("llava")
    scorer = load_scorer(model, processor=processor)
    torch.manual_seed(1)
    expected = {}

    def save(name: str) -> Path:
        scorer.save_pretrained(place / name)
        expected[name] = scorer(str(place / "picture.png"))["score"]
        return place / name

    with HubServer({TOKEN: "ann"}) as hub, client(hub, TOKEN, place / "publisher"):
        api = HfApi()
        commits = {}
        for name in ("first", "second"):
            if name == "second":
                torch.nn.init.normal_(model.score_head.weight, std=0.5)
            commits[name] = upload(plan_model(save(name), "ann/scorer"), api).rpartition("/")[2]
            if name == "first":
                api.create_tag("ann/scorer", tag="v1")
                api.create_branch("ann/scorer", branch="trial")
        upload(plan_model(place / "second", "ann/private", private=True), api)
        upload(plan_model(place / "second", "ann/secret", private=True), api)
        add_lora(model, r=2)
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(weight, std=0.5)
        # what `train --lora -m ann/scorer` records
        model.peft_config["default"].base_model_name_or_path = "ann/scorer"
        model.peft_config["default"].revision = commits["first"]
        upload(plan_model(save("adapter"), "ann/adapter"), api)
        write_data(place / "rated", place / "raw")
        upload(plan_dataset(place / "rated", "ann/rated"), api)
        api.create_tag("ann/rated", tag="v1", repo_type="dataset")
        scores = list(expected.values())
        assert min(abs(a - b) for a, b in zip(scores, scores[1:], strict=False)) > 1e-3
        yield hub, expected, commits
        assert hub.problems == []


def write_data(folder: Path, raw: Path) -> None:
    """Six rated pictures in two splits, converted from a table."""
    raw.mkdir()
    lines = [f"{seed}.png,{1 + seed / 2},{'test' if seed > 3 else 'train'}" for seed in range(6)]
    (raw / "table.csv").write_text("\n".join(["image,score,split", *lines]))
    for seed in range(6):
        photo(seed).save(raw / f"{seed}.png")
    convert_data(generic_csv((1, 5), name="rated"), raw, folder)


def ask(place, published, first: str, rest: str, home: str, offline: bool = False) -> dict:
    """What a fresh process finds."""
    hub, _, commits = published
    script = place / f"{home}-{offline}.py"
    script.write_text(CHILD.format(first=first, rest=rest))
    done = subprocess.run(
        [sys.executable, str(script), str(place / "picture.png"), commits["first"], commits["second"]],
        env=os.environ | environment(hub, TOKEN, place / home, offline),
        cwd=place,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert TOKEN not in done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def with_package(place, published):
    """What a process with the package finds, and what it asked the Hub for; its first download breaks off."""
    hub, _, _ = published
    hub.cut("GET", after=50_000)
    with hub.recorded() as requests:
        found = ask(place, published, "", DATA + WITH_PACKAGE, "with")
    return found, requests


@pytest.fixture(scope="module")
def offline(place, published, with_package):
    """The same without network, after it."""
    hub, _, _ = published
    with hub.recorded() as requests:
        found = ask(place, published, "", DATA + WITH_PACKAGE, "with", offline=True)
    return found, requests


@pytest.fixture(scope="module")
def without_package(place, published):
    """What a process without the package finds."""
    return ask(place, published, 'sys.modules["roc4mllm"] = None', WITHOUT_PACKAGE, "without")


# With the package ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked, of",
    [
        ("name", "second"),
        ("tag", "first"),
        ("branch", "first"),
        ("commit", "first"),
        ("from the cache", "second"),
        ("tag from the cache", "first"),
        ("another cache", "second"),
    ],
)
def test_scorer_by_name_and_revision(published, with_package, offline, asked, of):
    _, expected, commits = published
    for found, _ in (with_package, offline):
        assert found[asked] == [pytest.approx(expected[of], abs=5e-6), commits[of]]


@pytest.mark.parametrize("asked", ["adapter", "adapter from the cache"])
def test_adapter_by_name_brings_the_model_below_in_the_revision_of_its_training(
    published, with_package, offline, asked
):
    for found, _ in (with_package, offline):
        assert found[asked][0] == pytest.approx(published[1]["adapter"], abs=5e-6)


def test_private_repository_with_a_token(published, with_package):
    assert with_package[0]["private"][0] == pytest.approx(published[1]["second"], abs=5e-6)


def test_data_set_comes_back_equal_whole_and_streamed(place, with_package, offline):
    expected = {
        split: pq.read_table(place / "rated" / "data" / f"{split}-00000-of-00001.parquet").to_pylist()
        for split in ("train", "test")
    }
    for row in (*expected["train"], *expected["test"]):
        assert row["image"]["bytes"] == (place / "raw" / row["image_id"]).read_bytes()
        row["image"] = [row["image_id"], sha256(row["image"]["bytes"]).hexdigest()]
    assert [len(rows) for rows in expected.values()] == [4, 2]
    assert len({row["image"][1] for row in expected["train"]}) == 4
    assert with_package[0]["data"] == expected
    assert with_package[0]["streamed data"] == expected
    assert with_package[0]["data by tag"] == expected
    assert offline[0]["data"] == expected


def test_what_is_not_there_is_said(with_package, offline):
    found, _ = with_package
    assert "ann/nothing" in found["no name"]
    assert "v9" in found["no revision"]
    assert "ann/secret" in found["private without a token"]
    for found, _ in (with_package, offline):
        assert found["not in the cache"].startswith("OSError: ")
        assert "cached files" in found["not in the cache"]


def test_download_that_breaks_off_goes_on_where_it_was(with_package):
    _, requests = with_package
    broken, rest, *_ = [r for r in requests if r.method == "GET" and r.path.startswith("/objects/")]
    kept = 50_000 // 4096 * 4096
    assert (broken.sent, rest.status, rest.range, rest.path) == (50_000, 206, f"bytes={kept}-", broken.path)


def test_one_commit_by_four_names_is_sent_once(published, with_package):
    hub, _, _ = published  # tag, branch, commit, and the model below the adapter
    weights = sha256(hub.files("model", "ann/scorer", "v1")["model.safetensors"]).hexdigest()
    sent = [r for r in with_package[1] if r.method == "GET" and r.path == f"/objects/{weights}"]
    assert len(sent) == 1


def test_cache_of_ones_own(with_package):
    assert "models--ann--scorer" in with_package[0]["files there"]


def test_offline_asks_for_nothing(offline):
    assert offline[1] == []


# Without it ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked, of",
    [
        ("trusted", "second"),
        ("tag", "first"),
        ("by classes", "second"),
        ("from the cache", "second"),
        ("adapter", "adapter"),
        ("adapter by classes", "adapter"),
    ],
)
def test_without_the_package(published, without_package, asked, of):
    assert without_package[asked] == pytest.approx(published[1][of], abs=5e-6)


def test_without_trust_no_code_of_the_repository_runs(without_package):
    assert "trust_remote_code" in without_package["not trusted"]
