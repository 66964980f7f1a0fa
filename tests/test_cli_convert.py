"""`roc4mllm convert` as a person uses it, in this process."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from checkpoint_files import roc4mllm_checkpoint, write_checkpoint
from command_errors import error_line
from family_weights import original
from huggingface_hub import constants
from tiny import photo

from roc4mllm import load_scorer
from roc4mllm.hub import convert_file
from roc4mllm.hub import convert_folder as conversion
from roc4mllm_cli import main


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The current folder: a checkpoint and two pictures."""
    write_checkpoint(tmp_path / "original", *roc4mllm_checkpoint())
    for seed in range(2):
        photo(seed).save(tmp_path / f"{seed}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    return tmp_path


def scores(capsys, model: str) -> list[dict]:
    assert main(["score", "0.png", "1.png", "-m", model]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_converted_folder_and_original_score_alike(capsys):
    assert main(["convert", "roc4mllm", "original", "native"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1] == "written to native; try: roc4mllm score PICTURES -m native"
    native, original = scores(capsys, "native"), scores(capsys, "original")
    assert [row["score"] for row in native] == pytest.approx([row["score"] for row in original], abs=1e-6)
    assert abs(native[0]["score"] - native[1]["score"]) > 1e-3
    assert {row["model"] for row in native} == {"native"}
    assert {row["model"] for row in original} == {"original"}
    assert (native[0]["score_min"], native[0]["score_max"]) == (0.0, 5.0)


def test_dtype():
    assert main(["convert", "roc4mllm", "original", "native", "--dtype", "float16"]) == 0
    assert str(load_scorer("native").model.dtype) == "torch.float16"


def test_suggested_command_can_be_pasted(capsys):
    assert main(["convert", "roc4mllm", "original", "my scorer"]) == 0
    assert capsys.readouterr().err.splitlines()[-1].endswith("-m 'my scorer'")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(
    "arguments", [["convert", "roc4mllm", "original", "native"], ["score", "0.png", "-m", "original"]], ids=" ".join
)
def test_a_signal_leaves_nothing(here, monkeypatch, arguments, name):
    number = getattr(signal, name)
    monkeypatch.setattr(conversion, "save_file", lambda *args, **options: os.kill(os.getpid(), number))
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as exit:
            main(arguments)
        assert exit.value.code == 128 + number
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert {path.name for path in here.iterdir()} - {"home"} == {"original", "0.png", "1.png"}
    assert not list((here / "home").glob("roc4mllm/converted/*"))  # a glob of pathlib finds hidden ones too


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["roc4mllm", "nowhere", "native"], "there is no folder 'nowhere'"),
        (["roc4mllm", "Ricardo-M/ROC4MLLM", "native"], "there is no folder 'Ricardo-M/ROC4MLLM'; fetch"),
        (["roc4mllm", ".", "native"], "'.' is no checkpoint: it has no config.json"),
        (["roc4mllm", "original", "."], "is there and not an empty folder"),
        (["roc4mllm", "original", "0.png"], "0.png' is there and not an empty folder"),
        (["roc4mllm", "original", "native", "--attribute", "quality"], "scores aesthetics, not quality"),
        (["level-words", "original", "native"], "'original' is a ROC4MLLM checkpoint"),
        (["roc4mllm", "original", ""], "Got a blank in the place of a folder's name"),
        (["roc4mllm", "", "native"], "there is no folder ''"),
        (["owl", "original", "native"], "argument FAMILY: invalid choice: 'owl'"),
        (["roc4mllm", "original", "native", "--dtype", "int8"], "--dtype: invalid choice: 'int8'"),
        (["roc4mllm", "original"], "required: DST"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(capsys, here, arguments, reason):
    assert reason in error_line(capsys, "convert", *arguments)
    assert {path.name for path in here.iterdir()} == {"original", "0.png", "1.png"}


def test_config_with_a_wrong_value(capsys, here):
    path = Path("original", "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": "32"}))
    assert "config.json of 'original' cannot be used" in error_line(
        capsys, "convert", "roc4mllm", "original", "native"
    )
    assert not (here / "native").exists()


class TestFiles:
    """Files of weights, by the small one of ELTA; with their numbers: hub/test_convert_file.py."""

    @pytest.fixture(autouse=True)
    def file(self, here):
        torch.save(original("elta", "TAD66K")[1], "best.pth")

    def test_converted_folder_scores(self, capsys):
        assert main(["convert", "elta", "best.pth", "native"]) == 0
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.splitlines()[-1] == "written to native; try: roc4mllm score PICTURES -m native"
        first, second = scores(capsys, "native")
        assert abs(first["score"] - second["score"]) > 1e-3
        assert (first["score_min"], first["score_max"], first["model"]) == (0.0, 10.0, "native")

    def test_calibration_of_a_tanet(self, capsys, here):
        torch.save(original("tanet", "AVA")[1], "tanet.pth")
        assert main(["convert", "tanet", "tanet.pth", "native", "--calibrate", "."]) == 0
        assert "statistics of each batch" in (here / "native" / "README.md").read_text()
        assert load_scorer("native").model.config.theme_calibrated

    @pytest.mark.parametrize("variant", ["AVA", "TAD66K"])
    def test_a_tanet_in_half_precision(self, capsys, monkeypatch, variant):
        monkeypatch.setattr(convert_file, "BATCH", 2)  # of generated pictures for the card: float16 is slow on a CPU
        whole, weights = original("tanet", variant)
        halves = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
        torch.save(halves, "half.pth")
        assert main(["convert", "tanet", "half.pth", "half"]) == 0
        capsys.readouterr()
        scorer = load_scorer("half")
        assert (scorer.model.dtype, scorer.model.score_head.weight.dtype) == (torch.float16, torch.float32)
        expected = load_scorer(whole, image_processor=scorer.image_processor).score(["0.png", "1.png"])
        assert (expected[0] - expected[1]).abs() > 0.03
        found = [row["score"] for row in scores(capsys, "half")]
        assert found == pytest.approx(expected.tolist(), abs=0.02)  # of ranges of 9 and 10; float16 rounds by 5e-4

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["elta", "nowhere.pth", "native"], "there is no file 'nowhere.pth'; elta is converted from"),
            (["elta", "original", "native"], "there is no file 'original'"),
            (
                ["elta", "best.pth", "native", "--dtype", "float16"],
                "--dtype is for roc4mllm, level-words, not for elta",
            ),
            (["elta", "best.pth", "native", "--calibrate", "."], "--calibrate is for tanet, not for elta"),
            (["roc4mllm", "original", "native", "--variant", "AVA"], "--variant is for tanet, eat, elta, not for roc"),
            (["tanet", "best.pth", "native", "--calibrate", "original"], "the folder holds no picture"),
            (["elta", "best.pth", "native", "--variant", "PARA"], "--variant: invalid choice: 'PARA'"),
            (["elta", "best.pth", "original"], "is there and not an empty folder"),
            (["eat", "best.pth", "native"], "checkpoint of EAT lacks patch_proj.0.weight"),
            (["elta", "0.png", "native"], "0.png was not written by torch.save"),
        ],
    )
    def test_errors_are_one_line_and_leave_nothing(self, capsys, here, arguments, reason):
        assert reason in error_line(capsys, "convert", *arguments)
        assert {path.name for path in here.iterdir()} == {"original", "best.pth", "0.png", "1.png"}
