"""What the demo shows: numbers with their range, no number for a failure, and nothing of a visitor's as markup."""

import base64
import re
from html.parser import HTMLParser

import pytest

from roc4mllm.inference.demo.cards import NOTHING, TOO_FEW, comparison_html, decimal, levels_chart, scores_html, signed
from roc4mllm.inference.demo.pictures import ScoredPicture, Upload

NASTY = '<img src=x onerror=alert(1)>"&${x}{{y}}.png'
VOID = {"img", "meter"}  # meter is closed at once


def record(score: float | None = 5.734, **changes) -> dict:
    error = None if score is not None else "cannot be read: <script>"
    values = {
        "score": score,
        "score_range": [1.0, 10.0],
        "higher_is_better": True,
        "normalized": None if score is None else (score - 1) / 9,
        "std": 1.42,
        "distribution": [0.1, 0.2, 0.4, 0.3],
        "attributes": {"aesthetics": score, "sharp<ness": 62.5},
        "attribute_ranges": {"aesthetics": [1.0, 10.0], "sharp<ness": [0.0, 100.0]},
        "model": "m",
        "revision": None,
        "version": "0",
        "error": error,
    }
    return values | changes


def scored(name: str = "a.png", thumbnail: bytes | None = b"jpeg", **changes) -> ScoredPicture:
    return ScoredPicture(Upload(name, "/x"), False, record(**changes), thumbnail)


class Elements(HTMLParser):
    """Tags, and whether each that was opened is closed."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append(dict(attrs))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", html))


def test_a_card_says_score_range_direction_spread_levels_and_attributes():
    html = scores_html([scored()], ["aesthetics", "sharp<ness"])
    Elements(html)
    text = words(html)
    for part in ("1 of 1 scored", "5.73 of 1 to 10", "higher is better, spread 1.42", "62.5 of 0 to 100"):
        assert part in text
    assert 'aria-label="level 1: 10%, level 4: 20%, level 7: 40%, level 10: 30%"' in html
    assert [float(height) for height in re.findall(r"height:([\d.]+)%", html)] == [25, 50, 100, 75]


def test_a_failed_picture_is_a_card_without_any_number():
    html = scores_html([scored(), scored("b.png", thumbnail=None, score=None)], ["aesthetics", "sharp<ness"])
    assert "1 of 2 scored, 1 failed" in html
    card = html.split("<article")[2]
    assert "No score: cannot be read: &lt;script&gt;" in card
    assert 'class="score"' not in card
    assert not re.search(r"\d", words(card))


def test_the_table_travels_in_the_page():
    html = scores_html([scored(), scored("b.png", score=None)], ["aesthetics", "sharp<ness"])
    (link,) = re.findall(r'download="scores.csv" href="data:text/csv;base64,([^"]*)"', html)
    lines = base64.b64decode(link).decode().splitlines()
    assert lines[0].startswith("path,score,normalized,std,score_min,score_max,sharp<ness,attribute,model")
    assert [line.split(",")[:2] for line in lines[1:]] == [["a.png", "5.734"], ["b.png", ""]]


def test_while_others_are_waited_for_there_is_no_table():
    html = scores_html([scored()], ["aesthetics"], expected=3)
    assert "1 of 3" in html
    assert "download" not in html


def test_what_comes_from_outside_is_never_markup():
    one = scored(NASTY, text="<script>alert(2)</script>")
    for html in (scores_html([one], ["aesthetics", "sharp<ness"]), comparison_html(one, one)):
        elements = Elements(html)
        assert "script" not in elements.tags
        assert not any("onerror" in attributes for attributes in elements.attributes)
    assert "&lt;script&gt;alert(2)" in scores_html([one], ["aesthetics"])


def test_a_comparison_says_which_is_higher_by_how_much_and_which_way_is_good():
    html = comparison_html(scored(), scored("b.png", score=6.5, higher_is_better=False))
    Elements(html)
    text = words(html)
    assert "b.png scores 0.77 higher than a.png" in text.replace(" b.png ", "b.png ").replace("  ", " ")
    assert "aesthetics 1 to 10 5.73 6.50 \N{MINUS SIGN}0.77" in text
    assert "sharp&lt;ness 0 to 100 62.5 62.5 0.0" in text
    assert html.count("height:") == 8
    assert "Both score 5.73." in comparison_html(scored(), scored("b.png"))
    assert comparison_html(scored(), None) == TOO_FEW


def test_a_model_without_levels_spread_or_further_attributes_has_a_card():
    plain = scored(distribution=None, std=None, attributes={"aesthetics": 5.734})
    html = scores_html([plain], ["aesthetics"])
    Elements(html)
    assert "spread" not in html
    assert "levels" not in html
    assert levels_chart([plain.record]) == ""
    assert "5.73" in comparison_html(plain, plain)
    assert scores_html([], ["aesthetics"]) == NOTHING


@pytest.mark.parametrize(
    ("value", "highest", "text"),
    [(5.7345, 10, "5.73"), (5.7345, 7, "5.73"), (57.345, 100, "57.3"), (0.57345, 1, "0.573"), (-0.4, 0, "-0.400")],
)
def test_decimals_follow_the_range(value, highest, text):
    assert decimal(value, highest) == text


def test_a_difference_that_is_shown_as_nothing_has_no_sign():
    assert [signed(value, 100.0) for value in (0.04, -0.04, 1.0, -1.0)] == ["0.0", "0.0", "+1.0", "\N{MINUS SIGN}1.0"]
