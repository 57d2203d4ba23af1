"""The package as it would find itself on Windows or macOS: what Python lacks there is hidden from its modules.

    python -m tests.other_system Windows COMMAND ...

runs each COMMAND, like "devices" or "board list", and prints a JSON line [exit code, stdout, stderr] for each.
Libraries see the real system, since each has its own code for others.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

# From "Availability" in the library reference of Python 3.11.
_NO_MODULES = {
    "Windows": "fcntl resource pwd grp termios pty tty syslog crypt nis posix readline curses _posixsubprocess",
    "macOS": "nis ossaudiodev spwd",
}
_LACKS: dict[str, dict[str, str]] = {
    "Windows": {
        "os": "chown chroot ctermid eventfd fchmod fchown fdatasync fork forkpty fstatvfs get_blocking getegid geteuid"
        " getgid getgroups getloadavg getpgid getpgrp getpriority getresuid getsid getuid getxattr initgroups killpg"
        " lchown lockf lseek_data major memfd_create mkfifo mknod nice openpty pathconf pidfd_open pipe2 posix_fadvise"
        " posix_spawn posix_spawnp pread preadv pwrite pwritev readv register_at_fork sched_getaffinity"
        " sched_setaffinity sched_yield sendfile set_blocking setegid seteuid setgid setgroups setpgid setpriority"
        " setregid setresuid setreuid setsid setuid setxattr splice statvfs sync sysconf tcgetpgrp tcsetpgrp"
        " ttyname uname wait wait3 wait4 waitid writev WNOHANG WEXITED WNOWAIT P_PID WIFSIGNALED WTERMSIG"
        " WEXITSTATUS EX_OK O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_SYNC O_TMPFILE",
        "signal": "SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGTTIN SIGUSR1 SIGUSR2"
        " alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigtimedwait sigwait",
        "select": "epoll kqueue poll PIPE_BUF POLLERR POLLHUP POLLIN POLLOUT",
        "socket": "AF_UNIX SO_REUSEPORT sendmsg recvmsg",
        "time": "clock_getres clock_gettime clock_gettime_ns clock_settime pthread_getcpuclockid tzset",
        "sys": "getdlopenflags setdlopenflags",
    },
    "macOS": {
        "os": "eventfd fdatasync getresuid getxattr memfd_create pidfd_open pipe2 posix_fadvise posix_fallocate"
        " sched_getaffinity sched_setaffinity setresuid setxattr splice O_TMPFILE",
        "select": "epoll",
    },
}


def _started(start: Callable[..., Any], *arguments: Any, creationflags: int = 0, **more: Any) -> Any:
    """As Windows has it: there are flags, and no sessions."""
    for name in ("preexec_fn", "pass_fds", "start_new_session", "process_group", "user", "group", "umask"):
        if name in more:
            raise ValueError(f"{name} is not supported on Windows platforms")
    return start(*arguments, **more, start_new_session=bool(creationflags & 0x200))


_HAS: dict[str, dict[str, dict[str, Any]]] = {
    "Windows": {
        "os": {"name": "nt", "O_BINARY": 0},
        "sys": {"platform": "win32"},
        "subprocess": {
            "CREATE_NEW_PROCESS_GROUP": 0x200,
            "Popen": partial(_started, subprocess.Popen),
            "run": partial(_started, subprocess.run),
        },
    },
    "macOS": {"sys": {"platform": "darwin"}},
}
_REAL = {"os": os, "signal": signal, "select": select, "socket": socket, "time": time, "sys": sys}
_REAL["subprocess"] = subprocess


class _View(types.ModuleType):
    """`module`, without some of its attributes and with some others."""

    def __init__(self, module: types.ModuleType, lacks: frozenset[str], has: Mapping[str, Any]) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(has, _module=module, _lacks=lacks)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__["_lacks"]:
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'", name=name, obj=self)
        return getattr(self.__dict__["_module"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_module"], name, value)


def pretend(system: str) -> None:
    """From here on what is imported of edgenas sees `system`; call it before any of it is."""
    assert not any(name.startswith("edgenas") for name in sys.modules)
    hidden = set(_NO_MODULES[system].split())
    lacks, has = _LACKS[system], _HAS[system]
    views = {
        name: _View(module, frozenset(lacks.get(name, "").split()), has.get(name, {}))
        for name, module in _REAL.items()
        if name in lacks or name in has
    }
    real_import = builtins.__import__

    def seen(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> types.ModuleType:
        if level == 0 and str((globals or {}).get("__name__", "")).split(".")[0] == "edgenas":
            top, _, rest = name.partition(".")
            if top in hidden:
                raise ModuleNotFoundError(f"No module named '{name}'", name=name)
            if top in views and not (rest and fromlist):
                return views[top]
        return real_import(name, globals, locals, fromlist or (), level)

    builtins.__import__ = seen
    # Where Python runs with -X warn_default_encoding: a file read in whatever the system's encoding is.
    warnings.filterwarnings("error", category=EncodingWarning, module=r"edgenas\.")


def main() -> None:
    pretend(sys.argv[1])
    from edgenas.cli import main as edgenas

    for command in sys.argv[2:]:
        code: Any = 0
        texts = io.TextIOWrapper(io.BytesIO(), "ascii"), io.TextIOWrapper(io.BytesIO(), "ascii")  # a poor console
        with contextlib.redirect_stdout(texts[0]), contextlib.redirect_stderr(texts[1]):
            try:
                edgenas(shlex.split(command))
            except SystemExit as end:
                code = end.code or 0
        printed = []
        for text in texts:
            text.flush()
            printed.append(text.buffer.getvalue().decode())
        print(json.dumps([code, *printed]), flush=True)


if __name__ == "__main__":
    main()
