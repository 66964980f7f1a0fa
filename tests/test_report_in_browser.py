"""The page of `roc4mllm report` in a browser, as a desk and as a telephone show it, by mouse and by keyboard."""

# ruff: noqa: T201 (where the screenshots are)

import numpy as np
import pytest
from headless_chromium import browser, missing_programs, until
from tiny import photo

from roc4mllm.inference.tables.score_table import make_row, table_columns
from roc4mllm.inference.tables.score_writing import TableFile
from roc4mllm_cli import main

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"needs {' and '.join(missing_programs())}")
ATTRIBUTES = ["aesthetics", "light", "sharpness", "noise"]
WIDE, NARROW = (1280, 900), (390, 844, True)
CELLS = "return [...document.querySelectorAll('#rows tbody tr')].map((row) => row.cells[arguments[0]].textContent)"
SHOWN = (
    "return [...document.querySelectorAll('#rows tbody tr')].filter((row) => !row.hidden).map((row) => row.innerText)"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of forty pictures, twelve of which are there, with labels, and of two that failed."""
    folder, dice = tmp_path_factory.mktemp("album"), np.random.default_rng(0)
    lines = ["path,score"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with TableFile(folder / "scores.csv", table_columns(ATTRIBUTES)) as table:
            for number, score in enumerate((1 + 6 * dice.random(40)).tolist()):
                if number % 3 == 0:
                    photo(number, *((400, 300), (240, 400), (900, 200))[number % 9 // 3]).save(f"{number}.png")
                table.write(make_row(f"{number}.png", record(score, dice), ATTRIBUTES))
                lines.append(f"{number}.png,{np.clip(score + dice.normal(0, 1), 1, 7):.2f}")
            for name in ("a folder with a very long name/" + "x" * 120 + ".jpg", "gone.png"):
                failed = dict.fromkeys(record(1.0, dice)) | {"error": "no such file", "attributes": {}}
                table.write(make_row(name, record(1.0, dice) | failed, ATTRIBUTES))
        (folder / "ratings.csv").write_text("\n".join(lines))
        assert main(["report", "scores.csv", "-o", "report.html", "--labels", "ratings.csv"]) == 0
    return (folder / "report.html").as_uri()


def record(score, dice):
    values = dict(zip(ATTRIBUTES, [score, *(1 + 6 * dice.random(3))], strict=True))
    return {
        "score": score, "score_range": (1.0, 7.0), "higher_is_better": True, "std": float(dice.random()),
        "normalized": (score - 1) / 6, "attributes": values, "distribution": None,
        "model": "tiny", "revision": None, "version": "0.1.0", "error": None,
    }  # fmt: skip


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    return tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture(autouse=True)
def nothing_is_loaded_and_nothing_complains(tab, page):
    yield
    assert [entry["message"] for entry in tab.log("browser")] == []
    schemes = {url.partition(":")[0] for url in tab.requests()} - {"chrome", "chrome-untrusted"}  # its own first tab
    assert schemes <= {"file", "data"}


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_nothing_is_wider_than_the_window(tab, page, shots, size):
    tab.open(page, *size)
    wide, seen = tab.run("const e = document.documentElement; return [e.scrollWidth, e.clientWidth]")
    assert wide <= seen == size[0]
    outside = "return [...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll') && "
    outside += "e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 100))"
    assert tab.run(outside) == []
    tab.shoot(shots / f"{size[0]}.png")
    print(f"screenshots in {shots}")


def test_heads_sort_and_empty_cells_stay_last(tab, page):
    tab.open(page, *WIDE)
    heads = tab.run("return [...document.querySelectorAll('#rows th')].map((head) => head.textContent)")
    assert heads == ["rank", "path", "score", "std", "label", *ATTRIBUTES[1:], "error"]
    scores = tab.run(CELLS, 2)
    assert scores == [*sorted(scores[:40], key=float, reverse=True), "", ""]
    for sign, direction in ((-1, "descending"), (1, "ascending")):
        tab.click("#rows th:nth-child(6) button")  # light
        values = tab.run(CELLS, 5)
        assert values == [*sorted(values[:40], key=lambda value, sign=sign: sign * float(value)), "", ""]
        sorts = tab.run("return [...document.querySelectorAll('#rows th')].map((head) => head.ariaSort)")
        assert sorts == [direction if head == "light" else None for head in heads]
    tab.click("#rows th:nth-child(2) button")
    assert tab.run(CELLS, 1)[:4] == ["0.png", "1.png", "2.png", "3.png"]  # and not 10.png after 1.png


def test_a_search_hides_rows_until_a_link_leads_to_one(tab, page):
    tab.open(page, *NARROW)
    tab.click("#search")
    tab.press("NO such")
    assert len(tab.run(SHOWN)) == 2
    assert tab.run("return document.getElementById('count').textContent") == "2 of 42 rows shown"
    link = "document.querySelector('.tile a')"  # of the best picture, as it works without the script
    tab.run(f"location.hash = {link}.hash")
    until(lambda: len(tab.run(SHOWN)) == 42)
    top = f"return document.getElementById({link}.hash.slice(1)).getBoundingClientRect().top"
    until(lambda: 0 <= tab.run(top) < NARROW[1])


def test_by_keyboard(tab, page, shots):
    tab.open(page, *WIDE)
    tab.tab_to("e.className == 'skip'")
    tab.press("Enter")
    tab.tab_to("e.id == 'search'")
    tab.tab_to("e.closest('th') && e.textContent == 'noise'")
    tab.press("Enter")
    assert tab.run("return document.activeElement.closest('th').ariaSort") == "descending"
    tab.open(page, *WIDE)
    tab.tab_to("e.closest('.tile') && e.querySelector('img')")
    link = tab.run("return document.activeElement.hash")
    tab.press("Enter")
    names = [tab.run("return document.getElementById('large').ariaLabel")]
    tab.shoot(shots / "large.png", 900)
    for key in ("ArrowRight", "ArrowLeft"):
        tab.press(key)
        names.append(tab.run("return document.getElementById('large').ariaLabel"))
    assert names[0] == names[2] != names[1]
    tab.press("Escape")
    assert tab.run("return [document.getElementById('large').open, document.activeElement.hash]") == [False, link]
    for width, *rest in (WIDE, NARROW):  # and by mouse, or finger
        tab.open(page, width, *rest)
        tab.click(".tile a img")
        assert tab.run("return document.getElementById('large').open")
        right = tab.run("return document.getElementById('large').getBoundingClientRect().right")
        assert right <= width
        tab.shoot(shots / f"large-{width}.png", 900)
        tab.click("#large form button:last-child")
        assert not tab.run("return document.getElementById('large').open")
