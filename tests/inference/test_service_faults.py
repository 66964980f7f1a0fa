"""What clients do wrong, on real sockets: the right status each time, and others are served meanwhile."""

# ruff: noqa: T201 (counts are told)

import os
import re
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from fastapi import HTTPException
from pictures import GREY, RGB, bomb, chunk, encoded
from running_service import BOUNDARY, FORM, Gate, answered, at_once, connected, form, head, running
from tiny import photo, shared_parts

from roc4mllm import load_scorer
from roc4mllm.inference.service import server
from roc4mllm.inference.service.limits import ServiceLimits
from roc4mllm.inference.service.request_bodies import HeldBytes

FILES = [encoded(photo(seed, 64, 48 + seed), "PNG") for seed in range(3)]
LIMITS = ServiceLimits(max_batch=4, queue_size=8, max_bytes=1_000_000, max_pixels=50_000_000, max_files=4, timeout=2.0)
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def gate():
    model, processor = shared_parts("llava", ("aesthetics", "light"))
    return Gate(load_scorer(model, processor=processor))


@pytest.fixture(scope="module")
def service(gate):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "HEADER_SECONDS", 1.0)
        with running(gate.scorer, LIMITS) as found:
            yield found


@pytest.fixture(autouse=True)
def nothing_is_left(service):
    yield
    service.wait_for(0)
    assert service.service.held.total == 0
    assert service.score(FILES[0]).json[0]["error"] is None


OPENED = form(b"")[: -len(form()) - 2]  # a form up to the first byte of its file


def served(service, count: int = 5) -> float:
    """The longest of some requests by others, in seconds."""
    longest = 0.0
    for _ in range(count):
        start = time.monotonic()
        assert service.score(FILES[0]).json[0]["error"] is None
        longest = max(longest, time.monotonic() - start)
    return longest


# Slow clients --------------------------------------------------------------------------------------------------------


def test_slow_bodies_end_with_408_and_others_are_served(service):
    def send_slowly(_):
        with connected(service, head(100_000), OPENED) as connection:
            start = time.monotonic()
            connection.settimeout(0.1)
            while time.monotonic() - start < 10:
                connection.sendall(b"-")
                try:
                    return answered(connection).status, time.monotonic() - start
                except TimeoutError:
                    continue
        return None

    with ThreadPoolExecutor(20) as pool:
        slow = pool.map(send_slowly, range(20))
        longest = served(service)
        answers = list(slow)
    assert {status for status, _ in answers} == {408}
    # a client's clock starts when it is scheduled after the first bytes, on a busy machine some time later
    assert all(LIMITS.timeout - 1 < seconds < LIMITS.timeout + 4 for _, seconds in answers), answers
    assert longest < LIMITS.timeout
    print(f"20 clients at 10 bytes a second: 20 times 408; others waited {longest:.2f} s at most")


def test_headers_that_never_end_are_hung_up_on(service):
    def send_slowly(first: bytes):
        with connected(service, first) as connection:
            start = time.monotonic()
            connection.settimeout(0.1)
            while time.monotonic() - start < 10:
                try:
                    if connection.recv(100) == b"":
                        return time.monotonic() - start
                except TimeoutError:
                    connection.sendall(b"x")
                except ConnectionError:
                    return time.monotonic() - start
        return None

    with ThreadPoolExecutor(20) as pool:
        slow = pool.map(send_slowly, [b"GET /health HTTP/1.1\r\nX: "] * 20)
        longest = served(service)
        seconds = list(slow)
    assert all(0.5 < second < 6 for second in seconds)  # the machine may be busy
    with connected(service) as silent:  # not even a first byte
        assert silent.recv(1) == b""
    print(f"21 connections without headers: all closed after {max(seconds):.1f} s; others waited {longest:.2f} s")


def test_a_second_request_on_a_connection_has_its_own_time(service):
    body = form(FILES[0])
    with connected(service, head(len(body)) + body) as connection:
        assert answered(connection).status == 200
        time.sleep(0.7)
        connection.sendall(head(len(body)))
        time.sleep(0.7)  # longer than the headers may take from the first byte on; it is the body that is slow
        connection.sendall(body)
        assert answered(connection).status == 200


def test_a_client_that_leaves_takes_its_pictures_along(service, gate):
    body = form(*FILES)
    with gate.shut():
        with connected(service, head(len(body)) + body):
            while not gate.sizes:  # the model has begun with some of them
                time.sleep(0.01)
            service.wait_for(3)
            first = list(gate.sizes)
        with connected(service, head(len(body)) + body):
            service.wait_for(3 + sum(first))
        service.wait_for(sum(first))  # what the model works on already, if it took any
    service.wait_for(0)
    assert sum(gate.sizes) == sum(first)
    assert service.metric('roc4mllm_requests_total{path="/score",status="499"}') == 2
    print(f"6 pictures of 2 clients that left: {6 - sum(first)} never scored")


