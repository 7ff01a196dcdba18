"""Debian's headless Chromium with an empty profile, driven by Debian's Selenium, for the dashboard's tests.

It keeps count of what no page here may do: write errors to the console, ask another origin. `problems()` lists what
happened since it was last asked.
"""

import json
import os
import pathlib
import time
import urllib.parse

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tests.support.npm import installed

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SCREENSHOTS = ROOT / "build" / "screenshots"
FLAGS = (
    "--headless --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --lang=en-US"
).split()


class Chromium:
    def __init__(self, url):
        self.url = url
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]:
            options.add_argument(flag)
        # The stack's certificate is its own.
        options.set_capability("acceptInsecureCerts", True)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
        self.driver.set_script_timeout(60)
        self.cdp("Emulation.setTimezoneOverride", timezoneId="UTC")

    def quit(self):
        self.driver.quit()

    def cdp(self, command, **parameters):
        return self.driver.execute_cdp_cmd(command, parameters)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def open(self, path="/"):
        self.driver.get(self.url + path)

    def forget(self):
        """Starts anew: no cookie, no chosen theme, a desktop's window, light."""
        self.cdp("Network.clearBrowserCookies")
        self.cdp("Storage.clearDataForOrigin", origin=self.url, storageTypes="local_storage")
        self.look()

    def look(self, width=1280, height=800, scheme="light"):
        self.cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def cookies(self):
        return self.cdp("Network.getCookies", urls=[self.url])["cookies"]

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def click(self, selector):
        self.find(selector).click()

    def fill(self, selector, text):
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def press(self, *keys):
        """Sends keys to the focused element."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def text(self, selector="main"):
        """The visible text of an element."""
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def texts(self, selector):
        """The text of each element that is shown."""
        script = "return [...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility())"
        return self.run(script + ".map((e) => e.textContent)", selector)

    def shows(self, selector):
        return self.run("return document.querySelector(arguments[0])?.checkVisibility() ?? false", selector)

    def wait_for(self, condition, what, timeout=10):
        """Polls: a function, or the text that is to be seen in <main>."""
        wanted = condition if callable(condition) else lambda: condition in self.text()
        end = time.monotonic() + timeout
        while not wanted():
            if time.monotonic() > end:
                raise AssertionError(f"waited {timeout} s in vain for {what}; the page says:\n{self.text('body')}")
            time.sleep(0.05)

    def screenshot(self, name):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))

    def problems(self, allow=()):
        """Console messages, but for those with an allowed text; requests to another origin."""
        found = [entry["message"] for entry in self.driver.get_log("browser")]
        found = [message for message in found if not any(text in message for text in allow)]
        for entry in self.driver.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                url = urllib.parse.urlsplit(event["params"]["request"]["url"])
                if url.scheme != "data" and f"{url.scheme}://{url.netloc}" != self.url:
                    found.append(f"request to {url.geturl()}")
        return found

    def accessibility_violations(self):
        """axe-core's findings by WCAG 2.2 A and AA and its best practices: rule, help, where."""
        self.run(axe_source())
        found = self.driver.execute_async_script(
            """
            const done = arguments[arguments.length - 1];
            const changing = document.getAnimations().filter((one) => one instanceof CSSTransition);
            Promise.allSettled(changing.map((one) => one.finished))  // colours on their way are nobody's choice
              .then(() => axe.run(document,
                {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}))
              .then(({violations}) => done(violations), (fault) => done([{id: String(fault), help: '', nodes: []}]));
            """
        )
        return [f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes'][:3]]}" for one in found]


def axe_source():
    """axe-core as tests/browser/package-lock.json pins it."""
    return (installed("browser") / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
