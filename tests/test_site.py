"""The site of the docs builds without a warning, and a real browser shows every page of it."""

from __future__ import annotations

import os
import pkgutil
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FunctionType

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.public import public_modules
from tools import gallery

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
    # Who asks for anything but this site gets nothing: a reader needs no other server.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
SECONDS = 60
WIDTH = 400  # pixels, of a phone
in_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="no chromium and chromedriver on PATH"
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def pages(site: Path) -> list[str]:
    return sorted(path.parent.relative_to(site).as_posix() for path in site.rglob("index.html"))


def complaints(browser: webdriver.Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def test_it_builds_without_a_warning(site: Path) -> None:
    assert pages(site)


def test_the_reference_has_every_public_class_and_function(site: Path) -> None:
    text = "".join(path.read_text() for path in (site / "reference").rglob("index.html"))
    shown = [resolve(name) for name in re.findall(r'id="(cookfire\.[\w.]+)"', text)]
    missing = [
        f"{module.__name__}.{name}"
        for module in public_modules()
        for name in getattr(module, "__all__", ())
        if isinstance(thing := getattr(module, name), type | FunctionType)
        and not any(thing is one for one in shown)
    ]
    assert missing == []


def resolve(name: str) -> object:
    """Return what a dotted name stands for; None for an attribute of instances."""
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return None


@in_browser
def test_every_page_shows_its_pictures_fits_a_phone_and_complains_of_nothing(
    browser: webdriver.Chrome, address: str, site: Path
) -> None:
    found = pages(site)
    assert {".", "gallery", "benchmarks", "recipes/cifar10", "reference/engine"} <= set(found)
    phone = {"width": WIDTH, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    for page in found:
        browser.get(f"{address}/{page}/")
        assert browser.find_element(By.TAG_NAME, "h1").is_displayed(), page
        for picture in browser.find_elements(By.CSS_SELECTOR, "article img"):
            assert picture.get_property("naturalWidth"), (page, picture.get_attribute("src"))
        taken = browser.execute_script("return document.documentElement.scrollWidth")
        assert taken <= WIDTH, page
        assert complaints(browser) == [], page
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@in_browser
def test_the_gallery_has_a_row_for_each_baseline_and_its_pictures(
    browser: webdriver.Chrome, address: str
) -> None:
    browser.get(f"{address}/gallery/")
    rows = browser.find_elements(By.CSS_SELECTOR, "article tbody tr")
    assert len(rows) == len(list(gallery.baselines()))
    assert len(browser.find_elements(By.CSS_SELECTOR, "article img")) == len(gallery.pictures())
    rows[0].find_element(By.TAG_NAME, "a").click()
    assert browser.find_element(By.TAG_NAME, "h1").text.startswith("CIFAR-10")


@in_browser
def test_a_reader_finds_a_page_by_a_word_of_it(browser: webdriver.Chrome, address: str) -> None:
    browser.get(f"{address}/")
    field = browser.find_element(By.CSS_SELECTOR, "input.md-search__input")
    browser.execute_script("arguments[0].focus()", field)
    field.send_keys("preemption")
    found = "a.md-search-result__link[href$='#cookfire.handlers.Preemption']"
    WebDriverWait(browser, SECONDS).until(lambda _: browser.find_elements(By.CSS_SELECTOR, found))
