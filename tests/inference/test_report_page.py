"""The page: what a browser would find in it, whatever the table holds. Read by html.parser: no browser is needed."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import bomb, encoded, rotated
from PIL import Image
from shards import make_tar
from tiny import photo

from roc4mllm.inference.inputs import members
from roc4mllm.inference.inputs.containers import read_tar
from roc4mllm.inference.report import thumbnails
from roc4mllm.inference.report.rows import collect_scores
from roc4mllm.inference.report.thumbnails import LONG_EDGE, make_thumbnail
from roc4mllm.inference.report.write_report import write_report

VOID = {"meta", "img", "input"}  # elements without an end
HOSTILE = [
    "<script>alert(1)</script>.jpg",
    "\"onload='alert(1)'.jpg",
    "</title></style></bdi><img src=https://x.org/a.png>",
    "line\nbreak\x1b[31m\x00.jpg",
    "rtl\u202egpj.exe",
    "lone\udcffsurrogate.jpg",
    "&lt;b&gt;.jpg",
    "{facts}{0}.jpg",
    "https://example.org/a.jpg",
]


class Page(HTMLParser):
    """Elements as (tag, attributes, text), after checking that every element is closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict, list[str]]] = []
        self.open: list[int] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} stands twice"
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag, attrs):
        assert tag in {"line", "rect", "polygon", "path"}, "only SVG knows <tag/>"
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.elements[self.open[-1]][0] == tag
        self.open.pop()

    def handle_data(self, data):
        for place in self.open:
            self.elements[place][2].append(data)

    def all(self, tag: str, **attributes: str) -> list[tuple[dict, str]]:
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}.items()
        return [(has, "".join(text)) for kind, has, text in self.elements if kind == tag and wanted <= has.items()]

    def one(self, tag: str, **attributes: str) -> tuple[dict, str]:
        (found,) = self.all(tag, **attributes)
        return found

    def table(self) -> list[list[str]]:
        """Cells of the rows of the large table; heads first."""
        body = re.search(r'<table id="rows">.*?</table>', self.rawdata_of, re.DOTALL)[0]
        rows = [Page(line).elements for line in re.findall(r"<tr.*?</tr>", body, re.DOTALL)]
        return [["".join(text) for tag, _, text in row if tag in ("td", "th")] for row in rows]

    @classmethod
    def read(cls, path: Path) -> "Page":
        text = path.read_text(encoding="utf-8")
        page = cls(text)
        page.rawdata_of = text
        return page


def row(path: str, score: float | None, **more: object) -> dict:
    found = {"path": path, "score": score, "std": 1.0, "score_min": 1.0, "score_max": 7.0, "model": "m", "error": None}
    return found | ({} if score is not None else {"std": None, "error": "no such file"}) | more


def report(tmp_path: Path, table: list[dict], /, **options: object) -> Page:
    write_report(collect_scores([table]), tmp_path / "report.html", **({"name": "scores.csv"} | options))
    return Page.read(tmp_path / "report.html")


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def many(count: int = 40, **columns: object) -> list[dict]:
    """Rows of rising scores without pictures; a column may be a function of the place."""
    made = [{name: value(n) if callable(value) else value for name, value in columns.items()} for n in range(count)]
    return [row(f"p{n:03d}.jpg", 1.5 + 5 * n / count, **more) for n, more in enumerate(made)]


def check_safe_and_sound(page: Page) -> None:
    """What must hold of every report."""
    (_, style), (_, script) = page.one("style"), page.one("script")
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    for kind, content in (("style", style), ("script", script)):
        found = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{found}';" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert not {"link", "iframe", "object", "embed", "base", "audio", "video", "use", "image"} & {
        e[0] for e in page.elements
    }
    assert not re.search(r"url\(|@import|https?:", style + script)
    ids = [has["id"] for _, has, _ in page.elements if "id" in has]
    assert len(ids) == len(set(ids))
    for tag, has, _ in page.elements:
        assert not [name for name in has if name.startswith("on") or name in ("style", "srcset", "action")], tag
        if "src" in has:
            assert has["src"].startswith("data:image/jpeg;base64,")
            assert has["alt"]
        for name in ("aria-labelledby", "aria-controls", "for"):
            assert has.get(name, ids[0]) in ids
        if tag == "a":
            assert has["href"][0] == "#"
            assert has["href"][1:] in ids
        if tag == "svg":
            assert (
                has.get("role") == "img" and has["aria-label"]
                if "chart" in has.get("class", "")
                else has["aria-hidden"]
            )
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


# Hostile texts -------------------------------------------------------------------------------------------------------


