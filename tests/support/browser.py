"""Debian's chromium, driven as a person would: what a page shows, what it asks for, and what it complains of."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.support.requirements import program

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # as root chromium has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--window-size=1200,800",
    "--force-prefers-reduced-motion",
)
_LONGEST = 120.0  # seconds of a script: the limit is for what never will end


class Browser:
    """A browser with one window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self._driver = driver

    def open(self, page: Path, *, dark: bool = False) -> None:
        """Open a file, in the light or the dark theme; what was said of pages before is forgotten."""
        self.visit(page.as_uri(), dark=dark)

    def visit(self, address: str, *, dark: bool = False) -> None:
        """Go to an address, as `open` goes to a file."""
        self.media("", dark=dark)
        self._driver.get("about:blank")
        self.complaints()
        self.requests()
        self._driver.get(address)

    def scripts(self, *, allowed: bool) -> None:
        """Say whether pages that are opened from now on may run scripts."""
        self._driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not allowed})

    @property
    def address(self) -> str:
        """Where it is."""
        return str(self._driver.current_url)

    def count(self, selector: str) -> int:
        """Return how many elements there are."""
        return len(self._driver.find_elements(By.CSS_SELECTOR, selector))

    def media(self, kind: str, *, dark: bool) -> None:
        """Show pages as on a medium ("print"; "": the screen), in the light or the dark theme."""
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": [theme]})

    def run(self, script: str, *arguments: object) -> Any:
        """Return what a script returns that runs in the page."""
        return self._driver.execute_script(script, *arguments)

    def run_async(self, script: str) -> Any:
        """Return what a script hands to `done`, which may be later."""
        return self._driver.execute_async_script("const done = arguments[arguments.length - 1];" + script)

    def resize(self, width: int, height: int) -> None:
        """Give the page so many CSS pixels, also fewer than a window can have."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def element(self, selector: str) -> WebElement:
        """Return an element."""
        return self._driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Return what an element shows."""
        return str(self.element(selector).text)

    def choose(self, selector: str, option: str) -> None:
        """Choose an option of a select by what it shows."""
        for each in self.element(selector).find_elements(By.TAG_NAME, "option"):
            if each.text == option:
                each.click()
                return
        raise AssertionError(f"{selector} has no {option}")

    def press(self, *keys: str) -> None:
        """Press keys, where the focus is."""
        for key in keys:
            self._driver.switch_to.active_element.send_keys(getattr(Keys, key, key))

    def complaints(self) -> list[str]:
        """Return what the console has said since it was last asked."""
        return [entry["message"] for entry in self._driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since this was last asked, those of files left out."""
        messages = (json.loads(entry["message"])["message"] for entry in self._driver.get_log("performance"))
        asked = [told["params"]["request"]["url"] for told in messages if told["method"] == "Network.requestWillBeSent"]
        return [address for address in asked if not address.startswith("file:")]

    def picture(self, path: Path) -> None:
        """Save what is seen as a PNG file."""
        self._driver.save_screenshot(str(path))


@contextmanager
def browser() -> Iterator[Browser]:
    """Run a browser for the time of the block; skip the test without one."""
    with tempfile.TemporaryDirectory(prefix="gomem-") as directory:
        options = webdriver.ChromeOptions()
        options.binary_location = program("chromium", "chromium")
        for flag in (*_FLAGS, f"--user-data-dir={directory}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(program("chromedriver", "chromium-driver")))
        driver.set_script_timeout(_LONGEST)
        try:
            yield Browser(driver)
        finally:
            driver.quit()