def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing(service):
    for _ in range(10):
        with connected(service, head(100_000), form(FILES[0])):
            pass
    assert served(service, 1) < 2


# Too much ------------------------------------------------------------------------------------------------------------


def test_oversized_bodies_are_413_however_long_they_say_they_are(service):
    with connected(service, head(LIMITS.max_bytes + 1)) as connection:  # waiting for the body would end in a 408
        assert answered(connection).status == 413
    statuses = [service.score(bytes(LIMITS.max_bytes)).status]  # sent to the end, and the answer is still read
    pieces = [b"%x\r\n" % len(piece) + piece + b"\r\n" for piece in [OPENED] + [bytes(65536)] * 40]
    with connected(service, head(), *pieces) as connection:  # no length at all
        statuses.append(answered(connection).status)
    with connected(service, head(10**18), OPENED) as connection:
        statuses.append(answered(connection).status)
    assert statuses == [413] * 3
    assert service.service.held.total == 0
    print(f"4 oversized bodies: 4 times 413; others waited {served(service):.2f} s at most")


def test_a_length_that_is_too_short_is_a_broken_form(service):
    body = form(FILES[0])
    with connected(service, head(len(body) // 2) + body[: len(body) // 2]) as connection:
        assert answered(connection).status == 400
    two = form(*FILES[:2])
    answer = service.ask("POST", "/score", two[:-20], FORM)
    assert (answer.status, "breaks off" in answer.json["detail"]) == (400, True)  # not the first file alone


def test_too_many_files_are_413(service):
    assert service.score(*FILES, FILES[0]).status == 200
    answer = service.score(*FILES, *FILES)
    assert (answer.status, answer.json) == (413, {"detail": "more than 4 pictures in one request"})


def test_all_bodies_together_are_bounded():
    held = HeldBytes(100)
    with held.share() as first, held.share() as second:
        first.grow(60)
        second.grow(30)
        with pytest.raises(HTTPException) as refusal:
            second.grow(20)
        assert (refusal.value.status_code, refusal.value.headers) == (429, {"Retry-After": "1"})
    assert held.total == 0
    with held.share() as third:
        third.grow(100)


def black_png(width: int, height: int, bits: int = 1, colour: int = GREY) -> bytes:
    """A whole and valid PNG."""
    rows = zlib.compressobj(4)
    row = bytes(1 + (width * bits * (3 if colour == RGB else 1) + 7) // 8)
    data = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def peak_memory() -> float:
    """The most memory that this process ever held, in MB, since [`forget_peak`]; children have their own."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def forget_peak() -> float:
    """Let the peak be what is held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def test_decompression_bombs_are_errors_and_cost_nothing(service):
    whole = [black_png(10_000, 8_000, 8, RGB), black_png(10_000, 10_000)]  # 240 MB; the first is none to Pillow
    bombs = [*whole, bomb(10_000, 17_000), bomb(60_000, 60_000)] * 2
    assert max(map(len, bombs)) < LIMITS.max_bytes
    before, start = forget_peak(), time.monotonic()
    answers = at_once([partial(service.score, bomb) for bomb in bombs])  # as many as the queue has room for
    seconds, grown = time.monotonic() - start, peak_memory() - before
    assert [answer.status for answer in answers] == [200] * LIMITS.queue_size
    assert all("too many pixels" in answer.json[0]["error"] for answer in answers)
    assert grown < 50
    assert seconds < 4  # decoding them takes longer
    print(f"8 bombs of 80 to 3600 million pixels at once: 8 errors in {seconds:.2f} s, {grown:.0f} MB more memory")


def test_a_large_picture_within_the_limit_is_scored(service):
    assert service.score(black_png(1500, 1500), black_png(500, 400, 8, RGB)).json[1]["error"] is None


def test_a_flood_is_told_to_come_back_and_what_was_accepted_is_scored(service, gate):
    with gate.shut(), ThreadPoolExecutor(60) as pool:
        flood = [pool.submit(service.score, FILES[number % 3]) for number in range(60)]
        service.wait_for(LIMITS.queue_size)
        while sum(future.done() for future in flood) < 60 - LIMITS.queue_size:
            time.sleep(0.01)
        assert len(service.service.batcher) == LIMITS.queue_size
        assert service.metric("roc4mllm_queue_length") == LIMITS.queue_size
        for path in ("/health", "/ready", "/model"):
            assert service.ask("GET", path).status == 200
        with connected(service, head(900_000)) as connection:  # refused before its body is sent
            assert answered(connection).status == 429
        gate._open.set()
        answers = [future.result() for future in flood]
    statuses = [answer.status for answer in answers]
    assert statuses.count(200) == LIMITS.queue_size
    assert statuses.count(429) == 60 - LIMITS.queue_size
    assert all(answer.json[0]["error"] is None for answer in answers if answer.status == 200)
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status == 429)
    print(f"60 clients, room for {LIMITS.queue_size}: {statuses.count(200)} scored, {statuses.count(429)} times 429")


def test_pictures_that_wait_too_long_are_504_and_forgotten(service, gate):
    with gate.shut(), ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(service.score, FILES[:2]))
        assert [answer.status for answer in answers] == [504, 504]
        assert len(service.service.batcher) <= 2  # what the model has begun
    print("2 requests beyond the time limit: 2 times 504")


# Wrong requests ------------------------------------------------------------------------------------------------------

NO_FILES = f"--{BOUNDARY}--\r\n".encode()
TEXT_FIELD = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"\r\n\r\nphoto.jpg\r\n--{BOUNDARY}--\r\n'
NO_NAME = f"--{BOUNDARY}\r\nContent-Disposition: form-data\r\n\r\nx\r\n--{BOUNDARY}--\r\n"
LONG_HEADER = f"--{BOUNDARY}\r\nX: {'a' * 9000}\r\n\r\nx\r\n--{BOUNDARY}--\r\n"
WRONG = [
    (415, b"x", {"Content-Type": "image/png"}),
    (415, b"x", {"Content-Type": "text/plain"}),
    (415, b"x", {"Content-Type": "application/x-www-form-urlencoded"}),
    (415, b"x", {"Content-Type": "multipart/mixed; boundary=x"}),
    (415, b"x", {}),
    (415, b"", {}),
    (400, b"x", {"Content-Type": "multipart/form-data"}),
    (400, b"x", {"Content-Type": "multipart/form-data; boundary=" + "b" * 300}),
    (400, b"x", FORM),
    (400, NO_NAME.encode(), FORM),
    (400, LONG_HEADER.encode(), FORM),
    (400, b"", FORM),
    (422, NO_FILES, FORM),
    (422, TEXT_FIELD.encode(), FORM),
    (422, TEXT_FIELD.replace("photo", "photo" * 500).encode(), FORM),
    (422, b"", JSON),
    (422, b"{", JSON),
    (422, b"[" * 100_000, JSON),
    (422, b'["https://x.org/a.jpg"]', JSON),
    (422, b'{"urls": []}', JSON),
    (422, b'{"urls": "https://x.org/a.jpg"}', JSON),
    (422, b'{"urls": [1]}', JSON),
    (422, b'{"urls": ["' + b"a" * 5000 + b'"]}', JSON),
    (422, b"\xff\xfe", JSON),
    (413, b'{"urls": ["a", "a", "a", "a", "a"]}', JSON),
    (403, b'{"urls": ["https://x.org/a.jpg"]}', JSON),
]


def test_wrong_types_and_forms_have_their_status(service):
    statuses = [service.ask("POST", "/score", body, headers).status for _, body, headers in WRONG]
    assert statuses == [status for status, _, _ in WRONG]
    for body in (b"garbage\r\n\r\n", b"POST /score HTTP/1.1\r\n\r\n", b"GET /health\r\n\r\n"):
        with connected(service, body) as connection:
            assert answered(connection).status == 400
    assert service.ask("GET", "/score").status == 405
    print(f"{len(WRONG) + 4} wrong requests: {len(WRONG) + 4} times the right status")


NAMES = [
    "../../../../etc/passwd",
    "/etc/passwd",
    "..\\..\\windows\\system.ini",
    "C:\\boot.ini",
    "file:///etc/passwd",
    "http://127.0.0.1/",
    "$(touch pwned)`id`;|&",
    "a" * 3000,
    "\x00",
    "\x1b[31m\x07",
    "\udcff\udcfe",
    "%2e%2e%2f%00.png",
    "ｎａｍｅ\u202egnp.exe",
    ".",
    "",
    "CON",
]


def test_names_of_files_are_never_used(service, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = service.score(FILES[0]).json
    records = [service.score(FILES[0], names=[name]) for name in NAMES]
    assert [answer.status for answer in records] == [200] * len(NAMES)
    assert all(answer.json[0]["score"] == pytest.approx(expected[0]["score"], abs=5e-5) for answer in records)
    assert not [answer for answer in records if b"passwd" in answer.body]
    assert os.listdir(tmp_path) == []
    print(f"{len(NAMES)} names that are paths, commands or control characters: {len(NAMES)} scored as any other")
