"""Chromium, driven over its debugging pipe: one page, what it asks for, and what is on it."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time

CHROMIUM = shutil.which("chromium")


class Page:
    """An open page. ``asked`` has the URLs of all requests, ``errors`` what the console complains about."""

    def __init__(self, process, send, receive):
        self._process, self._send, self._receive = process, send, receive
        self._number, self._session, self._left = 0, None, b""
        self.asked, self.errors = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Ask the browser, and return its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            said = self._next()
            if said.get("id") == self._number:
                assert "error" not in said, said
                return said["result"]

    def _next(self):
        while b"\0" not in self._left:
            assert select.select([self._receive], [], [], 30)[0], "the browser says nothing"
            chunk = os.read(self._receive, 1 << 20)
            assert chunk, "the browser has ended"
            self._left += chunk
        message, _, self._left = self._left.partition(b"\0")
        said = json.loads(message)
        if said.get("method") == "Network.requestWillBeSent":
            self.asked.append(said["params"]["request"]["url"])
        if said.get("method") in {"Log.entryAdded", "Runtime.exceptionThrown"}:
            self.errors.append(said["params"])
        return said

    def open(self, url):
        """Go to a page, and wait until it is there."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def evaluate(self, expression):
        """Return the value of an expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression, seconds=20):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < end, (expression, self.evaluate("document.body.innerText"))
            time.sleep(0.05)

    def screenshot(self, path, width=1200, height=800, dark=False):
        """Take a picture in this size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def page(directory):
    """Start a browser; yield its page."""
    theirs_in, send = os.pipe()
    receive, theirs_out = os.pipe()
    script = f'exec {CHROMIUM} "$@" 3<&{theirs_in} 4>&{theirs_out}'
    argv = ["bash", "-c", script, "chromium", "--headless=new", "--no-sandbox", "--disable-gpu",
            "--remote-debugging-pipe", f"--user-data-dir={directory}/browser", "--no-first-run",
            "--disable-background-networking"]  # fmt: skip
    process = subprocess.Popen(
        argv,
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(directory)},
        start_new_session=True,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(process, send, receive)
    finally:
        os.close(send)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait(10)
        os.close(receive)