def test_texts_of_others_stay_texts(tmp_path):
    rows = [row(path, 2.0 + n / 2, model=HOSTILE[0], **{HOSTILE[2]: n / 7}) for n, path in enumerate(HOSTILE)]
    rows += [row(path, None, error=f"{path} is bad", model=HOSTILE[1]) for path in HOSTILE]
    rows += [row(f"{n}.jpg", 3.0 + n / 10, model=HOSTILE[0], label=3.0, **{HOSTILE[2]: n / 5}) for n in range(20)]
    page = report(tmp_path, rows, name=HOSTILE[2])
    check_safe_and_sound(page)
    text = "".join(page.elements[0][2])
    for shown in (
        *HOSTILE[:3],
        r"line\nbreak\x1b[31m\x00.jpg",
        r"rtl\u202egpj.exe",
        r"lone\udcffsurrogate.jpg",
        *HOSTILE[6:],
    ):
        assert shown in text
    raw = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", raw)
    assert page.all("td", class_="path")[0][1] in HOSTILE[8]


def test_nothing_is_fetched_for_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr(thumbnails, "open_image", lambda path: pytest.fail(f"opened {path}"))
    page = report(tmp_path, [row("HTTPS://example.org/a.jpg", 4.0)])
    assert [text for _, text in page.all("span", class_="picture gone")] == ["on the web, not fetched"]


# What is shown -------------------------------------------------------------------------------------------------------


def test_sheets_show_the_best_and_the_worst_in_order_with_their_pictures(tmp_path):
    rows = []
    for n in range(6):
        photo(n).save(tmp_path / f"{n}.png")
        rows.append(row(str(tmp_path / f"{n}.png"), 2.0 + n, distribution=[0.1, 0.2, 0.7]))
    (tmp_path / "5.png").unlink()
    page = report(tmp_path, rows, sheet=2)
    check_safe_and_sound(page)
    best, worst = (page.all("ol", **{"aria-label": f"{name} first"})[0][1] for name in ("best", "worst"))
    assert re.findall(r"(\d)\.png", best) == ["5", "4"]
    assert re.findall(r"(\d)\.png", worst) == ["0", "1"]
    assert "no such file" in best
    assert [has["alt"] for has, _ in page.all("img")] == [
        "4.png, score 6.000",
        "0.png, score 2.000",
        "1.png, score 3.000",
    ]
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(has["src"].split(",")[1])))) for has, _ in page.all("img")
    ]
    assert np.abs(shown[0].astype(float) - shown[1]).mean() > 1
    assert np.abs(shown[1] - np.asarray(photo(0), dtype=float)).mean() < 12  # JPEG
    assert len(page.all("svg", class_="levels")) == 4


def test_table_is_sorted_searchable_and_reachable_by_keyboard(tmp_path):
    page = report(tmp_path, [*many(5, light=lambda n: n / 3), row("gone.jpg", None)])
    heads, *rows = page.table()
    assert heads == ["rank", "path", "score", "std", "light", "error"]
    assert [cells[:3] for cells in rows[:2]] == [["1", "p004.jpg", "5.500"], ["2", "p003.jpg", "4.500"]]
    assert rows[-1] == ["", "gone.jpg", "", "", "", "no such file"]
    marks = {text: has for has, text in page.all("th", scope="col") if "data-first" in has}
    assert {name: has.get("aria-sort") for name, has in marks.items()} == dict.fromkeys(heads) | {
        "score": "descending"
    }
    assert len(page.all("button", type="button")) == len(heads) + 2  # two turn the pages of the large pictures
    assert page.one("input", type="search")[0]["aria-controls"] == "rows"
    assert page.one("div", class_="scroll tall")[0]["tabindex"] == "0"
    assert page.one("label", for_="search")[1] == "Search"


def test_lower_is_better_turns_the_sheets_and_the_order(tmp_path):
    page = report(tmp_path, many(10, higher_is_better=False))
    assert page.table()[1][1] == "p000.jpg"
    assert "p000.jpg" in page.all("ol", **{"aria-label": "best first"})[0][1]
    assert [text for has, text in page.all("th") if has.get("aria-sort") == "ascending"] == ["score"]
    assert "lower is better" in page.all("p", class_="facts")[1][1]


