"""Chromium, driven by real clicks and key presses: the W3C WebDriver protocol over plain HTTP."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--hide-scrollbars",
]
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Home": "\ue011", "End": "\ue010"} | {
    "ArrowLeft": "\ue012",
    "ArrowRight": "\ue014",
}


class Browser:
    """One window; ``call`` is a command of the protocol."""

    def __init__(self, port: int, profile: Path, *flags: str) -> None:
        self.root = f"http://127.0.0.1:{port}"
        options = {"args": [*FLAGS, f"--user-data-dir={profile}", *flags]}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self.session = f"/session/{self.call('/session', wanted)['sessionId']}"

    def call(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.root + path, data, method=method)
        try:
            with LOCAL.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def open(self, page: Path, fragment: str = "") -> None:
        self.call(f"{self.session}/url", {"url": page.as_uri() + fragment})

    def run(self, script: str) -> Any:
        body = {"script": f"return {script}", "args": []}
        return self.call(f"{self.session}/execute/sync", body)

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)}).textContent.trim()"))

    def click(self, selector: str) -> None:
        # Pages scroll smoothly, and a click is aimed where the element is at that moment.
        element = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{element}.scrollIntoView({{behavior: 'instant', block: 'center'}})")
        using = {"using": "css selector", "value": selector}
        found = self.call(f"{self.session}/element", using)[ELEMENT]
        self.call(f"{self.session}/element/{found}/click")

    def press(self, *keys: str) -> None:
        downs = [
            {"type": kind, "value": KEYS.get(key, key)}
            for key in keys
            for kind in ("keyDown", "keyUp")
        ]
        actions = [{"type": "key", "id": "keyboard", "actions": downs}]
        self.call(f"{self.session}/actions", {"actions": actions})

    def until(self, script: str, seconds: float = 20) -> Any:
        """Wait until a script says something true."""
        end = time.monotonic() + seconds
        while not (found := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)
        return found

    def shot(self) -> bytes:
        return base64.b64decode(self.call(f"{self.session}/screenshot", method="GET"))

    def close(self) -> None:
        self.call(self.session, method="DELETE")


@contextmanager
def driver() -> Iterator[int]:
    """The port of a running chromedriver; skips the test where there is none."""
    path = shutil.which("chromedriver")
    if path is None:
        pytest.skip("no chromedriver on this machine: the page is not clicked")
    process = subprocess.Popen([path, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                break
        yield int(found[1])
    finally:
        process.terminate()
        process.wait(timeout=20)
