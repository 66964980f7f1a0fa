"""The service's routes, on real sockets: what is answered when everybody behaves."""

# ruff: noqa: T201 (counts are told)

import io
import json
import logging
import re
import sys
import tempfile

import pytest
from pictures import encoded, half
from running_service import FORM, Gate, at_once, form, running
from tiny import photo, shared_parts

from roc4mllm import __version__, load_scorer
from roc4mllm.inference.service.limits import ServiceLimits
from roc4mllm.inference.service.logs import JsonLines

FILES = [encoded(photo(seed, 64, 48 + seed), "PNG") for seed in range(3)]
KEY = "correct-horse"


@pytest.fixture(scope="module")
def scorer():
    model, processor = shared_parts("llava", ("aesthetics", "light"))
    return load_scorer(model, processor=processor)


@pytest.fixture(scope="module")
def gate(scorer):
    return Gate(scorer)


@pytest.fixture(scope="module")
def service(gate):
    with running(gate.scorer, ServiceLimits(max_batch=4)) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(scorer):
    with running(scorer, api_keys=["another-key", KEY]) as found:
        yield found


def comparable(record):
    """A record with its numbers rounded to what float32 keeps whatever stands beside it in a batch."""
    return json.loads(json.dumps(record), parse_float=lambda text: round(float(text), 4))


# Scores --------------------------------------------------------------------------------------------------------------


def test_records_are_the_pipelines_in_order_with_errors_in_their_place(service, scorer):
    files = [FILES[0], half(FILES[1]), FILES[1], b"no picture", FILES[2]]
    direct = scorer(files, batch_size=4)
    answer = service.score(*files)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert [record["error"] is None for record in answer.json] == [True, False, True, False, True]
    assert abs(answer.json[0]["score"] - answer.json[2]["score"]) > 1e-3
    for record, expected in zip(answer.json, direct, strict=True):
        assert list(record) == list(expected)
        assert record["score"] == (expected["score"] and pytest.approx(expected["score"], abs=5e-5))
        assert comparable(record)["attributes"].keys() == expected["attributes"].keys()
        same = ("score_range", "higher_is_better", "model", "revision", "version", "error")
        assert [record[name] for name in same] == [expected[name] for name in same]


def test_a_single_broken_picture_is_a_record_and_with_strict_a_422(service):
    answer = service.score(b"no picture")
    assert (answer.status, answer.json[0]["score"]) == (200, None)
    assert "not a picture" in answer.json[0]["error"]
    strict = service.score(b"no picture", path="/score?strict=true")
    assert (strict.status, strict.json) == (422, answer.json)
    assert service.score(FILES[0], path="/score?strict=true").status == 200


def test_a_large_file_is_not_written_to_disk(service, scorer, monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *arguments, **options: pytest.fail("a file was written"))
    picture = encoded(photo(3, 1200, 900), "BMP")
    assert len(picture) > 3_000_000
    assert service.score(picture).json[0]["score"] == pytest.approx(scorer(picture)["score"], abs=5e-5)


def test_attributes_may_be_chosen(service, scorer):
    answer = service.score(FILES[0], path="/score?attributes=light")
    assert list(answer.json[0]["attributes"]) == ["light"]
    assert answer.json[0]["score"] == pytest.approx(scorer(FILES[0])["attributes"]["light"], abs=5e-5)
    for wrong in ("colour", "", "light,light"):
        refused = service.score(FILES[0], path=f"/score?attributes={wrong}")
        assert refused.status == 422, wrong
        assert "attribute" in refused.json["detail"]


def test_pictures_of_many_clients_are_scored_together(service, gate, scorer):
    expected = scorer.score(FILES).tolist()
    batches = service.metric("roc4mllm_batch_size_count")
    with gate.shut():
        calls = [lambda file=FILES[number % 3]: service.score(file) for number in range(12)]
        calls.append(lambda: (service.wait_for(12), gate._open.set()))
        answers = at_once(calls)[:12]
    assert [answer.json[0]["score"] for answer in answers] == pytest.approx(expected * 4, abs=5e-5)
    assert sum(gate.sizes) == 12
    assert len(gate.sizes) <= 5, gate.sizes  # whatever was there when the first came, then fours
    assert service.metric("roc4mllm_batch_size_count") == batches + len(gate.sizes)
    print(f"12 clients in batches of {gate.sizes}")


def test_the_authors_path_answers_one_record_for_one_picture(service):
    one = service.ask("POST", "/api/roc4mllm", form(FILES[0], field="image"), FORM)
    assert one.status == 200
    assert one.json == service.score(FILES[0]).json[0]
    two = service.ask("POST", "/api/roc4mllm", form(*FILES[:2], field="files"), FORM)
    assert [record["error"] for record in two.json] == [None, None]


# What it tells of itself ---------------------------------------------------------------------------------------------


def test_health_ready_and_model(service):
    assert service.ask("GET", "/health").status == 200
    assert service.ask("GET", "/ready").status == 200
    told = service.ask("GET", "/model").json
    assert told["attributes"] == {"aesthetics": [1.0, 5.0], "light": [1.0, 5.0]}
    assert (told["version"], told["score_range"], told["higher_is_better"]) == (__version__, [1.0, 5.0], True)
    assert told["limits"] == vars(ServiceLimits(max_batch=4))


