"""A TCP proxy that spoils connections on command."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Proxy:
    """Listens on `port` of the loopback interface and passes bytes to and from `target_port` unless asked otherwise."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.delay_s = 0.0  # each way, a chunk
        self.bytes_per_s: float | None = None  # each way
        self.passed_up = 0  # bytes towards the target, of all connections
        self.cut_after_bytes: int | None = None  # towards the target: then as `cut`
        # Whether towards the target, after how many bytes of one connection, and what then happens, once.
        self.then: tuple[bool, int, Callable[[], None]] | None = None
        self._dropping = threading.Event()
        self._flowing = threading.Event()
        self._flowing.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        """From now on bytes vanish, and nobody learns of it (a black hole)."""
        self._dropping.set()

    def hold(self) -> None:
        """From now on nothing is read, until buffers are full."""
        self._flowing.clear()

    def cut(self) -> None:
        """Reset every connection."""
        for pair in self._take():
            for end in pair:
                # Linger of zero seconds: close sends a reset.
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                _close(end, socket.SHUT_RD)

    def half_open(self) -> None:
        """End the targets' side, and leave the clients' side open and silent, as a board does that lost power."""
        self._dropping.set()
        with self._lock:
            pairs = list(self._pairs)
        for _, target in pairs:
            _close(target)

    def heal(self) -> None:
        """Pass bytes again, of connections made from now on."""
        self.cut()
        self.delay_s, self.cut_after_bytes, self.bytes_per_s = 0.0, None, None
        self._dropping.clear()
        self._flowing.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _close(self._listener)
        self._flowing.set()
        self.cut()

    def _take(self) -> list[tuple[socket.socket, socket.socket]]:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        return pairs

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                target = socket.create_connection(("127.0.0.1", self._target_port), 10)
            except OSError:
                return
            target.settimeout(None)
            for end in (client, target):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)  # what lies there has not passed yet
            with self._lock:
                self._pairs.append((client, target))
            threading.Thread(target=self._pump, args=(client, target, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(target, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, upwards: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while True:
                self._flowing.wait()
                chunk = source.recv(2**14 if self.bytes_per_s else 2**16)
                self._flowing.wait()
                if self._dropping.is_set():
                    if chunk:
                        continue
                    return  # the other side does not learn of it
                time.sleep(self.delay_s + (len(chunk) / self.bytes_per_s if self.bytes_per_s else 0.0))
                if not chunk:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(chunk)
                passed += len(chunk)
                self.passed_up += len(chunk) * upwards
                if upwards and self.cut_after_bytes is not None and passed >= self.cut_after_bytes:
                    self.cut()
                if self.then is not None and self.then[0] == upwards and passed >= self.then[1]:
                    happens, self.then = self.then[2], None
                    happens()


def _close(end: socket.socket, directions: int = socket.SHUT_RDWR) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(directions)  # a thread that waits in recv or accept would keep the socket open
    end.close()
