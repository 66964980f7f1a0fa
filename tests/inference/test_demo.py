"""The demo's handlers and its guard, without Gradio; `test_cli_demo.py` asks the page as it is served."""

import asyncio
import importlib.metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny import photo, scorer_parts

from roc4mllm import load_scorer
from roc4mllm.inference.demo.cards import ASK, NOTHING, TOO_FEW
from roc4mllm.inference.demo.page import Handlers, introduction, take_upload, uploads_of
from roc4mllm.inference.demo.serve_demo import POLICY, Guard, check_gradio, launch

ATTRIBUTES = ("aesthetics", "light")


@pytest.fixture(scope="module")
def scorer():
    model, processor = scorer_parts("llava", ATTRIBUTES, score_range=(1.0, 10.0))
    return load_scorer(model, processor=processor)


# Handlers ------------------------------------------------------------------------------------------------------------


class PageError(Exception):
    def __init__(self, message: str, print_exception: bool):
        super().__init__(message)


STAND_IN = SimpleNamespace(skip=lambda: "unchanged", Radio=dict, Error=PageError)


def dropped(folder: Path) -> list[dict]:
    """Two photographs and a broken file, as Gradio passes them on."""
    photo(1).save(folder / "1.png")
    photo(2).save(folder / "2.png")
    (folder / "3.jpg").write_bytes(b"no picture")
    return [{"path": str(folder / name), "orig_name": f"my {name}"} for name in ("1.png", "3.jpg", "2.png")]


def test_results_grow_card_by_card_and_then_fill_every_part_of_the_page(scorer, tmp_path):
    *growing, last = Handlers(scorer, STAND_IN, max_files=5).score(dropped(tmp_path), False, [])
    assert [update[1].count("<article") for update in growing] == [1, 2]
    assert all(value == "unchanged" for update in growing for value in (update[0], *update[2:]))
    pictures, scores, first, second, comparison, subject, explanation = last
    assert [one.failed for one in pictures] == [False, True, False]
    assert scores.count("<article") == 3
    choices = [("1. my 1.png", 0), ("3. my 2.png", 2)]
    assert (first, second) == ({"choices": choices, "value": 0}, {"choices": choices, "value": 2})
    assert subject == first
    assert "scores" in comparison
    assert explanation == ASK


def test_an_emptied_drop_zone_empties_the_page(scorer):
    (last,) = Handlers(scorer, STAND_IN, max_files=5).score(None, False, [])
    empty = {"choices": [], "value": None}
    assert last == ([], NOTHING, empty, empty, TOO_FEW, empty, NOTHING)


def test_comparison_and_explanation_of_what_was_scored(scorer, tmp_path):
    handlers = Handlers(scorer, STAND_IN, max_files=5)
    *_, (pictures, *_) = handlers.score(dropped(tmp_path), False, [])
    assert handlers.compare(0, 1, pictures) == TOO_FEW
    assert "my 1.png" in handlers.compare(0, 2, pictures)
    html = handlers.explain(2, "light", pictures)
    assert "my 2.png: light" in html
    assert html.count("<img") >= 2
    assert handlers.explain(1, "light", pictures) == ASK
    assert handlers.explain(0, "light", []) == NOTHING
    (tmp_path / "1.png").unlink()
    with pytest.raises(PageError, match="my 1.png: the picture is no longer kept"):
        handlers.explain(0, "light", pictures)


def test_introduction_names_model_range_and_limits(scorer):
    text = introduction(scorer, 7)
    for part in ("scores aesthetics from 1 to 10; higher is better", "Up to 7 pictures", "after 15 minutes"):
        assert part in text


def test_names_are_the_visitors_without_control_characters():
    files = [{"path": "/a/x.png", "orig_name": "b\x1b[2J\ud800.png"}, {"path": "/a/y.png", "orig_name": None}]
    assert [upload.name for upload in uploads_of(files)] == ["b\\x1b[2J\\ud800.png", "y.png"]


@pytest.mark.parametrize("url", ["http://127.0.0.1/x", "HTTPS://example.org/a.png"])
def test_a_url_in_place_of_an_upload_is_refused(url):
    with pytest.raises(ValueError, match="expected a file that was uploaded"):
        asyncio.run(take_upload(url))
    assert asyncio.run(take_upload("/folder/a.png")) == "/folder/a.png"


# The guard -----------------------------------------------------------------------------------------------------------


async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": b"page"})


def asked(method: str, **headers: str) -> tuple[int, dict[bytes, bytes]]:
    sent = []

    async def send(message):
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "headers": raw}
    asyncio.run(Guard(answer, max_bytes=1000)(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("POST", {"content_length": "1000"}, 200),
        ("POST", {"content_length": "1001"}, 413),
        ("POST", {"transfer_encoding": "chunked"}, 411),
        ("POST", {"content_length": "-1", "transfer_encoding": "chunked"}, 411),
        ("POST", {}, 200),
    ],
)
def test_bodies_have_a_limit_and_every_answer_the_policy(method, headers, status):
    got, answered = asked(method, **headers)
    assert got == status
    assert answered[b"content-security-policy"] == POLICY.encode()
    assert answered[b"referrer-policy"] == b"no-referrer"
    assert "http" not in POLICY  # no other host may be asked


# Gradio --------------------------------------------------------------------------------------------------------------


def test_without_gradio_the_error_names_the_extra(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ImportError, match=r"pip install 'roc4mllm\[demo\]'"):
        check_gradio()


def test_an_old_gradio_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", {"gradio": "3.18.0"}.__getitem__)
    with pytest.raises(ImportError, match=r"Gradio 6 or newer, found 3\.18\.0"):
        check_gradio()
    monkeypatch.setattr(importlib.metadata, "version", {"gradio": "6.31.0"}.__getitem__)
    check_gradio()


def test_an_address_that_is_taken_is_named():
    def taken(**options):
        raise OSError("Cannot find empty port in range: set the GRADIO_SERVER_PORT environment variable")

    with pytest.raises(OSError, match=r"^cannot listen on 127\.0\.0\.1, port 80: taken, or not of this machine"):
        launch(SimpleNamespace(launch=taken), server_name="127.0.0.1", server_port=80)
