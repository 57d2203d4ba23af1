"""An Android phone of the loopback interface: the device's side of the adb protocol, over TCP.

Speaks what the real `adb` client asks of it: CNXN (no AUTH, or nothing but AUTH), OPEN/OKAY/WRTE/CLSE streams, the
services `shell,v2,raw:`, `exec:` and `sync:` (STAT, SEND, RECV). /data/local/tmp is a folder of this computer.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import struct
import subprocess
import threading
from pathlib import Path
from typing import Literal

VERSION, MAX_PAYLOAD = 0x01000001, 2**18  # the version from which checksums are not looked at
BANNER = b"device::ro.product.name=blueline;ro.product.model=Pixel 3;ro.product.device=blueline;features=shell_v2,cmd"
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)  # packets of shell v2
TMP = "/data/local/tmp"

State = Literal["device", "offline", "unauthorized"]


class FakePhone:
    """Listens on `port`; `state` is what `adb devices` shall show. `unplug` resets its connections."""

    def __init__(self, folder: Path, state: State = "device") -> None:
        self._folder, self._state = folder, state
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    def path(self, path: str) -> Path:
        """Where the phone's `path` lies on this computer."""
        return Path(self.there(path))

    def there(self, text: str) -> str:
        return text.replace(TMP, str(self._folder))

    def unplug(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.unplug()
        for process in self.processes:  # switched off
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):  # its session may wait for it in another thread
                    os.killpg(process.pid, signal.SIGKILL)
        self.processes.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections.append(connection)
                threading.Thread(target=_Link(self, connection, self._state).serve, daemon=True).start()


class _Link:
    """A connection of the adb server, with many streams on it."""

    def __init__(self, phone: FakePhone, connection: socket.socket, state: State) -> None:
        self.phone = phone
        self._connection, self._state = connection, state
        self._sending = threading.Lock()
        self._streams: dict[int, _Stream] = {}

    def send(self, command: bytes, arg0: int, arg1: int, payload: bytes = b"") -> None:
        number = int.from_bytes(command, "little")
        header = struct.pack("<6I", number, arg0, arg1, len(payload), sum(payload) & 0xFFFFFFFF, number ^ 0xFFFFFFFF)
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(header + payload)

    def serve(self) -> None:
        with contextlib.suppress(OSError, EOFError), self._connection, self._connection.makefile("rb") as reader:
            while header := reader.read(24):
                command, arg0, arg1, size, _, _ = struct.unpack("<4s5I", header)
                self._handle(command, arg0, arg1, reader.read(size))
        for stream in list(self._streams.values()):
            stream.end()

    def _handle(self, command: bytes, arg0: int, arg1: int, payload: bytes) -> None:
        if command in (b"CNXN", b"AUTH"):
            if self._state == "device":
                self.send(b"CNXN", VERSION, MAX_PAYLOAD, BANNER)
            elif self._state == "unauthorized":
                self.send(b"AUTH", 1, 0, bytes(20))  # another token to sign: no signature will do
        elif command == b"OPEN":
            number = max(self._streams, default=0) + 1
            self._streams[number] = _Stream(self, number, arg0, payload.rstrip(b"\0").decode())
        elif stream := self._streams.get(arg1):
            if command == b"WRTE":
                stream.inbox.put(payload)
            elif command == b"OKAY":
                stream.may_write.set()
            elif command == b"CLSE":
                stream.end()


