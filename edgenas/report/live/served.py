"""The page of `edgenas report`, served on loopback while what it shows is written.

It can be read by whoever knows the token in its address, from this computer alone, and changes nothing. The names by
which it is asked for are checked, for another page in the same browser could have its own name lead here.
"""

from __future__ import annotations

import errno
import hmac
import secrets
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edgenas.errors import UsageError
from edgenas.report.live.watched import Look, Watched
from edgenas.report.page import Live, render

LOOPBACK = "127.0.0.1"
POLL_S = 2.0  # between two questions of a page
_LINGER_S = 3 * POLL_S  # after the end, while a page is open: it asks once more
_TURN_S = 0.25
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Server(ThreadingHTTPServer):
    """Serves the page of `watched` from `address` on until it is closed. Raises UsageError where `port` cannot be had;
    0 is any that is free."""

    daemon_threads = True
    block_on_close = False
    timeout = _TURN_S

    def __init__(self, watched: Watched, port: int = 0) -> None:
        self.watched = watched
        self.token = secrets.token_urlsafe(24)
        self._lock = threading.Lock()
        self._made: tuple[Look, bytes] | None = None
        self._asked_at_s = -_LINGER_S
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror or error})"
            raise UsageError(
                f"port {port} {why}; give another with --port, or leave it out for any free one"
            ) from error
        names = (LOOPBACK, "localhost")
        self.hosts = {f"{name}:{self.server_port}" for name in names} | set(names if self.server_port == 80 else ())

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"

    def serve(self, until_end: bool = False) -> None:
        """Answer until Ctrl-C, or, where `until_end`, until what is watched has ended and pages that are open had time
        to ask for that."""
        ended_at_s: float | None = None
        while True:
            self.handle_request()
            if not until_end:
                continue
            now_s = time.monotonic()
            if not self.watched.look().ended:
                ended_at_s = None
                continue
            ended_at_s = now_s if ended_at_s is None else ended_at_s
            if now_s - ended_at_s >= _LINGER_S or now_s - self._asked_at_s >= _LINGER_S:
                return

    def page(self) -> tuple[str, bytes]:
        """The tag of the page as it is now, and the page."""
        with self._lock:
            self._asked_at_s = time.monotonic()
            look = self.watched.look()
            if self._made is None or self._made[0] is not look:
                began_s = time.thread_time()
                live = Live(_note(look), f'"{look.number}"', POLL_S)
                self._made = look, render(look.subjects, live).encode()
                self.watched.spent(time.thread_time() - began_s)
            return f'"{look.number}"', self._made[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that left is no fault."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _note(look: Look) -> str:
    if look.problem:
        return f"As of {look.at}, not to be read: {look.problem}"
    return f"{'Ended' if look.ended else 'Going on'}; as of {look.at}. This page updates by itself."


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "EdgeNAS", ""
    timeout = 30.0  # of a reader that says nothing

    def parse_request(self) -> bool:
        return super().parse_request() and self._is_allowed()

    def _is_allowed(self) -> bool:
        host = self.headers.get("Host", "")
        _, token, *rest = (*self.path.partition("?")[0].split("/"), "", "")
        if self.command != "GET":
            return self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "This page can only be read.")
        if host not in self.server.hosts:
            return self._refuse(HTTPStatus.FORBIDDEN, "This page is for this computer alone.")
        if not hmac.compare_digest(token.encode(errors="replace"), self.server.token.encode()):
            return self._refuse(HTTPStatus.FORBIDDEN, "Open the address that edgenas watch printed.")
        if any(rest):
            return self._refuse(HTTPStatus.NOT_FOUND, "There is one page here.")
        return True

    def _refuse(self, status: HTTPStatus, words: str) -> bool:
        self._answer(status, f"{words}\n".encode(), "text/plain")
        self.close_connection = True
        return False

    def do_GET(self) -> None:
        tag, page = self.server.page()
        if self.headers.get("If-None-Match") == tag:
            self._answer(HTTPStatus.NOT_MODIFIED, b"", "text/html", tag)
        else:
            self._answer(HTTPStatus.OK, page, "text/html", tag)

    def _answer(self, status: HTTPStatus, content: bytes, kind: str, tag: str | None = None) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **({"ETag": tag} if tag else {})}.items():
            self.send_header(name, value)
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: the address holds the token, and the terminal is the user's."""


def serve(watched: Watched, port: int, until_end: bool, tell: Callable[[str], None]) -> None:
    """Serve the page of `watched`, whose address is printed. Raises UsageError where `port` cannot be had."""
    with Server(watched, port) as server:
        tell(server.address)
        server.serve(until_end)