def test_models_are_shown_one_by_one_and_sorted_by_normalized_scores(tmp_path):
    rows = many(12) + [row(f"q{n}.jpg", 10.0 * n, score_min=0.0, score_max=100.0, model="other") for n in range(11)]
    page = report(tmp_path, rows)
    check_safe_and_sound(page)
    assert [text for _, text in page.all("h2")] == ["Models side by side", "m", "other", "Table"]
    assert not page.all("ol", **{"aria-label": "largest difference first"})  # no picture is in both
    heads, *cells = page.table()
    assert heads == ["rank", "path", "model", "normalized", "score", "std"]
    assert [text for _, text in page.all("button")][:5] == ["rank", "path", "model", "normalized", "std"]
    assert cells[12] == ["1", "q10.jpg", "other, 0 to 100", "1.000", "100.0", "1.000"]
    stats = [re.sub(r"\s+", "", text) for _, text in page.all("dl", class_="stats")]
    assert stats[0].startswith("Scored12Mean3.79")
    assert stats[1].startswith("Scored11Mean50.00")


def test_models_that_share_pictures_are_set_against_each_other(tmp_path):
    rows = many(12) + [row(f"p{n:03d}.jpg", 90.0 - n % 3, score_max=100.0, model="other") for n in range(12)]
    page = report(tmp_path, rows)
    check_safe_and_sound(page)
    section = page.one("section", id="models")[1]
    assert "Aesthetic scores of 12 pictures" in page.one("h1")[1]
    assert "12 pictures in both" in section
    assert len(page.all("circle", class_="dot")) == 12
    assert "p011.jpg" in page.one("ol", **{"aria-label": "largest difference first"})[1]


@pytest.mark.parametrize("names, chart", [("", None), ("ab", "line"), ("abc", "radar"), ("abcdefghijkl", "line")])
def test_attributes_get_the_chart_that_their_number_allows(tmp_path, names, chart):
    page = report(tmp_path, many(40, **{name: lambda n, name=name: (n * ord(name)) % 7 for name in names}))
    check_safe_and_sound(page)
    assert bool(page.all("polygon")) == (chart == "radar")
    assert bool(page.all("line", class_="between")) == (chart == "line")
    assert len(page.all("section", id="attributes-0")) == (chart is not None)


def test_labels_give_figures_a_scatter_plot_and_the_largest_differences(tmp_path):
    rows = many(30, label=lambda n: 1.5 + n / 6 + (n == 4))
    page = report(tmp_path, rows, measures={"SRCC": lambda x, y: 0.875})
    check_safe_and_sound(page)
    text = page.one("section", id="labels-0")[1]
    assert "Pictures with label30" in text
    assert "SRCC0.875" in text
    assert len(page.all("circle", class_="dot")) == 30
    assert "p004.jpg" in page.one("ol", **{"aria-label": "largest difference first"})[1][:80]
    small = [row(f"{n}.jpg", n / 1e4, label=n / 1e4 + 1e-5, score_min=0, score_max=0.01) for n in range(9)]
    assert "label 0.00081, score -1e-05" in report(tmp_path, small).one("section", id="labels-0")[1]


def test_charts_count_all_rows_where_the_table_lists_some(tmp_path):
    rows = many(3000) + [row(f"gone{n}.jpg", None) for n in range(30)]
    page = report(tmp_path, rows, rows=100, sheet=3)
    check_safe_and_sound(page)
    _, *listed = page.table()
    assert len(listed) == 100
    assert sum(cells[1].startswith("gone") for cells in listed) == 30
    assert "100 of 3,030 rows" in page.one("section", id="table")[1]
    bars = [int(text.split(": ")[1].split()[0]) for _, text in page.all("rect", class_="bar") if "pictures" in text]
    assert sum(bars) == 2 * 3000  # scores and std
    assert "30 × no such file" in page.one("section", id="failures")[1]


@pytest.mark.parametrize(
    "rows",
    [
        [row("only.jpg", 4.0, std=None)],
        [row("gone.jpg", None)],
        [{"path": "a.jpg", "score": "4"}, {"path": "b.jpg", "score": "4"}],
        many(40, light=1.0, label=4.0),
        [row("a.jpg", 0.3, std=1.2), row("b.jpg", 0.1 + 0.2, std=1.2 + 1e-15)],
        [row(f"{n}.jpg", (-1) ** n * 1e99, std=1e-9, light=n * 1e90, label=-1e99) for n in range(30)],
    ],
    ids=["one picture", "failures only", "foreign table", "nothing varies", "rounding", "huge"],
)
def test_poor_tables_make_whole_pages(tmp_path, rows):
    page = report(tmp_path, rows, measures={"SRCC": lambda x, y: float("nan")})
    check_safe_and_sound(page)
    assert "nan" not in "".join(page.one("main")[1]).lower()
    assert len(page.table()) == len(rows) + 1


