"""What a reader gets: tables, files and the page, from results made of numbers alone."""

import csv
import io
import json
import re
import resource
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from roc4mllm.trainer.evaluation_plots import HEIGHT, PANELS, WIDTH, draw_panel, make_figure
from roc4mllm.trainer.evaluation_report import check_folder, failure_lines, format_text, report_html, write_report
from roc4mllm.trainer.evaluation_results import Evaluation, PredictedPicture, measure_attribute

ODD = '<script>alert("x")</script> & {braces} $x$ 猫 \udcff.png'


def make_evaluation(n: int = 60, failed: int = 1, names=("aesthetics",), theme=str, **facts) -> Evaluation:
    """`n` scored pictures and some that failed, in themes of three sizes."""
    random = np.random.default_rng(0)
    pictures = []
    for index in range(n + failed):
        labels = {name: float(random.uniform(1, 7)) for name in names}
        predicted = {name: label * 0.6 + 1.5 + float(random.normal(0, 0.4)) for name, label in labels.items()}
        where, columns = f"ratings.csv, line {index + 2}", {"theme": theme(index * 3 // (2 * (n + failed)))}
        if index < n:
            row = PredictedPicture(f"{index}.png", where, labels, predicted, columns, std=1.0)
        else:
            row = PredictedPicture(ODD, where, labels, {}, columns, error="no such <file>")
        pictures.append(row)
    known = {
        "model": "tiny",
        "revision": "abc123",
        "version": "0.1.0",
        "higher_is_better": True,
        "data": "ratings.csv",
    }
    known |= {"protocols": [], "overlap": None}
    known |= {"date": "2026-11-20T12:00:00+00:00", "notes": [], "by": "theme", "bootstraps": 50, "seed": 0}
    results = {
        name: measure_attribute(pictures, name, (1.0, 7.0), 4.0, "theme", name == names[0], 50) for name in names
    }
    return Evaluation(**known | facts, results=results, pictures=pictures)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return make_evaluation()


# Text ----------------------------------------------------------------------------------------------------------------


def test_table_shows_metrics_intervals_segments_groups_and_failures(evaluation):
    head, title, metrics, segments, groups, failed = format_text(evaluation).split("\n\n")
    assert head.splitlines()[:2] == [
        "model tiny, revision abc123; roc4mllm 0.1.0",
        "data ratings.csv: 61 pictures, 60 scored, 1 failed",
    ]
    assert title == "aesthetics, 1 to 7: 60 pictures, 1 rated and failed"
    srcc = evaluation.results["aesthetics"].metrics["srcc"]
    assert metrics.splitlines()[1].split() == [
        "SRCC",
        f"{srcc.value:.3f}",
        f"{srcc.low:.3f}",
        "to",
        f"{srcc.high:.3f}",
    ]
    assert [line.split()[0] for line in metrics.splitlines()[1:-1]] == [
        "SRCC", "PLCC", "PLCC", "KRCC", "MAE", "RMSE", "accuracy",
    ]  # fmt: skip
    assert [line.split()[:2] for line in segments.splitlines()[1:-1]] == [
        ["0–20", "%"],
        ["20–80", "%"],
        ["80–100", "%"],
    ]
    assert [line.split()[:3] for line in groups.splitlines()] == [
        ["theme", "n", "SRCC"], ["0", "41", groups.split()[7]], ["1", "*", "19"], ["*", "fewer", "than"],
    ]  # fmt: skip
    assert "line 62: " in failed
    assert failed.endswith("no such <file>")


def test_columns_are_aligned(evaluation):
    for block in format_text(evaluation).split("\n\n")[2:5]:
        lines = [line for line in block.splitlines() if re.search(r"\d\.\d{3}", line)]
        assert len({len(line) for line in lines}) == 1


def test_what_a_reader_must_know_stands_on_top():
    text = format_text(make_evaluation(higher_is_better=False, notes=["aesthetics: mapped"], bootstraps=0))
    assert "\naesthetics: mapped\nthe model's scores are better the lower they are; correlations keep" in text
    assert "bootstrap" not in text


def test_missing_value_shows_its_reason():
    text = format_text(make_evaluation(n=2, failed=0))
    assert re.search(r"SRCC +– +2 pictures, a correlation needs 3", text)


def test_many_groups_and_failures_are_cut_and_counted():
    text = format_text(make_evaluation(n=90, failed=25, theme=lambda third: object()))
    assert "20 of 90 groups, the largest; metrics.json has all" in text
    assert "… and 5 more" in text


# Files ---------------------------------------------------------------------------------------------------------------


def test_folder_holds_numbers_predictions_plots_and_page(evaluation, tmp_path):
    assert write_report(evaluation, tmp_path) == ["metrics.json", "predictions.csv", "report.png", "report.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(write_report(evaluation, tmp_path))
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    result = numbers["attributes"]["aesthetics"]
    srcc = evaluation.results["aesthetics"].metrics["srcc"]
    assert result["metrics"]["srcc"] == {"value": srcc.value, "low": srcc.low, "high": srcc.high, "reason": None}
    assert (numbers["model"], numbers["revision"], numbers["data"]) == ("tiny", "abc123", "ratings.csv")
    assert (numbers["pictures"], numbers["failed"], result["n"], numbers["seed"]) == (61, 1, 60, 0)
    assert (result["score_range"], len(result["calibration"]), len(result["curve"])) == ([1.0, 7.0], 10, 4)
    assert numbers["failures"] == [{"picture": ODD, "where": "ratings.csv, line 62", "error": "no such <file>"}]
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.size == (3 * 630, 780)


def test_predictions_have_a_row_for_every_picture(evaluation, tmp_path):
    write_report(evaluation, tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "predictions.csv").read_text("utf-8"))))
    assert list(rows[0]) == [
        "picture", "where", "aesthetics_label", "aesthetics_predicted", "aesthetics_std", "theme", "error",
    ]  # fmt: skip
    assert [row["picture"] for row in rows[:-1]] == [f"{index}.png" for index in range(60)]
    first = evaluation.pictures[0]
    assert float(rows[0]["aesthetics_predicted"]) == pytest.approx(first.predicted["aesthetics"], abs=1e-6)
    assert (rows[-1]["aesthetics_predicted"], rows[-1]["error"]) == ("", "no such <file>")
    assert rows[-1]["picture"] == ODD.replace("\udcff", "\\udcff")


