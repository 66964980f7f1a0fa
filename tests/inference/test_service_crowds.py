"""More connections than the service has room for, on real sockets: all of them are answered, none with a 5xx."""

# ruff: noqa: T201 (counts are told)

import resource
import selectors
from collections import Counter
from contextlib import ExitStack

import pytest
from pictures import encoded
from running_service import Gate, answered, connected, form, head, running
from tiny import photo, shared_parts

from roc4mllm import load_scorer
from roc4mllm.inference.service import server
from roc4mllm.inference.service.limits import ServiceLimits

PICTURE = encoded(photo(1), "PNG")
LIMITS = ServiceLimits(max_batch=4, queue_size=8, max_files=4, timeout=20.0)
FLOOD = 1200


@pytest.fixture(scope="module")
def gate():
    model, processor = shared_parts("llava", ("aesthetics",))
    return Gate(load_scorer(model, processor=processor))


def first_readable(connections, count: int) -> set:
    """As many connections as there are answers to wait for; `select` itself takes no more than 1024."""
    found: set = set()
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while len(found) < count:
            ready = selector.select(timeout=10)
            assert ready, f"{len(found)} answers, expected {count}"
            for key, _ in ready:
                found.add(key.fileobj)
                selector.unregister(key.fileobj)
    return found


@pytest.fixture
def many_files():
    """Leave to have as many files open as a flood takes, its clients' ends too."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[0] < 2 * FLOOD + 300:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * FLOOD + 300, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_flood_of_connections_is_told_to_come_back_and_probes_are_answered(gate, many_files):
    body = form(PICTURE)
    request = head(len(body)) + body
    with running(gate.scorer, LIMITS) as service, ExitStack() as clients:
        with gate.shut():
            flood = [clients.enter_context(connected(service, request)) for _ in range(FLOOD)]
            assert service.ask("GET", "/health").status == 200  # with all of them connected
            readable = first_readable(flood, FLOOD - LIMITS.queue_size)
            refused = [answered(connection) for connection in readable]
        statuses = Counter(answered(connection).status for connection in set(flood) - readable)
        assert service.score(PICTURE).status == 200
    statuses.update(answer.status for answer in refused)
    assert statuses == {200: LIMITS.queue_size, 429: FLOOD - LIMITS.queue_size}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    print(f"{FLOOD} connections at once, room for {LIMITS.queue_size}: {dict(statuses)}, probes answered")


def test_connections_beyond_what_the_process_may_open_are_429_at_once(gate, monkeypatch):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 40)
    monkeypatch.setattr(server, "OTHER_FILES", 20)  # nine of the refused may linger
    monkeypatch.setattr(server, "HEADER_SECONDS", 1.5)
    with running(gate.scorer, LIMITS) as service, ExitStack() as clients:
        idle = [clients.enter_context(connected(service)) for _ in range(40)]
        with ExitStack() as late:
            more = [late.enter_context(connected(service)) for _ in range(20)]
            assert [answered(connection).status for connection in more] == [429] * 20  # without a word of theirs
        answers = [service.score(PICTURE) for _ in range(10)]
        assert {(answer.status, answer.headers["retry-after"]) for answer in answers} == {(429, "1")}
        assert "too many connections" in answers[0].json["detail"]
        assert all(connection.recv(1) == b"" for connection in idle)  # hung up on, which makes room
        assert service.score(PICTURE).status == 200
        assert service.metric('roc4mllm_requests_total{path="other",status="429"}') == 30
    print("40 idle connections, room for 40: 30 others told to come back, served once those were hung up on")


def test_as_many_files_as_the_system_allows(monkeypatch):
    told = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: told.append(limits))
    for soft, hard, expected in (
        (1024, 20_000, 16_000),
        (1024, 1024, 1024),
        (20_000, 30_000, 16_000),
        (-1, -1, 16_000),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limits=(soft, hard): limits)
        assert server.allow_files(16_000) == expected
    assert told == [(16_000, 20_000)]
