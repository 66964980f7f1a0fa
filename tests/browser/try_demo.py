# ruff: noqa: T201 (a script that tells what it sees)
"""
The demo as a visitor uses it, in headless Chromium, wide and narrow, by mouse and by keyboard.

Run by hand, because it needs Gradio, Selenium and Chromium with its driver (Debian: chromium, chromium-driver):

    pip install 'roc4mllm[demo]' selenium && python tests/browser/try_demo.py SCREENSHOTS

It prints a line per check, ends with an exception at the first that fails, and leaves screenshots to look at.
"""

import base64
import csv
import json
import os
import shutil
import socket
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import PIL
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from roc4mllm import load_scorer
from roc4mllm.inference.demo.serve_demo import serve_demo

PHOTOS = Path(__file__).resolve().parents[2] / "examples" / "photos"
WIDTHS = {"wide": (1280, 1000), "narrow": (390, 844)}
outside: list[str] = []


def watch_connections() -> None:
    """Note where this process connects to beyond the loopback."""
    connect = socket.socket.connect

    def noted(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and isinstance(address, tuple) and not str(address[0]).startswith("127."):
            outside.append(str(address))
        connect(self, address)

    socket.socket.connect = noted


def browser(downloads: str) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": downloads})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    options.binary_location = shutil.which("chromium") or ""
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


class Visit:
    """One browser on the page, with the steps that the checks are made of."""

    def __init__(self, driver: webdriver.Chrome, url: str, screenshots: Path):
        self.driver, self.url, self.screenshots = driver, url, screenshots
        self.hosts: set[str] = set()

    def open(self, size: str) -> None:
        width, height = WIDTHS[size]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "narrow"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.get(self.url)
        self.until(lambda: self.driver.find_elements(By.CSS_SELECTOR, "#pictures input[type=file]"), "the page")

    def until(self, condition, what: str, seconds: float = 60):
        wait = WebDriverWait(self.driver, seconds, 0.2, ignored_exceptions=[StaleElementReferenceException])
        return wait.until(lambda _: condition(), f"waited for {what}")

    def all(self, selector: str):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return " ".join(element.text for element in self.all(selector))

    def drop(self, *paths: Path) -> None:
        self.all("#pictures input[type=file]")[0].send_keys("\n".join(map(str, paths)))

    def tab(self, name: str) -> None:
        (found,) = [tab for tab in self.all("[role=tab]") if tab.text == name and tab.is_displayed()]
        found.click()

    def choose(self, selector: str, text: str) -> None:
        (found,) = [label for label in self.all(f"{selector} label") if text in label.text]
        found.click()

    def shoot(self, name: str) -> None:
        """The whole page, however long."""
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 4000), "scale": 1}
        shot = {"format": "png", "captureBeyondViewport": True, "clip": clip}
        data = self.driver.execute_cdp_cmd("Page.captureScreenshot", shot)["data"]
        (self.screenshots / f"{name}.png").write_bytes(base64.b64decode(data))

    def no_sideways_scrolling(self) -> None:
        wide, seen = self.driver.execute_script(
            "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= seen, f"the page is {wide} pixels wide in a window of {seen}"

    def note_hosts(self) -> None:
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = urlsplit(message["params"]["request"]["url"])
                if url.scheme in ("http", "https", "ws", "wss"):
                    self.hosts.add(url.hostname or "")


def scores_and_download(visit: Visit, folder: Path) -> None:
    broken = folder / "broken <b>.jpg"
    broken.write_bytes(b"no picture")
    visit.drop(PHOTOS / "coffee.png", PHOTOS / "brick.png", broken, PHOTOS / "rocket.jpg", PHOTOS / "chelsea.png")
    visit.until(lambda: "4 of 5 scored, 1 failed" in visit.text("#scores [role=status]"), "five cards")
    cards = visit.all("#scores .card")
    names = [card.find_element(By.TAG_NAME, "h3").text for card in cards]
    assert names == ["coffee.png", "brick.png", "broken <b>.jpg", "rocket.jpg", "chelsea.png"], names
    scorer = load_scorer()
    assert f"{scorer(str(PHOTOS / 'coffee.png'))['score']:.2f} of 1 to 7" in cards[0].text.replace("\n", " ")
    assert "No score: not a picture" in cards[2].text
    assert not cards[2].find_elements(By.CLASS_NAME, "score")
    visit.all("a.download")[0].click()
    table = folder / "scores.csv"
    visit.until(table.exists, "the download")
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert [row["path"] for row in rows] == names
    assert (rows[2]["score"], rows[2]["error"][:13]) == ("", "not a picture")
    assert abs(float(rows[0]["score"]) - scorer(str(PHOTOS / "coffee.png"))["score"]) < 1e-5
    print("scores: five cards, one of them an error; the table has the same rows:", ", ".join(rows[0]))


def comment(visit: Visit) -> None:
    visit.all("#comment input")[0].click()
    visit.until(lambda: len(visit.all("#scores blockquote")) == 4, "four comments")
    print("comment:", visit.all("#scores blockquote")[0].text[-80:])


def comparison(visit: Visit) -> None:
    visit.tab("Compare")
    visit.until(lambda: "coffee.png scores" in visit.text("#comparison .verdict"), "the first two compared")
    visit.choose("#second", "rocket.jpg")
    visit.until(lambda: "rocket.jpg" in visit.text("#comparison .verdict"), "another chosen")
    assert len(visit.all("#comparison tbody tr")) == 6
    assert len(visit.all("#comparison .pair img")) == 2
    print("comparison:", visit.text("#comparison .verdict"))


def explanation(visit: Visit) -> None:
    visit.tab("Explain")
    visit.choose("#subject", "chelsea.png")
    visit.choose("#attribute", "sharpness")
    visit.all("#explain")[0].click()
    visit.until(lambda: "chelsea.png: sharpness" in visit.text("#explanation h3"), "the explanation")
    width = visit.driver.execute_script("return document.querySelector('#explanation .overlay').naturalWidth")
    assert width == 720, width
    print("explanation:", visit.text("#explanation figcaption > p:last-child"))


def keyboard(visit: Visit) -> None:
    """With Tab, Enter and Space alone: comment, download, compare, explain; each stop is seen to be one."""
    visit.open("wide")
    visit.drop(PHOTOS / "coffee.png", PHOTOS / "brick.png", PHOTOS / "rocket.jpg")
    visit.until(lambda: "3 of 3 scored" in visit.text("#scores [role=status]"), "three cards")
    keys = Typist(visit)
    keys.to("the checkbox", "e.type == 'checkbox'", Keys.SPACE)
    visit.until(lambda: len(visit.all("#scores blockquote")) == 3, "three comments")
    keys.to("the table", "e.className == 'download'")
    keys.back_to("Compare", "e.role == 'tab' && e.innerText == 'Compare'", Keys.ENTER)
    keys.to("the second picture", "e.closest('#second') && e.parentElement.innerText.includes('rocket')", Keys.SPACE)
    visit.until(lambda: "rocket.jpg" in visit.text("#comparison .verdict"), "the third compared")
    keys.back_to("Explain", "e.role == 'tab' && e.innerText == 'Explain'", Keys.ENTER)
    keys.to("the button", "e.id == 'explain'", Keys.ENTER)
    visit.until(lambda: visit.all("#explanation .overlay"), "the explanation")
    print("keyboard: comment, table, comparison and explanation reached; stops:", ", ".join(keys.stops))


class Typist:
    """Goes from stop to stop with Tab."""

    def __init__(self, visit: Visit):
        self.visit, self.stops = visit, []
        visit.driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")

    def to(self, name: str, condition: str, *then: str, back: bool = False) -> None:
        for _ in range(40):
            self.step(back)
            script = f"const e = document.activeElement; return [!!({condition}), getComputedStyle(e).outlineStyle]"
            found, outline = self.visit.driver.execute_script(script)
            assert outline != "none", f"a stop before {name} cannot be seen"
            if found:
                self.stops.append(name)
                for key in then:
                    ActionChains(self.visit.driver).send_keys(key).perform()
                    time.sleep(0.3)
                return
        raise AssertionError(f"{name} cannot be reached by keyboard")

    def step(self, back: bool) -> None:
        chain = ActionChains(self.visit.driver)
        (
            chain.key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT) if back else chain.send_keys(Keys.TAB)
        ).perform()

    def back_to(self, name: str, condition: str, *then: str) -> None:
        self.to(name, condition, *then, back=True)