def test_failed_writing_leaves_the_old_files(evaluation, tmp_path):
    (tmp_path / "metrics.json").write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_report(evaluation, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("metrics.json", "old")]


def test_without_matplotlib_numbers_and_predictions_are_written(evaluation, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert write_report(evaluation, tmp_path) == ["metrics.json", "predictions.csv"]


def test_folder_is_checked_before_scoring(tmp_path):
    assert check_folder(tmp_path / "new" / "report", "nowhere.csv").is_dir()
    assert list((tmp_path / "new" / "report").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="expected a folder for the report, got the file"):
        check_folder(tmp_path / "file", "nowhere.csv")
    (tmp_path / "predictions.csv").touch()
    with pytest.raises(ValueError, match="would overwrite the ratings"):
        check_folder(tmp_path, tmp_path / "predictions.csv")


# The page ------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags with their attributes, and the texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)


def test_page_needs_nothing_from_elsewhere_and_escapes_what_others_wrote():
    page = Page(report_html(make_evaluation(model=ODD, data=ODD, by="theme", theme=lambda index: ODD)))
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "file"} & set(tags)
    assert all(attributes["src"].startswith("data:image/png;base64,") for tag, attributes in page.tags if tag == "img")
    assert tags.count("img") == 3
    assert not any({"href", "onload", "onerror"} & attributes.keys() for _, attributes in page.tags)
    assert any(ODD in text for text in page.texts)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in [found for _, found in page.tags]


def test_page_shows_what_the_table_shows(evaluation):
    words = " ".join(Page(report_html(evaluation)).texts).split()
    text = format_text(evaluation)
    assert set(re.findall(r"\d\.\d{3}", text)) <= set(re.findall(r"\d\.\d{3}", " ".join(words)))


def test_plots_of_odd_names_and_several_attributes_are_drawn(tmp_path):
    write_report(make_evaluation(names=("$x$ 猫 {a}", "color"), bootstraps=0), tmp_path)
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.size == (3 * 630, 2 * 780)
        assert len(picture.convert("RGB").getcolors(1_000_000)) > 100


@pytest.mark.parametrize("title", PANELS)
def test_legend_covers_no_point(evaluation, title):
    figure = make_figure(WIDTH, HEIGHT)
    axis = figure.subplots()
    draw_panel(axis, title, evaluation, "aesthetics")
    figure.draw_without_rendering()
    legend, plot = axis.get_legend().get_window_extent(), axis.get_window_extent()
    assert 0 <= legend.y0 < legend.y1 < axis.xaxis.label.get_window_extent().y0 < plot.y0


@pytest.mark.parametrize("n", [0, 1, 2])
def test_page_of_few_pictures_is_drawn(n):
    page = Page(report_html(make_evaluation(n=n, failed=3)))
    assert [tag for tag, _ in page.tags].count("img") == 3


def test_a_picture_without_a_name_is_told_by_its_place_alone():
    rows = [
        PredictedPicture(name, "a.parquet, row 1", {}, {}, error="damaged") for name in ("a.parquet, row 1", "1.png")
    ]
    assert failure_lines(rows) == ["a.parquet, row 1: damaged", "a.parquet, row 1: 1.png: damaged"]
