"""A page as a reader sees it: headless Chromium, driven over a pipe by its own protocol, so that nothing more need be installed.

    with browser.opened() as chromium:
        page = chromium.visit(path.as_uri(), width=390)
        assert page.run("document.title") == "lindyn_jax"
        assert not page.problems

`opened` skips the test where there is no Chromium. Widths are those of the viewport, however narrow; pages are opened as files,
with the rules that hold for a reader's files.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

# Chromium reads commands from descriptor 3 and answers on 4.
LAUNCH = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, number in zip(ends, (3, 4)):
    os.dup2(end, number)
    os.close(end)
os.execv(sys.argv[3], sys.argv[3:])
"""
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-pipe",
]


def found() -> str | None:
    """The path of a Chromium, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


@contextlib.contextmanager
def opened(seconds: float = 60):
    """A `Browser` for the block; the test is skipped where no Chromium is installed. An answer may take so many seconds."""
    program = found()
    if program is None:
        pytest.skip("needs chromium or google-chrome, which is not installed")
    to_read, commands = os.pipe()
    answers, to_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                sys.executable,
                "-ISc",
                LAUNCH,
                str(to_read),
                str(to_write),
                program,
                *FLAGS,
                f"--user-data-dir={profile}",
            ],
            pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        try:
            yield Browser(commands, answers, seconds)
        finally:
            os.close(commands)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(answers)


class Browser:
    """One Chromium. `visit` opens a page, `ask` sends any command of its protocol."""

    def __init__(self, commands: int, answers: int, seconds: float):
        self.commands, self.answers, self.seconds = commands, answers, seconds
        self.rest, self.number, self.pages = b"", 0, {}

    def ask(self, method: str, session: str | None = None, **parameters) -> dict:
        """The result of one command."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        text = json.dumps(message).encode() + b"\0"
        while text:
            text = text[os.write(self.commands, text) :]
        until = time.monotonic() + self.seconds
        while True:
            answer = self.read(until)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def read(self, until: float) -> dict:
        """The next message; events are given to their pages."""
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.answers], [], [], max(until - time.monotonic(), 0))
            if not ready:
                raise TimeoutError(f"Chromium did not answer within {self.seconds:g} s.")
            part = os.read(self.answers, 1 << 16)
            if not part:
                raise RuntimeError("Chromium ended.")
            self.rest += part
        text, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(text)
        page = self.pages.get(message.get("sessionId"))
        if "method" in message and page is not None:
            page.hear(message["method"], message["params"])
        return message

    def visit(self, url: str, width: int = 1366, height: int = 900, dark: bool = False) -> "Page":
        """The page at this address, loaded, in a viewport of this size."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.ask(f"{domain}.enable")
        page.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.ask("Emulation.setEmulatedMedia", features=[scheme])
        page.go(url)
        return page


class Page:
    """A page in a Browser. `problems`: errors on the console, exceptions, and what was not found or came from a network."""

    def __init__(self, browser: Browser, session: str, target: str):
        self.browser, self.session, self.target = browser, session, target
        self.problems: list[str] = []
        self.loaded = False

    def ask(self, method: str, **parameters) -> dict:
        return self.browser.ask(method, self.session, **parameters)

    def hear(self, method: str, facts: dict) -> None:
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.exceptionThrown":
            details = facts["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and facts["type"] in ("error", "assert", "warning"):
            self.problems.append(" ".join(str(part.get("value", part.get("description"))) for part in facts["args"]))
        elif method == "Log.entryAdded" and facts["entry"]["level"] == "error":
            self.problems.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}".strip())
        elif method == "Network.requestWillBeSent" and facts["request"]["url"].startswith(("http:", "https:")):
            self.problems.append(f"asks for {facts['request']['url']}")

    def go(self, url: str) -> None:
        """Opens another address in this page and waits until it is loaded."""
        self.loaded = False
        answer = self.ask("Page.navigate", url=url)
        if "errorText" in answer:
            raise RuntimeError(f"{url}: {answer['errorText']}")
        until = time.monotonic() + self.browser.seconds
        while not self.loaded:
            self.browser.read(until)

    def run(self, script: str):
        """The value of a JavaScript expression, as JSON has it; of a promise, that which it promises."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def wait(self, script: str):
        """The value of an expression once it is true; `TimeoutError` if it never is."""
        until = time.monotonic() + self.browser.seconds
        while not (value := self.run(script)):
            if time.monotonic() > until:
                raise TimeoutError(f"{script} was never true.")
            time.sleep(0.05)
        return value

    def resize(self, width: int, height: int = 900) -> None:
        """A viewport of this size; narrow ones are those of phones."""
        mobile = width < 600
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def overflow(self) -> int:
        """By how many pixels the document is wider than the window: 0 where nothing has to be scrolled sideways."""
        root = "document.documentElement"
        return self.run(f"Math.max({root}.scrollWidth, document.body.scrollWidth) - {root}.clientWidth")

    def screenshot(self, path: str | os.PathLike, whole: bool = False) -> None:
        """Writes a PNG of the window, or of the whole page."""
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self.browser.ask("Target.closeTarget", targetId=self.target)
        del self.browser.pages[self.session]
