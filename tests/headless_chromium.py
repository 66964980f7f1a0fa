"""Chromium without a window, steered by its driver over WebDriver (https://www.w3.org/TR/webdriver2), no library."""

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "hide-scrollbars", "no-first-run")
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "ArrowLeft": "\ue012", "ArrowRight": "\ue014"}


def missing_programs() -> list[str]:
    """What a test in the browser cannot do without."""
    names = {"chromium": ("chromium", "chromium-browser", "google-chrome"), "chromedriver": ("chromedriver",)}
    return [name for name, commands in names.items() if not any(map(shutil.which, commands))]


class Browser:
    """One tab."""

    def __init__(self, session: str):
        self._session = session

    def ask(self, path: str, **values: Any) -> Any:
        """A command of WebDriver."""
        return post(f"{self._session}/{path}", values)

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of Chromium's own."""
        return self.ask("goog/cdp/execute", cmd=command, params=parameters)

    def open(self, url: str, width: int, height: int, mobile: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        self.ask("url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function's body returns."""
        return self.ask("execute/sync", script=script, args=list(arguments))

    def press(self, *keys: str) -> None:
        """Keys by their name, or a text."""
        typed = [key for name in keys for key in (KEYS.get(name) or name)]
        actions = [{"type": kind, "value": key} for key in typed for kind in ("keyDown", "keyUp")]
        self.ask("actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def tab_to(self, condition: str) -> None:
        """Press Tab until the focused element `e` is what is looked for; whatever has the focus must show it."""
        for _ in range(60):
            self.press("Tab")
            found, shows = self.run(
                f"const e = document.activeElement; return [!!({condition}), "
                "e == document.body || getComputedStyle(e).outlineStyle != 'none']"  # the body: none has it yet
            )
            assert shows, self.run("return document.activeElement.outerHTML")
            if found:
                return
        raise AssertionError(f"no Tab leads to {condition}")

    def click(self, selector: str) -> None:
        """Click the first element, once it is in sight; a page that scrolls smoothly has not arrived at once."""
        into_sight = "document.querySelector(arguments[0]).scrollIntoView({block: 'center', behavior: 'instant'})"
        self.run(into_sight, selector)
        (element,) = self.ask("element", using="css selector", value=selector).values()
        self.ask(f"element/{element}/click")

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What came since the last call: "browser" (the console) or "performance" (the network)."""
        entries: list[dict[str, Any]] = self.ask("se/log", type=kind)
        return entries

    def requests(self) -> list[str]:
        """URLs that were asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]

    def shoot(self, file: Path, tallest: int = 4000) -> None:
        """The whole page, however long."""
        size = self.devtools("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], tallest), "scale": 1}
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser that keeps what it has to keep in a folder."""
    command = ["chromedriver", "--port=0", f"--log-path={folder / 'driver.log'}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        try:
            port = port_of(driver)
            flags = [f"--{flag}" for flag in (*FLAGS, f"user-data-dir={folder / 'profile'}")]
            options = {
                "goog:chromeOptions": {"args": flags},
                "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
            }
            sessions = f"http://127.0.0.1:{port}/session"
            session = f"{sessions}/{post(sessions, {'capabilities': {'alwaysMatch': options}})['sessionId']}"
            yield Browser(session)
            send(session, "DELETE")
        finally:
            driver.terminate()


def port_of(driver: "subprocess.Popen[str]") -> int:
    """Where the driver listens."""
    assert driver.stdout is not None
    for line in driver.stdout:
        if found := re.search(r"successfully on port (\d+)", line):
            return int(found[1])
    raise AssertionError("chromedriver did not start")


def post(url: str, values: dict[str, Any]) -> Any:
    return send(url, "POST", json.dumps(values).encode())


def send(url: str, method: str, body: bytes | None = None) -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from None


def until(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """What a condition becomes true with."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return value