class _Stream:
    def __init__(self, link: _Link, number: int, host_number: int, service: str) -> None:
        self._link, self._number, self._host_number = link, number, host_number
        self.inbox: queue.Queue[bytes] = queue.Queue()  # b"" at its end
        self.may_write = threading.Event()
        self._ended = threading.Event()
        self._rest = b""
        self._writing = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        kind, _, text = service.partition(":")
        action = {"shell": self._shell, "exec": self._exec, "sync": self._sync}.get(kind.split(",")[0])
        if action is None:
            link.send(b"CLSE", 0, host_number)
            return
        link.send(b"OKAY", number, host_number)
        self.may_write.set()
        threading.Thread(target=self._serve, args=(action, text), daemon=True).start()

    def end(self) -> None:
        self._ended.set()
        self.may_write.set()
        self.inbox.put(b"")
        # As adbd: the command learns of it by its closed pipes, and is not killed.
        if self._process and self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _serve(self, action: object, text: str) -> None:
        with contextlib.suppress(EOFError, OSError):
            action(self._link.phone.there(text))  # type: ignore[operator]
        self._link.send(b"CLSE", self._number, self._host_number)

    def _write(self, data: bytes) -> None:
        with self._writing:
            for start in range(0, len(data), MAX_PAYLOAD):
                self.may_write.wait()
                if self._ended.is_set():
                    raise EOFError
                self.may_write.clear()
                self._link.send(b"WRTE", self._number, self._host_number, data[start : start + MAX_PAYLOAD])

    def _read(self, size: int) -> bytes:
        while len(self._rest) < size:
            chunk = self.inbox.get()
            if not chunk:
                raise EOFError
            self._rest += chunk
            self._link.send(b"OKAY", self._number, self._host_number)  # now that it is read, and not before
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def _start(self, command: str) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": "/"},
            start_new_session=True,  # as adbd does
            bufsize=0,
        )
        self._link.phone.processes.append(self._process)
        return self._process

    def _exec(self, command: str) -> None:
        with self._start(command) as process:
            assert process.stdout
            while chunk := process.stdout.read(2**16):
                self._write(chunk)

    def _shell(self, command: str) -> None:
        with self._start(command) as process:
            pumps = [
                threading.Thread(target=self._pump, args=(process.stdout, STDOUT), daemon=True),
                threading.Thread(target=self._pump, args=(process.stderr, STDERR), daemon=True),
            ]
            threading.Thread(target=self._feed, args=(process,), daemon=True).start()
            for pump in pumps:
                pump.start()
            code = process.wait()
            for pump in pumps:
                pump.join()
            self._write(struct.pack("<BIB", EXIT, 1, code if code >= 0 else 128 - code))

    def _pump(self, pipe: object, kind: int) -> None:
        with contextlib.suppress(EOFError, OSError, ValueError):
            while chunk := pipe.read(2**15):  # type: ignore[attr-defined]
                self._write(struct.pack("<BI", kind, len(chunk)) + chunk)

    def _feed(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        with contextlib.suppress(EOFError, OSError, ValueError):
            while True:
                kind, size = struct.unpack("<BI", self._read(5))
                data = self._read(size)
                if kind == STDIN:
                    process.stdin.write(data)
                elif kind == CLOSE_STDIN:
                    process.stdin.close()

    def _sync(self, _: str) -> None:
        while True:
            request, size = struct.unpack("<4sI", self._read(8))
            if request == b"QUIT":
                return
            name = self._read(size).decode()
            if request == b"STAT":
                self._write(self._stat(self._link.phone.path(name)))
            elif request == b"RECV":
                self._give(self._link.phone.path(name))
            elif request == b"SEND":
                path, _, mode = name.rpartition(",")
                self._take(self._link.phone.path(path), int(mode))
            else:
                self._fail(f"unknown request {request!r}")

    def _stat(self, path: Path) -> bytes:
        try:
            found = path.stat()
        except OSError:
            return struct.pack("<4sIII", b"STAT", 0, 0, 0)
        return struct.pack("<4sIII", b"STAT", found.st_mode, found.st_size, int(found.st_mtime))

    def _give(self, path: Path) -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            return self._fail(f"open failed: {error.strerror}")
        for start in range(0, len(content), 2**16):
            chunk = content[start : start + 2**16]
            self._write(struct.pack("<4sI", b"DATA", len(chunk)) + chunk)
        return self._write(struct.pack("<4sI", b"DONE", 0))

    def _take(self, path: Path, mode: int) -> None:
        problem, chunks = "", []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"couldn't create file: {error.strerror}"
        while True:
            kind, size = struct.unpack("<4sI", self._read(8))
            if kind == b"DONE":
                break
            chunks.append(self._read(size))
        if not problem:
            try:
                path.write_bytes(b"".join(chunks))
                path.chmod(mode & 0o777)
            except OSError as error:
                problem = f"couldn't create file: {error.strerror}"
        if problem:
            self._fail(problem)
        else:
            self._write(struct.pack("<4sI", b"OKAY", 0))

    def _fail(self, reason: str) -> None:
        self._write(struct.pack("<4sI", b"FAIL", len(reason)) + reason.encode())