def main(screenshots: Path) -> None:
    screenshots.mkdir(parents=True, exist_ok=True)
    watch_connections()
    print("gradio", version("gradio"), "pillow", PIL.__version__)
    with TemporaryDirectory() as name, serve_demo(load_scorer()) as page:
        folder, driver = Path(name), browser(name)
        try:
            visit = Visit(driver, page.local_url, screenshots)
            for size in WIDTHS:
                visit.open(size)
                visit.no_sideways_scrolling()
                visit.shoot(f"{size}-1-empty")
                scores_and_download(visit, folder)
                visit.no_sideways_scrolling()
                comment(visit)
                visit.shoot(f"{size}-2-scores")
                comparison(visit)
                visit.no_sideways_scrolling()
                visit.shoot(f"{size}-3-compare")
                explanation(visit)
                visit.no_sideways_scrolling()
                visit.shoot(f"{size}-4-explain")
                (folder / "scores.csv").unlink()
            keyboard(visit)
            driver.execute_cdp_cmd(
                "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
            )
            visit.open("narrow")
            visit.drop(PHOTOS / "coffee.png", PHOTOS / "brick.png")
            visit.until(lambda: "2 of 2 scored" in visit.text("#scores [role=status]"), "two cards")
            visit.shoot("dark")
            visit.note_hosts()
            print("hosts that the browser asked:", sorted(visit.hosts), "; connections of the server:", outside)
            assert (visit.hosts, outside) == ({"127.0.0.1"}, [])
            for entry in driver.get_log("browser"):
                print("  console:", entry["level"], entry["message"][:200])
        except BaseException:
            visit.shoot("failed")
            raise
        finally:
            driver.quit()
        kept = os.environ["GRADIO_TEMP_DIR"]
        print("uploads while it runs:", sorted(path.name for path in Path(kept).rglob("*") if path.is_file()))
    print("folder of uploads after the end:", "there" if os.path.exists(kept) else "gone")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
