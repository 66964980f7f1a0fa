"""`roc4mllm publish` as a person uses it, in this process."""

import io
import re
import shutil
import sys
from pathlib import Path

import pytest
from datasets import Dataset
from hub_server import HubServer, client
from tiny import scorer_parts

from roc4mllm import load_scorer
from roc4mllm_cli import main

# huggingface_hub 2.4 sends large files by an argument that httpx has renamed (`_upload_single_part` in its lfs.py).
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "hf_the-secret-of-ann"
CARD = "---\nlicense: other\n---\n\n# Rated\n\n**Terms.** For research only.\n"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    model, processor = scorer_parts("llava")
    folder = tmp_path_factory.mktemp("saved") / "scorer"
    load_scorer(model, processor=processor).save_pretrained(folder)
    return folder


@pytest.fixture
def hub(saved, tmp_path, monkeypatch):
    """A Hub, and the current folder with a scorer and a data set."""
    shutil.copytree(saved, tmp_path / "scorer")
    (tmp_path / "rated").mkdir()
    Dataset.from_dict({"score": [1.0, 2.0]}).to_parquet(tmp_path / "rated" / "train.parquet")
    (tmp_path / "rated" / "README.md").write_text(CARD)
    monkeypatch.chdir(tmp_path)
    with HubServer({TOKEN: "ann"}) as hub, client(hub, TOKEN, tmp_path / "home"):
        yield hub
        assert hub.problems == []


def publish(capsys, *arguments: str) -> tuple[int, list[str], list[str]]:
    """Exit code, and lines of stdout and stderr, neither of which may show the token."""
    try:
        code = main(["publish", *arguments])
    except SystemExit as exit:
        code = exit.code
    printed = capsys.readouterr()
    assert TOKEN not in printed.out + printed.err
    return code, printed.out.splitlines(), printed.err.splitlines()


def error_line(capsys, *arguments: str) -> str:
    code, out, err = publish(capsys, *arguments)
    assert (code, out) == (2, [])
    assert err[-1].startswith("roc4mllm: error: ")
    assert sum(line.startswith("roc4mllm: ") for line in err) == 1
    return err[-1]


def test_model_is_tried_without_the_package_and_published(hub, capsys):
    code, out, err = publish(capsys, "model", "scorer", "ann/scorer", "--public", "--license", "mit")
    assert (code, len(out)) == (0, 1)
    assert re.fullmatch(rf"{hub.url}/ann/scorer/commit/[0-9a-f]{{40}}", out[0])
    assert any(re.fullmatch(r"checked: a generated picture scores [1-5]\.\d{3} on 1 to 5", line) for line in err)
    assert err[-1] == 'published; try: roc4mllm.load_scorer("ann/scorer")'
    assert b"license: mit" in hub.files("model", "ann/scorer")["README.md"]


def test_model_that_fails_without_the_package_is_not_published(hub, capsys):
    Path("scorer", "slots_roc4mllm.py").unlink()
    line = error_line(capsys, "model", "scorer", "ann/scorer")
    assert "'scorer' cannot be used without roc4mllm, so it was not published: " in line
    assert "slots_roc4mllm" in line
    assert not hub.repos


def test_dry_run_shows_files_and_asks_for_nothing(hub, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    code, out, _ = publish(capsys, "model", "scorer", "ann/scorer", "--dry-run", "--revision", "dev")
    assert (code, hub.requests) == (0, [])
    assert out[0] == "model scorer to ann/scorer, branch dev; public unless you have set another default there"
    shown = {line.split()[0] for line in out if line.startswith("  ")}
    assert shown == {path.name for path in Path("scorer").iterdir()} | {"README.md"}
    assert any(re.fullmatch(r"  model\.safetensors +30\d\.\d kB", line) for line in out)
    assert out[-1] == "would then upload it as one commit; nothing was sent"
    assert not Path("scorer", "README.md").exists()


def test_terms_are_shown_and_have_to_be_confirmed(hub, capsys, monkeypatch):
    assert "--yes" in error_line(capsys, "dataset", "rated", "ann/rated")
    terminal = io.StringIO("n\ny\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert "not confirmed" in error_line(capsys, "dataset", "rated", "ann/rated")
    assert not hub.repos
    code, _, err = publish(capsys, "dataset", "rated", "ann/rated", "--skip-check")
    assert code == 0
    assert "terms: For research only." in err
    assert hub.repos["dataset", "ann/rated"].private
    assert hub.files("dataset", "ann/rated")["README.md"] == CARD.encode()


def test_script_says_yes(hub, capsys):
    code, _, err = publish(capsys, "dataset", "rated", "ann/rated", "--public", "--yes")
    assert code == 0
    assert any("EVERYBODY" in line for line in err)
    assert "checked: train has 1 columns" in err
    assert not hub.repos["dataset", "ann/rated"].private


def test_data_that_cannot_be_loaded_are_not_published(hub, capsys):
    Path("rated", "train.parquet").write_bytes(b"PAR1 and no more")
    assert "'rated' cannot be loaded, so it was not published: " in error_line(
        capsys, "dataset", "rated", "ann/rated", "--yes"
    )
    assert not hub.repos


def test_option_of_a_model_is_refused_for_data(hub, capsys):
    assert "--new-card is for a model" in error_line(capsys, "dataset", "rated", "ann/rated", "--new-card")


@pytest.mark.parametrize(
    "token, reason", [(None, "no token to write to the Hub: set HF_TOKEN"), ("hf_wrong", "refused with 401: ")]
)
def test_who_is_unknown_cannot_publish(hub, capsys, monkeypatch, token, reason):
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
    line = error_line(capsys, "model", "scorer", "ann/scorer")
    assert reason in line
    assert "hf_wrong" not in line
