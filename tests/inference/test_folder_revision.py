"""A model in a folder has a revision: the same in every copy, another for other weights."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import photo, scorer_parts

from roc4mllm import load_scorer
from roc4mllm.inference.folder_revision import PIECE, folder_revision
from roc4mllm.trainer.lora_recipe import add_lora

DIGITS = re.compile(r"sha256:[0-9a-f]{16}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    for part in scorer_parts("llava"):
        part.save_pretrained(folder)
    return folder


def test_records_hold_it_and_a_copy_has_the_same(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "metrics.json").write_text("{}")  # as `evaluate -o` may leave it
    first, second = (load_scorer(path)(photo()) for path in (folder, tmp_path / "copy"))
    assert DIGITS.fullmatch(first["revision"])
    assert first["revision"] == second["revision"] == folder_revision(folder)
    assert load_scorer(folder)("missing.jpg")["revision"] == first["revision"]
    model, processor = scorer_parts("llava")
    assert load_scorer(model, processor=processor)(photo())["revision"] is None  # nobody knows what was done to it


@pytest.mark.parametrize("part", ["score_head", ""])
def test_a_step_of_training_changes_it(folder, tmp_path, part):
    """Also one of the head alone, a few kB among many."""
    model = load_scorer(folder).model
    picked = [value for name, value in model.named_parameters() if part in name]
    before = folder_revision(folder)
    for value in picked:
        value.grad = torch.ones_like(value)
    torch.optim.SGD(picked, lr=1e-6).step()
    shutil.copytree(folder, tmp_path / "tiny")
    model.save_pretrained(tmp_path / "tiny")
    assert folder_revision(folder) == before
    assert folder_revision(tmp_path / "tiny") != before


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer.json"])
def test_so_does_another_config(folder, tmp_path, file):
    shutil.copytree(folder, tmp_path / "tiny")
    (tmp_path / "tiny" / file).write_text((folder / file).read_text() + " ")
    assert folder_revision(tmp_path / "tiny") != folder_revision(folder)


@pytest.mark.parametrize("place", [0, -1, 500_000])
def test_of_a_large_tensor_beginning_middle_and_end_are_looked_at(tmp_path, place):
    weights = {"large": torch.zeros(1_000_000), "small": torch.zeros(4)}
    assert weights["large"].nbytes > 10 * PIECE
    save_file(weights, tmp_path / "model.safetensors")
    before = folder_revision(tmp_path)
    weights["large"][place] = 1.0
    save_file(weights, tmp_path / "model.safetensors")
    assert folder_revision(tmp_path) != before


@pytest.mark.parametrize(
    "content", [b"", b"half", b"\xff" * 64, b"\2" + bytes(7) + b"[]", b"\7" + bytes(7) + b'{"a":1}']
)
def test_a_damaged_file_beside_the_model_keeps_nobody_from_loading_it(folder, tmp_path, content):
    shutil.copytree(folder, tmp_path / "tiny")
    (tmp_path / "tiny" / "model-old.safetensors").write_bytes(content)
    assert DIGITS.fullmatch(load_scorer(tmp_path / "tiny")(photo())["revision"])


def test_of_an_adapter_both_folders_count(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "below")
    scorer = load_scorer(tmp_path / "below")
    add_lora(scorer.model, r=2)
    scorer.save_pretrained(tmp_path / "adapter")
    revisions = [load_scorer(tmp_path / "adapter")(photo())["revision"]]
    shutil.move(tmp_path / "below", tmp_path / "moved")
    revisions.append(load_scorer(tmp_path / "adapter", backbone=tmp_path / "moved")(photo())["revision"])
    assert revisions[0] == revisions[1]
    for changed in ("adapter/adapter/adapter_model.safetensors", "moved/model.safetensors"):
        weights = load_file(tmp_path / changed)
        weights[min(weights)] += 1.0
        save_file(weights, tmp_path / changed, metadata={"format": "pt"})
        revisions.append(load_scorer(tmp_path / "adapter", backbone=tmp_path / "moved")(photo())["revision"])
    assert len(set(revisions)) == 3


def test_what_lies_beside_a_model_is_no_part_of_it(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "tiny")
    before = folder_revision(tmp_path / "tiny")
    for name in ("trained_on.safetensors", "anna.safetensors"):
        save_file({"a": torch.zeros(3)}, tmp_path / "tiny" / name)
    assert folder_revision(tmp_path / "tiny") == before
