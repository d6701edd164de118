"""The page in a real browser: Debian's Chromium, headless, driven by Selenium, without a network.

Set SEGJOBS_SHOTS to a folder to keep the screenshots and look at them.
"""

import base64
import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from segjobs.page.contents import Group, Page
from segjobs.page.page import render
from tests.page.sample import HOSTILE, make_report
from tests.page.test_page import card, hostile_page, page_of

pytestmark = pytest.mark.slow
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP, PHONE = (1280, 900), (375, 812)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Chromium with a new profile, its console and its requests logged."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        pytest.skip("no chromium and chromedriver; on Debian: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(programs[0])
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(programs[1])))
    try:
        yield driver
    finally:
        driver.quit()


def shown(browser: webdriver.Chrome, path: Path, size: tuple[int, int], *, dark: bool = False) -> list[str]:
    """Open a page; the addresses that it asked for. Fails where the console has anything to say."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(path.as_uri())
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def shot(browser: webdriver.Chrome, name: str) -> np.ndarray:
    """The whole page as uint8 (H, W, 3); kept where SEGJOBS_SHOTS says."""
    size: dict[str, Any] = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {**size, "height": min(size["height"], 16_000), "scale": 1}
    png = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})["data"]
    keep(name, base64.b64decode(png))
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        return np.asarray(picture.convert("RGB"))


def keep(name: str, data: bytes) -> None:
    folder = os.environ.get("SEGJOBS_SHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / name).write_bytes(data)


def full_page() -> Page:
    cards = tuple(card(f"val/frankfurt_{n:06d}.png", n) for n in range(3))
    gone = replace(card("gone.png"), pictures={}, absent={"image": "NOT_FOUND: no such file", "truth": "no truth"})
    return page_of(make_report(), groups=(Group("worst", cards), Group("random", (*cards[:1], gone))))


@pytest.fixture(scope="module", params=["full", "hostile"])
def page_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / f"{request.param}.html"
    page = full_page() if request.param == "full" else hostile_page()
    path.write_text(render(page, max_bytes=9_000_000), "utf-8")
    return path


def test_it_opens_alone_and_without_a_word(browser: webdriver.Chrome, page_file: Path) -> None:
    asked = shown(browser, page_file, DESKTOP)
    assert page_file.as_uri() in asked
    assert {address.partition(":")[0] for address in asked} == {"file", "data"}
    images = browser.execute_script("return [...document.images].map(i => [i.complete, i.naturalWidth, i.alt])")
    assert len(images) >= 12
    assert all(complete and width > 0 for complete, width, _ in images)
    assert browser.execute_script("return document.scripts.length") == 0


def test_the_policy_is_in_force(browser: webdriver.Chrome, page_file: Path) -> None:
    """What a hostile page would try is stopped: scripts, pictures from elsewhere, styles of its own."""
    shown(browser, page_file, DESKTOP)
    stopped = browser.execute_async_script(
        """
        const done = arguments[0], seen = [];
        document.addEventListener("securitypolicyviolation", e => {
            seen.push(e.effectiveDirective);
            if (seen.length === 3) done(seen.sort());
        });
        const script = document.createElement("script");
        script.textContent = "document.title = 'owned'";
        const picture = document.createElement("img");
        picture.src = "http://127.0.0.1:9/x.png";
        const style = document.createElement("style");
        style.textContent = "body { display: none }";
        document.body.append(script, picture, style);
        """
    )
    assert stopped == ["img-src", "script-src-elem", "style-src-elem"]
    assert browser.title != "owned"


def test_hostile_names_are_read_as_text(browser: webdriver.Chrome, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(render(hostile_page(), max_bytes=9_000_000), "utf-8")
    shown(browser, path, DESKTOP)
    assert browser.title == HOSTILE[0]
    assert browser.find_element(By.TAG_NAME, "h1").text == HOSTILE[0]
    names = [one.text for one in browser.find_elements(By.CSS_SELECTOR, "#classes tbody th bdi")]
    assert names[:4] == [name if len(name) <= 40 else f"{name[:20]}…{name[-19:]}" for name in HOSTILE[:4]]
    assert "cat‹U+202E›gnp.exe" in names
    assert browser.execute_script("return getComputedStyle(document.body).display") == "block"
    links = [one.get_attribute("href") for one in browser.find_elements(By.TAG_NAME, "a")]
    assert all(link.startswith(f"{path.as_uri()}#") for link in links)


@pytest.mark.parametrize("size", [PHONE, (768, 1024), DESKTOP])
def test_nothing_sticks_out(browser: webdriver.Chrome, page_file: Path, size: tuple[int, int]) -> None:
    shown(browser, page_file, size)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
    sticking = browser.execute_script(
        """
        const wide = document.documentElement.clientWidth + 1;
        return [...document.querySelectorAll("body *")]
            .filter(e => !e.closest(".box") && e.getBoundingClientRect().right > wide)
            .map(e => e.outerHTML.slice(0, 120));
        """
    )
    assert sticking == []
    shot(browser, f"{page_file.stem}-{size[0]}.png")


def test_wide_tables_scroll_inside_their_box(browser: webdriver.Chrome, page_file: Path) -> None:
    shown(browser, page_file, PHONE)
    boxes = browser.execute_script(
        """
        return [...document.querySelectorAll(".box")]
            .map(b => [b.scrollWidth, b.clientWidth, getComputedStyle(b).overflowX]);
        """
    )
    assert any(inner > outer for inner, outer, _ in boxes)
    assert {overflow for *_, overflow in boxes} == {"auto"}


def test_dark_differs_and_stays_legible(browser: webdriver.Chrome, page_file: Path) -> None:
    means = []
    for dark in (False, True):
        shown(browser, page_file, DESKTOP, dark=dark)
        means.append(shot(browser, f"{page_file.stem}-{'dark' if dark else 'light'}.png").mean())
        contrast = browser.execute_script(
            """
            const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(v => {
                v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
            });
            const luma = text => rgb(text).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
            const paper = getComputedStyle(document.body).backgroundColor;
            const ratio = (a, b) => (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
            const looked = "h1, .caption, nav a, .tile .label, thead th, td.number, .good, .bad, .h0, .h10, .h20";
            return [...document.querySelectorAll(looked)]
                .map(e => {
                    const own = getComputedStyle(e).backgroundColor;
                    const ground = own === "rgba(0, 0, 0, 0)" ? paper : own;
                    return [ratio(luma(getComputedStyle(e).color), luma(ground)), e.className || e.tagName];
                });
            """
        )
        assert min(contrast)[0] > 4.4, min(contrast)
    assert means[0] > 200 > 90 > means[1]


def test_it_prints_all_of_it_in_light(browser: webdriver.Chrome, page_file: Path) -> None:
    """Dark screens print light, closed details are printed too, and nothing is lost at the side."""
    shown(browser, page_file, DESKTOP, dark=True)
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    keep(f"{page_file.stem}.pdf", pdf)
    assert pdf.startswith(b"%PDF") and pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") >= 2
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    heights = browser.execute_script("return [...document.querySelectorAll('details pre')].map(e => e.offsetHeight)")
    assert heights and min(heights) > 10
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
