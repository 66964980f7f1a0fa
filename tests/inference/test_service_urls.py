"""What URLs lead to: only public addresses, only the very address that was checked, only so many bytes and seconds."""

import asyncio
import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pictures import encoded
from running_service import running
from tiny import photo, shared_parts

from roc4mllm import load_scorer
from roc4mllm.inference.service.limits import ServiceLimits
from roc4mllm.inference.service.url_pictures import UrlReader, is_public
from roc4mllm.processing_roc4mllm.image_reading_aesthetics import PictureError

PICTURE = encoded(photo(1), "PNG")
PUBLIC = "93.184.215.14"


class Pages(BaseHTTPRequestHandler):
    """A few pages, and ways to answer badly."""

    def do_GET(self):
        self.server.asked.append((self.headers["Host"], self.path))
        if self.path.startswith("/to/"):
            self.answer(302, b"", Location=self.path[4:])
        elif self.path == "/umlaut":
            self.send_response(302)
            self.wfile.write(b"".join(self._headers_buffer) + "Location: /picture/ä b.png\r\n\r\n".encode())
        elif self.path == "/loop":
            self.answer(301, b"", Location="/loop")
        elif self.path == "/drip":
            self.answer(200, b"", length=100)
            for _ in range(100):
                if self.server.stopping.wait(0.1):
                    return
                self.wfile.write(b"x")
        elif self.path == "/endless":
            self.answer(200, b"", length=None)
            while not self.server.stopping.is_set():
                self.wfile.write(bytes(10_000))
        elif self.path == "/short":
            self.answer(200, PICTURE, length=len(PICTURE) + 1)
        elif self.path == "/long":
            self.answer(200, b"", length=10**9)
        elif self.path == "/silent":
            self.server.stopping.wait(5)
        elif self.path.startswith("/picture"):
            self.answer(200, PICTURE)
        else:
            self.answer(404, b"")

    def answer(self, status, body, length=-1, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length < 0 else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        """A client that has seen enough hangs up."""


@pytest.fixture(scope="module")
def server():
    server = Quiet(("127.0.0.1", 0), Pages)
    server.asked, server.stopping = [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.stopping.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def names():
    """What names stand for; each look-up is kept."""
    return {"pictures.example": ["127.0.0.1"], "inside.example": ["10.0.0.1"]}


@pytest.fixture
def reader(names):
    """The loopback counts as public here, and nothing else does."""

    async def resolve(host, port):
        looked_up.append(host)
        return list(names.get(host, [host]))

    looked_up = []
    reader = UrlReader(100_000, 1.0, resolve=resolve, allowed=lambda address: address == "127.0.0.1")
    reader.looked_up = looked_up
    return reader


def read(reader, url):
    return asyncio.run(reader.read(url, hold=lambda size: None))


def refusal(reader, url):
    with pytest.raises(PictureError) as error:
        read(reader, url)
    return str(error.value)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.0.1", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1"),
        *("2002:7f00:1::", "2001:0:7f00:1::", "2001:db8::1", "3fff::1", "fd20:ce::254"),
        # of clouds, whatever the registries say of them: Azure, Alibaba, Oracle, IBM
        *("168.63.129.16", "::ffff:168.63.129.16", "100.100.100.200", "192.0.0.192", "161.26.0.10", "166.11.255.1"),
    ],
)
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses(address):
    assert is_public(address)


def test_a_picture_is_fetched_from_the_checked_address_by_its_name(server, reader):
    port = server.server_port
    assert read(reader, f"http://pictures.example:{port}/picture.png?size=1") == PICTURE
    assert server.asked[-1] == (f"pictures.example:{port}", "/picture.png?size=1")
    assert reader.looked_up == ["pictures.example"]  # once: what was checked is what was connected to
    assert read(reader, f"http://pictures.example:{port}/picture/ä b.png") == PICTURE
    assert server.asked[-1][1] == "/picture/%C3%A4%20b.png"


def test_redirects_are_followed_with_the_same_checks(server, reader):
    start = f"http://pictures.example:{server.server_port}"
    assert read(reader, f"{start}/to//to//picture") == PICTURE
    for target in (
        "http://inside.example/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "file:///etc/passwd",
        "ftp://pictures.example/x",
        "//inside.example/x",
        "http://user@pictures.example/",
    ):
        text = refusal(reader, f"{start}/to/{target}")
        assert "not a public address" in text or "not a URL that is fetched" in text, (target, text)
    assert "more than 5 redirects" in refusal(reader, f"{start}/loop")
    assert "cannot be downloaded" in refusal(reader, f"{start}/to/http://[")


def test_a_name_that_changes_its_answer_leads_nowhere_else(server, reader, names):
    names["pictures.example"] = RebindingAddresses(["127.0.0.1"], ["10.0.0.1"])
    start = f"http://pictures.example:{server.server_port}"
    assert read(reader, f"{start}/picture") == PICTURE  # asked once, and what was checked was connected to
    assert "not a public address" in refusal(reader, f"{start}/picture")
    names["pictures.example"] = RebindingAddresses(["127.0.0.1"], ["10.0.0.1"])
    assert "not a public address" in refusal(reader, f"{start}/to//picture")  # a redirect is checked anew


