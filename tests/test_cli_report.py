"""`roc4mllm report` as a person uses it, on tables of all three formats, in this process."""

import re
from pathlib import Path

import numpy as np
import pytest
from command_errors import error_line
from tiny import photo

from roc4mllm.inference.tables.score_table import make_row, table_columns
from roc4mllm.inference.tables.score_writing import TableFile
from roc4mllm.trainer.image_aesthetics_metric.score_agreement import mae, plcc, srcc
from roc4mllm_cli import main

ATTRIBUTES = ["aesthetics", "light"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: three pictures, and tables of thirty scores and one failure in three formats."""
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        photo(seed).save(f"p{seed}.png")
    scores = 1 + 6 * np.random.default_rng(0).random(30)
    for ending in (".csv", ".jsonl", ".parquet", ""):
        with TableFile(tmp_path / f"scores{ending}", table_columns(ATTRIBUTES)) as table:
            for n, score in enumerate(scores.tolist()):
                table.write(make_row(f"p{n}.png", record(score, n / 30), ATTRIBUTES))
            table.write(make_row("gone.png", record(None, None) | {"error": "no such file"}, ATTRIBUTES))
    return tmp_path


def record(score: float | None, light: float | None) -> dict:
    return {
        "score": score, "score_range": (1.0, 7.0), "higher_is_better": True, "std": score and 1.0,
        "normalized": score and (score - 1) / 6, "attributes": {"aesthetics": score, "light": light},
        "distribution": None, "model": "tiny", "revision": None, "version": "0.1.0", "error": None,
    }  # fmt: skip


def test_every_format_gives_the_same_page(capsys):
    pages = []
    for ending in (".csv", ".jsonl", ".parquet", "/"):
        assert main(["report", f"scores{ending}", "-o", f"report{ending.strip('/')}.html"]) == 0
        page = Path(f"report{ending.strip('/')}.html").read_text()
        assert f"<bdi>scores{ending.strip('/')}</bdi>" in page
        pages.append(page.replace(f"scores{ending}", "scores"))
    assert pages[0] == pages[1] == pages[2] == pages[3]
    assert pages[0].count("data:image/jpeg") >= 3
    assert "30 scores and 1 failures written to report.csv.html" in capsys.readouterr().err
    assert not list(Path().glob("*partial*"))


def test_labels_of_a_file_are_measured_as_evaluate_measures_them(capsys):
    rng = np.random.default_rng(1)
    labels = rng.uniform(1, 7, 20).round(3)
    lines = [f"photos/p{n}.png,{label + off},5" for n, label in enumerate(labels) for off in (-0.5, 0, 0.5)]
    Path("ratings.csv").write_text("\n".join(["image,mean,n", *lines]))
    assert main(["report", "scores.jsonl", "-o", "report.html", "--labels", "ratings.csv"]) == 0
    assert "20 of 31 rows have a label" in capsys.readouterr().err
    scores = (1 + 6 * np.random.default_rng(0).random(30))[:20]
    page = Path("report.html").read_text()
    for name, measure in {"SRCC": srcc, "PLCC": plcc, "MAE": mae}.items():
        (shown,) = re.findall(rf"<dt>{name}</dt><dd>(.*?)</dd>", page)
        assert float(shown) == pytest.approx(float(measure(scores, labels)), abs=5.1e-4)


def test_several_tables_are_one_report():
    assert main(["report", "scores.csv", "scores.parquet", "-o", "report.html", "--rows", "5", "--sheet", "0"]) == 0
    page = Path("report.html").read_text()
    assert "scores.csv, scores.parquet" in page
    assert "Aesthetic scores of 31 pictures" in page
    assert "data:image" not in page


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["scores.csv", "-o", "report.pdf"], "a report is a .html file, got 'report.pdf'"),
        (["scores.txt", "-o", "report.html"], "cannot tell the format of 'scores.txt'"),
        (["missing.csv", "-o", "report.html"], "'missing.csv': No such file"),
        (["scores.csv", "-o", "no/report.html"], "cannot write 'no/report.html'"),
        (["scores.csv", "-o", "report.html", "--labels", "missing.csv"], "'missing.csv': No such file"),
        (["scores.csv", "-o", "report.html", "--labels", "others.csv"], "none of the 1 labels"),
        (["scores.csv", "-o", "report.html", "--labels", "bad.csv"], "'bad.csv', line 2: "),
        (["scores.csv", "-o", "report.html", "--labels", "none.csv"], "expected a column of paths and one of scores"),
        (["scores.csv"], "-o"),
    ],
)
def test_what_a_user_has_to_change_is_one_line_and_leaves_the_old_report(capsys, arguments, message):
    Path("report.html").write_text("the old one")
    Path("others.csv").write_text("path,score\nq.png,3\n")
    Path("bad.csv").write_text("path,score\np1.png,three\n")
    Path("none.csv").write_text("path,comment\np1.png,nice\n")
    assert message in error_line(capsys, "report", *arguments)
    assert Path("report.html").read_text() == "the old one"
