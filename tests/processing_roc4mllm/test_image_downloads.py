"""Pictures by URL, from a server of this machine that behaves in every way servers do."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pictures
import pytest
from pictures import difference, encoded
from tiny import photo

from roc4mllm.processing_roc4mllm import image_reading_aesthetics as reading
from roc4mllm.processing_roc4mllm.image_reading_aesthetics import PictureError, read_image

PHOTO = photo(0)
PIXELS = np.asarray(PHOTO)


class Handler(BaseHTTPRequestHandler):
    """Each path of the server behaves in a way of its own."""

    def do_GET(self):  # noqa: N802 - the name is the standard library's
        path = self.path.partition("?")[0]
        getattr(self, "answer_" + path.strip("/").partition("/")[0])()

    def log_message(self, *args):
        pass

    def send(self, code: int = 200, body: bytes = b"", **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def answer_picture(self):
        self.send(body=encoded(PHOTO, "PNG"))

    def answer_page(self):
        self.send(body=b"<!DOCTYPE html><html></html>")

    def answer_nothing(self):
        self.send()

    def answer_missing(self):
        self.send(404)

    def answer_big(self):
        self.send(Content_Length=10_000)

    def answer_endless(self):
        self.send()
        for _ in range(10_000):
            self.wfile.write(bytes(1000))

    def answer_short(self):
        self.send(body=encoded(PHOTO, "PNG")[:-10], Content_Length=len(encoded(PHOTO, "PNG")))

    def answer_silent(self):
        self.server.stopped.wait(5)

    def answer_slow(self):
        self.send()
        while not self.server.stopped.wait(0.05):
            self.wfile.write(b"x")

    def answer_moved(self):
        self.send(302, Location="/picture")

    def answer_file(self):
        self.send(302, Location="file:///etc/hostname")

    def answer_ftp(self):
        self.send(302, Location="ftp://127.0.0.1:1/a.png")

    def answer_loop(self):
        self.send(302, Location=self.path + "/x")

    def answer_garbage(self):
        self.wfile.write(b"this is not HTTP\r\n\r\n")


class Server(ThreadingHTTPServer):
    """A server of this machine; connections that a client gives up are no errors of the test."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


@pytest.fixture(scope="module")
def server():
    with Server(("127.0.0.1", 0), Handler) as server:
        server.stopped = threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.stopped.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


class TestDownloads:
    @pytest.mark.parametrize("path", ["/picture", "/moved", "/picture?a=b&c=%20d", "/picture/with a space/ä.png"])
    def test_a_picture(self, server, path):
        assert difference(server + path, PIXELS) == 0

    def test_the_case_of_the_scheme(self, server):
        assert difference(server.replace("http", "HTTP") + "/picture", PIXELS) == 0

    @pytest.mark.parametrize(
        "path, message",
        [
            ("/missing", "cannot be downloaded: HTTP Error 404: Not Found"),
            ("/page", "not a picture.*DOCTYPE"),
            ("/nothing", "the file is empty"),
            ("/short", "the connection broke off 10 bytes before the end"),
            ("/file", "cannot be downloaded: HTTP Error 302.*file:///etc/hostname"),
            ("/ftp", "cannot be downloaded: .*unknown url type: ftp"),
            ("/loop", "cannot be downloaded: .*infinite loop"),
            ("/garbage", "cannot be downloaded: "),
        ],
    )
    def test_an_error(self, server, path, message):
        with pytest.raises(PictureError, match=message):
            read_image(server + path)

    @pytest.mark.parametrize("path, count", [("/big", "10000"), ("/endless", r"\d+")])
    def test_too_large(self, server, path, count, monkeypatch):
        monkeypatch.setattr(reading, "MAX_BYTES", 5000)
        with pytest.raises(PictureError, match=f"too large: {count} bytes or more, at most 5000 are read"):
            read_image(server + path)

    @pytest.mark.parametrize("path", ["/silent", "/slow"])
    def test_too_slow(self, server, path, monkeypatch):
        """A byte now and then keeps a connection alive, but not for ever."""
        monkeypatch.setattr(reading, "URL_TIMEOUT", 0.3)
        start = time.monotonic()
        with pictures.time_limit(9), pytest.raises(PictureError, match="cannot be downloaded within 0.3 seconds"):
            read_image(server + path)
        assert time.monotonic() - start < 5

    @pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.png", "http://", "http://[::1", "http://127.0.0.1:x/a.png"])
    def test_no_server(self, url):
        with pytest.raises(PictureError, match="cannot be (downloaded|read): "):
            read_image(url)