def test_draining_refuses_new_pictures_and_is_not_ready(service):
    service.service.draining = True
    try:
        for answer in (service.ask("GET", "/ready"), service.score(FILES[0])):
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert service.ask("GET", "/health").status == 200
    finally:
        service.service.draining = False
    assert service.score(FILES[0]).status == 200


def test_metrics_are_prometheus_text(service):
    names = ("scored", "failed")
    before = [service.metric(f'roc4mllm_pictures_total{{outcome="{name}"}}') for name in names]
    asked = service.metric('roc4mllm_requests_total{path="/score",status="200"}')
    service.score(FILES[0], b"", FILES[1])
    after = [service.metric(f'roc4mllm_pictures_total{{outcome="{name}"}}') for name in names]
    assert [one - other for one, other in zip(after, before, strict=True)] == [2, 1]
    assert service.metric('roc4mllm_requests_total{path="/score",status="200"}') == asked + 1
    assert service.metric("roc4mllm_queue_length") == 0
    assert service.metric('roc4mllm_request_seconds_count{path="/score"}') >= 1
    answer = service.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    sample = re.compile(r'[a-z0-9_]+(\{([a-z]+="[^"]*",?)+\})? [-+0-9.eInf]+')
    lines = [line for line in answer.body.decode().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not sample.fullmatch(line)] == []


def test_paths_that_clients_invent_are_counted_as_one(service):
    for number in range(5):
        assert service.ask("GET", f"/invented/{number}").status == 404
    assert service.metric('roc4mllm_requests_total{path="other",status="404"}') >= 5
    assert b"invented" not in service.ask("GET", "/metrics").body


def test_docs_need_no_network_and_openapi_tells_every_answer(service):
    page = service.ask("GET", "/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert (
        re.findall(rb"<script|<link|src=|https?://(?!127\.0\.0\.1)", page.body.replace(b"https://\xe2\x80\xa6", b""))
        == []
    )
    described = service.ask("GET", "/openapi.json").json
    assert set(described["paths"]) == {"/score", "/api/roc4mllm", "/model", "/metrics", "/health", "/ready"}
    score = described["paths"]["/score"]["post"]
    assert set(score["responses"]) == {
        *("200", "400", "401", "403", "408", "413", "415", "422", "429", "503", "504")
    }  # fmt: skip
    assert set(score["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    record = described["components"]["schemas"]["PictureRecord"]["properties"]
    assert set(service.score(FILES[0]).json[0]) <= set(record)
    for path in described["paths"]:
        assert path.encode() in page.body


# Who may ask ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"X-API-Key": KEY},
        {"Authorization": "Bearer of-a-proxy", "X-API-Key": KEY},
    ],
    ids=["bearer", "own", "behind a proxy"],
)
def test_a_right_key_opens(guarded, headers):
    assert guarded.ask("POST", "/score", form(FILES[0]), FORM | headers).status == 200
    assert guarded.ask("GET", "/model", headers=headers).status == 200
    assert guarded.ask("GET", "/metrics", headers=headers).status == 200


WRONG = ["", KEY[:-1], KEY + "x", KEY.upper(), "correct-h\xf6rse", f"{KEY} another-key"]


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_key_does_not(guarded, key):
    for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}, {"Authorization": f"Basic {KEY}"}, {}):
        answer = guarded.ask("POST", "/score", form(FILES[0]), FORM | headers)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    for path in ("/model", "/metrics"):
        assert guarded.ask("GET", path, headers={"X-API-Key": key}).status == 401
    for path in ("/health", "/ready", "/docs", "/openapi.json"):
        assert guarded.ask("GET", path).status == 200


def test_no_other_origin_is_let_in(service):
    asked = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    for answer in (service.ask("OPTIONS", "/score", headers=asked), service.score(FILES[0], **asked)):
        assert not [name for name in answer.headers if name.startswith("access-control")]


# Logs ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def log():
    """Lines as `roc4mllm serve` writes them."""
    stream = io.StringIO()
    handler, logger = logging.StreamHandler(stream), logging.getLogger("roc4mllm")
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_a_request_is_one_line_of_json_without_names_queries_or_content(service, log):
    service.score(FILES[0], b"secret", path="/score?attributes=light", names=["private.png", "x\x1b[31m"])
    service.ask("GET", "/%0a%7b%22level%22:1%7d%1b[2J?key=secret")
    service.ask("GET", "/" + "a" * 1000)
    service.ask("GET", "/health")  # probes are not worth a line
    # a request of an earlier test, whose client did not wait, may be logged late
    scored, invented, long = [line for line in log() if line.get("status") in (200, 404)][-3:]
    assert (scored["path"], scored["status"], scored["pictures"], scored["failed"]) == ("/score", 200, 2, 1)
    assert set(scored) == {
        *("time", "level", "event", "method", "path", "status", "ms", "pictures", "failed", "client")
    }  # fmt: skip
    assert invented["path"] == '/\n{"level":1}\x1b[2J'  # escaped in its line, which it did not end
    assert len(long["path"]) < 400
    assert not [word for word in ("private", "secret", "light", "PNG") if word in json.dumps([scored, invented])]


def test_a_traceback_is_one_line_too():
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "it failed", (), sys.exc_info())
    (line,) = JsonLines().format(record).splitlines()
    assert "first\nsecond" in json.loads(line)["exception"]