class RebindingAddresses:
    """What a name stands for: one list at the first look, another from then on."""

    def __init__(self, first, then):
        self.answers = [first, then]

    def __iter__(self):
        return iter(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "ftp://x.org/a.jpg", "gopher://x.org/", "data:image/png;base64,AA", "photo.jpg"),
        *("/etc/passwd", "", "http://", "http:///x", "http://x.org:99999/", "http://x.org:0/", "http://[::1/"),
        *("http://user:secret@x.org/", "http://x.org\\@127.0.0.1/", "http://" + "a" * 64 + ".org/"),
    ],
)
def test_what_is_no_url_to_be_fetched(reader, url):
    assert "not a URL" in refusal(reader, url)
    assert reader.looked_up == []


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0"]
)
def test_no_spelling_of_this_machine_is_asked(server, host):
    before = len(server.asked)
    text = refusal(UrlReader(1000, 5.0), f"http://{host}:{server.server_port}/picture")
    assert "not a public address" in text or "not known" in text
    assert len(server.asked) == before


def test_one_private_address_among_public_ones_is_enough_to_refuse(reader, names):
    names["mixed.example"] = ["127.0.0.1", "10.0.0.1"]
    assert "not a public address" in refusal(reader, "http://mixed.example/")
    names["nowhere.example"] = []
    assert "not a public address" in refusal(reader, "http://nowhere.example/")


def test_a_second_address_is_tried_where_the_first_is_closed(server, reader, names, monkeypatch):
    names["two.example"] = ["127.0.0.1", "127.0.0.1"]
    connect, tried = asyncio.open_connection, []

    async def first_is_closed(address, port, **options):
        tried.append(address)
        if len(tried) == 1:
            raise ConnectionRefusedError
        return await connect(address, port, **options)

    monkeypatch.setattr(asyncio, "open_connection", first_is_closed)
    assert read(reader, f"http://two.example:{server.server_port}/picture") == PICTURE
    assert tried == ["127.0.0.1"] * 2


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("drip", "within 1 seconds"),
        ("silent", "within 1 seconds"),
        ("endless", "too large"),
        ("long", "too large: 1000000000 bytes"),
        ("short", "cannot be downloaded"),
        ("missing", "the server answered 404"),
    ],
)
def test_servers_that_answer_badly(server, reader, page, words):
    assert words in refusal(reader, f"http://pictures.example:{server.server_port}/{page}")


def test_tls_is_asked_for_the_name_and_its_certificate_checked(server, reader):
    port = server.server_port  # which speaks no TLS
    assert "cannot be downloaded: SSLError" in refusal(reader, f"https://pictures.example:{port}/picture")


def test_nobody_answers(reader):
    with closed_port() as port:
        assert "ConnectionRefusedError" in refusal(reader, f"http://pictures.example:{port}/")


@contextmanager
def closed_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        yield bound.getsockname()[1]


@pytest.fixture(scope="module")
def scorer():
    model, processor = shared_parts("llava", ("aesthetics",))
    return load_scorer(model, processor=processor)


def test_urls_are_scored_in_order_with_errors_in_their_place(server, reader, scorer):
    start = f"http://pictures.example:{server.server_port}"
    urls = [f"{start}/picture", "http://10.0.0.1/", f"{start}/missing", f"{start}/to//picture"]
    with running(scorer, allow_urls=True, url_reader=reader) as service:
        body = '{"urls": ["' + '", "'.join(urls) + '"]}'
        answer = service.ask("POST", "/score", body, {"Content-Type": "application/json"})
        assert service.service.held.total == 0
    assert answer.status == 200
    assert [record["error"] is None for record in answer.json] == [True, False, False, True]
    assert answer.json[0]["score"] == pytest.approx(scorer(PICTURE)["score"], abs=5e-5)
    assert answer.json[1]["error"].startswith("its host is not a public address")
    assert "404" in answer.json[2]["error"]


def test_the_limit_of_a_request_ends_its_downloads_while_they_run(server, names, scorer):
    async def resolve(host, port):
        return names[host]

    limit, start = 100_000, f"http://pictures.example:{server.server_port}"
    for connections, urls, good in ((1, ["endless", "endless", "picture"], [2]), (4, ["endless"] * 4, [])):
        reader = UrlReader(10**9, 5.0, connections, resolve, allowed=lambda address: True)
        held = []
        with running(scorer, ServiceLimits(max_bytes=limit), allow_urls=True, url_reader=reader) as service:
            read = reader.read
            total = service.service.held

            async def watched(url, hold, read=read, total=total, held=held):
                return await read(url, lambda size: (hold(size), held.append(total.total)))

            reader.read = watched
            body = json.dumps({"urls": [f"{start}/{url}" for url in urls]})
            answer = service.ask("POST", "/score", body, {"Content-Type": "application/json"})
            assert total.total == 0
        errors = [record["error"] for record in answer.json]
        assert [index for index, error in enumerate(errors) if error is None] == good
        assert all(f"together, at most {limit} bytes" in error for error in errors if error)
        assert limit - 65_536 < max(held) <= limit


def test_a_redirect_may_hold_what_is_not_ascii(server, reader):
    assert read(reader, f"http://127.0.0.1:{server.server_port}/umlaut") == PICTURE
    assert server.asked[-1][1] == "/picture/%C3%A4%20b.png"


def test_the_turn_of_others_is_no_time_of_a_download(server):
    slow = UrlReader(100_000, 0.5, num_connections=1, allowed=lambda address: True)
    base = f"http://127.0.0.1:{server.server_port}"

    async def both():
        reads = [slow.read(f"{base}{page}", hold=lambda size: None) for page in ("/silent", "/silent", "/picture")]
        return await asyncio.gather(*reads, return_exceptions=True)

    first, second, picture = asyncio.run(both())
    assert "within 0.5 seconds" in str(first)
    assert "within 0.5 seconds" in str(second)
    assert picture == PICTURE
