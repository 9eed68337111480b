"""A real browser walks the pages of a real `leadledger browse`, as somebody from sales operations would."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ledger.clock import SystemClock
from ledger.testing import FakeClock

selenium = pytest.importorskip("selenium", reason="selenium is not installed here")
from selenium import webdriver  # noqa: E402 - after the question whether it is there
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException  # noqa: E402 - the same
from selenium.webdriver.chrome.service import Service  # noqa: E402 - the same
from selenium.webdriver.common.keys import Keys  # noqa: E402 - the same
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402 - the same

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WAIT_S = 15
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
CONTROLS = {
    "link",
    "button",
    "textbox",
    "searchbox",
    "combobox",
    "checkbox",
    "radio",
    "DisclosureTriangle",
    "image",
}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="no browser: install chromium and chromium-driver (Debian packages)",
    ),
]


class Walk:
    """A browser on a site."""

    def __init__(self, driver: Any, url: str, pictures: Path) -> None:
        self.driver, self.url, self.pictures = driver, url, pictures

    def go(self, path: str) -> None:
        self.driver.get(self.url.removesuffix("/-/ledger") + path)

    def until(self, true: Callable[[], Any], what: str) -> Any:
        stale = [StaleElementReferenceException]
        waiting = WebDriverWait(self.driver, WAIT_S, 0.05, ignored_exceptions=stale)
        try:
            return waiting.until(lambda _: true())
        except TimeoutException:
            pytest.fail(f"{what} never came; the page says:\n{self.text()[:2000]}")

    def text(self) -> str:
        return str(self.driver.find_element("css selector", "body").text)

    def says(self, words: str) -> None:
        self.until(lambda: words in self.text(), words)

    def click(self, words: str) -> None:
        found = self.driver.find_elements(
            "xpath", f"//a[contains(., '{words}')] | //button[contains(., '{words}')]"
        )
        assert found, f"nothing says {words!r}: {self.text()[:1500]}"
        found[0].click()

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)

    def picture(self, name: str) -> None:
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        file = self.pictures / f"{name}.png"
        file.write_bytes(base64.b64decode(shot["data"]))
        assert 4_000 < file.stat().st_size < 200_000, name

    def check_names(self) -> None:
        """Every control of the accessibility tree has a name."""
        nodes = self.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        roles = [node for node in nodes if not node["ignored"] and node["role"]["value"] in CONTROLS]
        assert len(roles) > 5
        unnamed = [
            node["role"]["value"] for node in roles if not node.get("name", {}).get("value", "").strip()
        ]
        assert unnamed == [], (self.driver.current_url, unnamed)

    def fits(self) -> None:
        """Nothing makes the page itself scroll sideways."""
        wide = self.driver.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, (self.driver.current_url, wide)

    def check_log(self) -> None:
        """No script was stopped by the policy, and none failed."""
        assert [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, make_story: Callable[..., Any]) -> Path:
    path = tmp_path_factory.mktemp("night") / "leads.db"
    make_story(path, FakeClock(start=SystemClock().now() - timedelta(minutes=47)))
    return path


@pytest.fixture
def lively(night: Path, tmp_path: Path) -> Path:
    shutil.copyfile(night, tmp_path / "leads.db")
    return tmp_path / "leads.db"


@pytest.fixture
def served(lively: Path) -> Iterator[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LEADLEDGER_")}
    command = [sys.executable, "-m", "ledger.cli", "--db", str(lively), "browse", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(executable_path=str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def walk(browser: Any, served: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Walk]:
    kept = request.config.getoption("--screenshots")
    yield Walk(browser, served, tmp_path if kept is None else Path(kept))
    browser.get("about:blank")


def by_keyboard(walk: Walk) -> None:
    """The first stop skips to the content, the next ones are its links, and each is seen to be focused."""
    walk.go("/-/ledger")
    walk.says("80 jobs")
    active = walk.driver.switch_to.active_element
    active.send_keys(Keys.TAB)
    assert walk.driver.switch_to.active_element.text == "Skip to the content"
    walk.driver.switch_to.active_element.send_keys(Keys.ENTER)
    for _ in range(3):
        walk.driver.switch_to.active_element.send_keys(Keys.TAB)
    focused = walk.driver.switch_to.active_element
    assert "/leads/jobs?state=" in focused.get_attribute("href")
    outline = walk.driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


@pytest.mark.timeout(120)
def test_walk(walk: Walk) -> None:
    walk.look(1200, 1320)
    walk.go("/-/ledger")
    walk.says("80 jobs")
    walk.until(lambda: len(walk.driver.find_elements("css selector", ".plot canvas")) == 2, "the charts")
    walk.check_names()
    walk.fits()
    walk.picture("overview")

    walk.look(1200, 900)
    walk.click("failed")  # from the bar's list to the filtered table
    walk.says('where state = "failed"')
    walk.check_log()
    walk.picture("table")

    walk.go("/-/ledger")
    box = walk.driver.find_element("css selector", "#find-lead")
    box.send_keys("Laser Roof\n")
    walk.says("Time line")
    assert "sent (attempt 1), $1.50 set aside" in walk.text()
    walk.check_names()
    walk.picture("lead")

    walk.click("Runs")
    walk.click("Run 1")
    walk.says("What happened")
    walk.until(lambda: len(walk.driver.find_elements("css selector", ".plot canvas")) == 2, "the charts")
    walk.check_names()
    walk.picture("run")

    walk.go("/leads?sql=" + "select+route,+count(*)+as+jobs+from+jobs+group+by+route")
    walk.says("enrich/websearch")
    editor = walk.driver.find_element("css selector", ".CodeMirror")
    assert editor.is_displayed(), "the SQL editor is a script of Datasette's that the policy must let run"
    walk.check_log()
    by_keyboard(walk)


@pytest.mark.timeout(120)
def test_a_retry_from_confirmation_to_done(
    walk: Walk, lively: Path, states: Callable[[Path], dict[str, int]]
) -> None:
    before = states(lively)
    walk.look(1000, 640)
    walk.go("/leads/jobs?state=failed")
    links = walk.until(lambda: walk.driver.find_elements("css selector", "td.col-lead_id a"), "a failed job")
    links[0].click()
    walk.says("Ask again")
    walk.click("Ask again")
    walk.says("up to $1.50 is set aside")
    walk.check_names()
    walk.picture("confirm")
    assert states(lively) == before, "looking changes nothing"
    walk.click("Yes, do it")
    walk.says("1 jobs are queued again")
    after = states(lively)
    assert after["queued"] == before.get("queued", 0) + 1
    walk.check_log()


@pytest.mark.timeout(120)
def test_the_overview_follows_a_run_in_dark_on_a_phone(
    walk: Walk, lively: Path, go_on: Callable[[Path], Any]
) -> None:
    walk.look(390, 844, dark=True)
    with go_on(lively) as story:
        walk.go("/-/ledger")
        walk.says("Run 2 is on")
        walk.fits()
        walk.check_names()
        walk.picture("phone-dark")
        before = walk.text()
        story.leads(["Late Lilies"], "late.csv")
        story.enqueue()
        (job_id,) = story.claim(1)
        walk.until(lambda: "submitting 1" in walk.text().replace("\n", " "), "the job that was sent just now")
        assert before != walk.text()
        story.accepted(job_id)
        walk.until(lambda: "waiting" in walk.text(), "the job that was accepted just now")
    walk.says("No run is on")
    walk.check_log()