def test_page_is_made_for_phones_for_the_dark_and_for_paper(tmp_path):
    page = report(tmp_path, many(3))
    assert page.one("meta", name="viewport")[0]["content"] == "width=device-width, initial-scale=1"
    style = page.one("style")[1]
    for rule in ("prefers-color-scheme: dark", "@media print", "@media (max-width", ":focus-visible"):
        assert rule in style
    assert page.elements[0][1] == {"lang": "en"}


def test_the_models_own_score_beside_a_taste_is_a_column_and_no_attribute(tmp_path):
    """Neither on the radar nor an outlier where the taste differs from it."""
    page = report(tmp_path, many(40, general_score=lambda n: 6.0 if n == 20 else 1.5 + n / 8, color=lambda n: n / 40))
    heads, *rows = page.table()
    assert "general_score" in heads
    by_path = {cells[heads.index("path")]: cells[heads.index("general_score")] for cells in rows}
    assert by_path["p020.jpg"] == "6.000"
    scores = collect_scores([many(40, general_score=lambda n: n / 8, color=lambda n: n / 40)])
    (pictures,) = scores.pictures.values()
    assert {tuple(picture.attributes) for picture in pictures} == {("color",)}
    assert "general_score" not in report(tmp_path, many(40)).table()[0]
    assert "An attribute far from" not in report(tmp_path, many(40, general_score=lambda n: n)).rawdata_of


# Thumbnails ----------------------------------------------------------------------------------------------------------


def test_thumbnail_is_small_upright_and_leaves_the_file_alone(tmp_path):
    path = tmp_path / "large.jpg"
    scene = Image.new("RGB", (1600, 1200), "white")
    scene.paste("red", (0, 0, 1600, 300))  # the sky
    path.write_bytes(rotated(scene, 6, "JPEG"))
    before = path.read_bytes()
    small = make_thumbnail(str(path))
    picture = decoded(small.uri)
    assert picture.size == (small.width, small.height) == (LONG_EDGE, LONG_EDGE * 3 // 4)
    assert picture.getpixel((160, 20))[1] < 60 < 200 < picture.getpixel((160, 200))[1]
    assert path.read_bytes() == before


def test_a_jpeg_is_decoded_at_a_small_scale(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(thumbnails, "read_image", lambda image: sizes.append(image.size) or image)
    Image.new("RGB", (4000, 3000)).save(tmp_path / "a.jpg")
    make_thumbnail(str(tmp_path / "a.jpg"))
    assert sizes == [(1000, 750)]


@pytest.mark.parametrize(
    "content, reason",
    [(None, "no such file"), (b"", "empty"), (b"text", "not a picture"), (bomb(20000, 20000), "exceeds limit")],
)
def test_a_picture_that_cannot_be_shown_says_why(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    small = make_thumbnail(str(tmp_path / "a.png"))
    assert small.uri is None
    assert reason in small.error


def test_truncated_file_and_nul_in_a_name_are_reasons_too(tmp_path):
    content = encoded(photo(1).resize((200, 200)), "JPEG")
    (tmp_path / "half.jpg").write_bytes(content[: len(content) // 2])
    assert "truncated" in make_thumbnail(str(tmp_path / "half.jpg")).error
    assert make_thumbnail("a\0b.jpg").error


def test_pictures_inside_shards_are_shown_and_no_shard_is_read_for_each(tmp_path, monkeypatch):
    contents = [encoded(photo(seed), "PNG") for seed in range(3)]
    archive = make_tar(tmp_path / "a.tar.gz", {f"{n}.png": content for n, content in enumerate(contents)}, "w:gz")
    pq.write_table(pa.table({"image": contents}), tmp_path / "b.parquet")
    names = [f"{archive}/{n}.png" for n in range(3)] + [f"{tmp_path}/b.parquet#{n}" for n in range(3)]
    opened = []
    monkeypatch.setattr(members, "read_tar", lambda path: opened.append(path) or read_tar(path))
    page = report(tmp_path, [row(name, 2.0 + n / 2) for n, name in enumerate([*names, f"{archive}/gone.png"])])
    shown = {has["alt"].partition(",")[0]: decoded(has["src"]) for has, _ in page.all("img")}
    assert set(shown) == {"0.png", "1.png", "2.png", "b.parquet#0", "b.parquet#1", "b.parquet#2"}
    for n in range(3):
        difference = np.abs(np.asarray(shown[f"{n}.png"], float) - np.asarray(photo(n).convert("RGB"), float)).mean()
        assert difference < 12
        assert shown[f"{n}.png"].tobytes() == shown[f"b.parquet#{n}"].tobytes()
    assert shown["0.png"].tobytes() != shown["1.png"].tobytes()
    assert "it is no longer in the archive" in page.rawdata_of
    assert opened == [archive, archive]  # names, then pictures
