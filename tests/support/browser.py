"""A real browser, without a window: Chromium, told what to do in its own protocol over a socket that it inherits.

A tab does what a person does: opens an address, looks, points and clicks, types. It remembers what a person does not
see: what it asked which host for, and what it complained of. Nothing else is reachable for it: each name that is not
one of ours is unknown.

The protocol: JSON documents that end in NUL (`--remote-debugging-pipe`), https://chromedevtools.github.io/devtools-protocol.
"""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

LIMIT_S = 20.0
"""For an answer of the browser, its start included, and for what a test waits to see. Reached only where something is
broken."""

WIDE = (1100, 800)
PHONE = (360, 740)
"""In CSS pixels: few phones are narrower."""

_OPTIONS = (
    "--headless",
    # Root has no other way, and it sees our own pages only.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-pipe",
)
_KEYS = {"Tab": ("Tab", 9, ""), "Enter": ("Enter", 13, "\r"), "Space": ("Space", 32, " ")}


class Gone(Exception):
    """The page that was asked for something has made way for another."""


class Browser:
    """Runs inside a `with`; its profile is its own and ends with it."""

    def __init__(self, names: Mapping[str, int]) -> None:
        """`names`: hosts that it knows, and the port of this machine behind each. They are as good as https."""
        self._names = names
        self._next = 0
        self._events: list[dict[str, Any]] = []
        self._octets = b""

    def __enter__(self) -> Self:
        program = shutil.which("chromium")
        if program is None:
            pytest.skip("Chromium is missing: run tests/install-peers as root")
        self._profile = Path(tempfile.mkdtemp(prefix="onward-browser-"))
        ours, theirs = socket.socketpair()
        ours.settimeout(LIMIT_S)
        self._socket = ours
        known = "".join(f"MAP {name} 127.0.0.1:{port}," for name, port in self._names.items())
        options = [
            *_OPTIONS,
            f"--user-data-dir={self._profile}",
            f"--host-resolver-rules={known}MAP * ~NOTFOUND,EXCLUDE 127.0.0.1",
            f"--unsafely-treat-insecure-origin-as-secure={','.join(f'http://{name}' for name in self._names)}",
        ]
        with theirs:
            self._process = subprocess.Popen(
                # It reads from 3 and writes to 4; a shell puts the socket there.
                ["bash", "-c", f'exec "$0" "$@" 3<&{theirs.fileno()} 4>&3', program, *options],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                # What it keeps beside its profile goes there as well.
                env={**os.environ, "HOME": str(self._profile)},
            )
        try:
            self.ask("Browser.getVersion")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()
        # Its helpers are in its session.
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait(LIMIT_S)
        shutil.rmtree(self._profile, ignore_errors=True)

    def tab(self, size: tuple[int, int] = WIDE, *, dark: bool = False) -> "Tab":
        """A new tab that shares nothing with others, neither cookies nor history."""
        context = self.ask("Target.createBrowserContext")["browserContextId"]
        target = self.ask("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Tab(self, session, size, dark)

    def ask(self, method: str, session: str | None = None, **parameters: object) -> dict[str, Any]:
        """One command, and its answer. Events that come meanwhile are kept. Raises Gone."""
        self._next += 1
        command = {"id": self._next, "method": method, "params": parameters}
        self._socket.sendall(
            json.dumps(command if session is None else {**command, "sessionId": session}).encode() + b"\0"
        )
        while True:
            message = self._read()
            if message.get("id") == self._next:
                if "navigated" in message.get("error", {}).get("message", ""):
                    raise Gone
                assert "error" not in message, (method, message["error"])
                answer: dict[str, Any] = message["result"]
                return answer
            self._events.append(message)

    def events(self, session: str) -> list[dict[str, Any]]:
        """What has happened in a tab since it was asked last."""
        found = [event for event in self._events if event.get("sessionId") == session]
        self._events = [event for event in self._events if event.get("sessionId") != session]
        return found

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._octets:
            received = self._socket.recv(1 << 16)
            assert received, "the browser has ended"
            self._octets += received
        document, _, self._octets = self._octets.partition(b"\0")
        message: dict[str, Any] = json.loads(document)
        return message


class Tab:
    """One page, and what has come of it."""

    def __init__(self, browser: Browser, session: str, size: tuple[int, int], dark: bool) -> None:
        self._browser = browser
        self._session = session
        self._requests: list[dict[str, Any]] = []
        self._complaints: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.do(f"{domain}.enable")
        width, height = size
        scale, phone = (2, True) if size == PHONE else (1, False)
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.do("Emulation.setEmulatedMedia", features=[scheme])

    # ------------------------------------------------------------------ what a person does

    def open(self, url: str) -> None:
        """Go there, as by a link in a letter, and wait until it is loaded."""
        self.do("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'", f"{url} is loaded")

    def click(self, name: str) -> None:
        """Point at the button, link or field of this name, and click."""
        found = f"{_CONTROLS}.find((one) => one.name === {json.dumps(name)})"
        self.until(f"{found} && !{found}.element.disabled", f"{name!r} can be clicked")
        place = self.evaluate(
            f"(() => {{ const {{ element }} = {found}; element.scrollIntoView({{ block: 'center' }});"
            " const { x, y, width, height } = element.getBoundingClientRect();"
            " return { x: x + width / 2, y: y + height / 2 }; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.do("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def type(self, text: str, into: str | None = None) -> None:
        """Type, into the field of this name in place of what stands there."""
        if into is not None:
            self.click(into)
            self.evaluate("document.activeElement.select()")
        self.do("Input.insertText", text=text)

    def press(self, key: str, *, control: bool = False) -> None:
        """Press and release a key."""
        code, number, text = _KEYS[key]
        common = {"key": " " if key == "Space" else key, "code": code, "windowsVirtualKeyCode": number}
        modifiers = 2 if control else 0
        self.do("Input.dispatchKeyEvent", type="keyDown", text="" if control else text, modifiers=modifiers, **common)
        self.do("Input.dispatchKeyEvent", type="keyUp", modifiers=modifiers, **common)

    def offline(self, is_offline: bool) -> None:
        """Lose the network, or have it back."""
        conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.do("Network.emulateNetworkConditions", offline=is_offline, **conditions)

    # ------------------------------------------------------------------ what it sees

    def sees(self, *texts: str) -> None:
        """Wait until all of these are shown."""
        self.until(f"{json.dumps(texts)}.every((one) => document.body.innerText.includes(one))", f"{texts} are shown")

    @property
    def text(self) -> str:
        """All that is shown."""
        return str(self.evaluate("document.body.innerText"))

    @property
    def address(self) -> str:
        """What stands in the address bar."""
        return str(self.evaluate("location.href"))

    @property
    def controls(self) -> list[str]:
        """The names of the buttons, links and fields that are shown, from above."""
        names: list[str] = self.evaluate(f"{_CONTROLS}.map((one) => one.name)")
        return names

    @property
    def focused(self) -> str:
        """The name of what has the focus."""
        return str(self.evaluate(f"({_NAME})(document.activeElement)"))

    def screenshot(self, path: Path) -> None:
        """Keep what it looks like, as PNG: for a person who works on a page."""
        path.write_bytes(base64.b64decode(self.do("Page.captureScreenshot")["data"]))

    # ------------------------------------------------------------------ what a person does not see

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What it has asked for so far: `url`, `method`, `headers` and `postData` of each. A websocket is a GET."""
        self._look()
        return self._requests

    @property
    def complaints(self) -> list[str]:
        """What stands in its console: errors and warnings, and what was written there."""
        self._look()
        return self._complaints

    def until(self, condition: str, what: str) -> None:
        """Wait until an expression holds."""
        deadline = time.monotonic() + LIMIT_S
        while not self._holds(condition):
            assert time.monotonic() < deadline, f"not within {LIMIT_S} s: {what}; shown: {self.text!r}"
            time.sleep(0.02)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.do("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, (expression, answer["exceptionDetails"])
        return answer["result"].get("value")

    def do(self, method: str, **parameters: object) -> dict[str, Any]:
        """A command of the protocol to this tab."""
        return self._browser.ask(method, self._session, **parameters)

    def _holds(self, condition: str) -> bool:
        try:
            return self.evaluate(f"document.body !== null && Boolean({condition})") is True
        except Gone:
            return False

    def _look(self) -> None:
        self.do("Runtime.evaluate", expression="0")
        for event in self._browser.events(self._session):
            said = event["params"]
            match event["method"]:
                case "Network.requestWillBeSent":
                    self._requests.append(said["request"])
                case "Network.requestWillBeSentExtraInfo":
                    # The same request, with what the network layer has added.
                    self._requests.append({"url": "", "method": "", "headers": said["headers"]})
                case "Network.webSocketCreated":
                    self._requests.append({"url": said["url"], "method": "GET", "headers": {}})
                case "Log.entryAdded" if said["entry"]["level"] in ("error", "warning"):
                    self._complaints.append(f"{said['entry']['level']}: {said['entry']['text']}")
                case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                    self._complaints.append(json.dumps(said))


_NAME = (
    "(element) => (element.getAttribute('aria-label') || element.labels?.[0]?.firstChild.textContent.trim()"
    " || element.labels?.[0]?.textContent || element.textContent).trim()"
)
"""What a control is called: roughly what a screen reader says. The first words of a label, without its hint."""

_CONTROLS = (
    "[...document.querySelectorAll('a[href], button, input, textarea, summary')]"
    ".filter((element) => element.checkVisibility() && element.getClientRects().length > 0)"
    f".map((element) => ({{ element, name: ({_NAME})(element) }}))"
)
