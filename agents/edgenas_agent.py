#!/usr/bin/env python3
"""EdgeNAS agent: times models on the board it runs on, and answers one JSON object a line.

One file, standard library only, Python 3.6 and later. Started as `python3 AGENTFILE --work FOLDER` over SSH or as a
local process; README.md beside this file tells the protocol. It writes nothing outside FOLDER, opens no socket, and
ends, with all its children, when its standard input ends or stays silent.

    protocol             Agent: requests in, replies out, one job at a time
    facts of the board   Board: hardware, clocks, temperature, power, runtimes
    lease                Lease: one program at a time may time models on this board
    jobs                 ModelJob: what is asked of a model, checked here and done in a child
    children             Worker: every model runs in a process of its own that can be killed
    models               under onnxruntime, TFLite, trtexec, benchmark_model; imported in the children only
    runtimes             RUNTIMES, a table: how each is found, opens a model, and times it
"""

import argparse
import contextlib
import ctypes
import errno
import fcntl
import gc
import glob
import hashlib
import importlib
import json
import math
import os
import platform
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback

PROTOCOL = 1
PREFIX = b"@edgenas "  # no library prints this: what lacks it is no reply
MAX_LINE_BYTES = 2**20  # bytes of a request
MAX_RESULT_BYTES = 2**26  # bytes that the agent believes of a child
MAX_FILE_BYTES = 2**30  # bytes that a child may write into one file
MAX_SAMPLES = 10**6  # of one job
TYPES = ["bool", "float16", "float32", "float64"] + [
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
]  # that input can be made up of, by numpy's names
MIN_PEAK = 1e-3  # outputs whose largest number is less are compared as if it were this
FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}\Z")
SHA256 = re.compile(r"[0-9a-f]{64}\Z")
COMPILED = b"edgetpu-custom-op"  # the operator that stands for what edgetpu_compiler made of the others
HERE = os.path.abspath(__file__)


class AgentError(Exception):
    """An error that the client is told: its kind, one sentence, and facts for programs."""

    def __init__(self, kind, sentence, detail=None, trace=None):
        Exception.__init__(self, sentence)
        self.kind, self.detail, self.trace = kind, detail, trace


class GoneError(Exception):
    """Nobody listens any more."""


# ---------------------------------------------------------------------------------------------------------- protocol


class Wire:
    """Lines in, lines out; every wait has an end."""

    def __init__(self, source, target, idle_s):
        self.source, self.target, self.idle_s = source, target, idle_s
        self._pending = b""

    def fill(self):
        """Take what has arrived; call it where select() says that there is something."""
        chunk = os.read(self.source, 65536)
        if not chunk:
            raise GoneError("end of input")
        self._pending += chunk
        if len(self._pending) > MAX_LINE_BYTES + 65536:  # also where many lines are sent ahead during a job
            raise AgentError("request", f"a request is longer than {MAX_LINE_BYTES} bytes")

    def next_line(self):
        line, newline, rest = self._pending.partition(b"\n")
        if len(line) > MAX_LINE_BYTES:
            raise AgentError("request", f"a request is longer than {MAX_LINE_BYTES} bytes")
        if not newline:
            return None
        self._pending = rest
        return line

    def send(self, message):
        data = memoryview(PREFIX + json.dumps(message, allow_nan=False).encode("ascii") + b"\n")
        while data:
            # select() promises room for PIPE_BUF bytes: a client that stopped reading cannot hold the agent
            if not select.select([], [self.target], [], self.idle_s)[1]:
                raise GoneError("replies are not read")
            data = data[os.write(self.target, data[: select.PIPE_BUF]) :]


def number(fields, name, low, high, default=None, whole=False):
    value = fields.get(name, default)
    right = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, right) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise AgentError("request", f"'{name}' must be {kind} from {low} to {high}")
    return value


def typed(fields, name, kind, optional=False):
    value = fields.get(name)
    if value is None and optional:
        return None
    if not isinstance(value, kind):
        raise AgentError("request", f"'{name}' is missing or is no {kind.__name__}")
    return value


def tensors(fields, name):
    """What `golden` says of the types of its values; None where all are float32."""
    given = typed(fields, name, list, optional=True)
    for each in given or ():
        shape, scale = (each.get("shape"), each.get("scale")) if isinstance(each, dict) else (None, None)
        sized = isinstance(shape, list) and all(type(size) is int and 0 <= size < 2**31 for size in shape)
        scaled = type(scale) in (int, float) and 0 <= scale < 1e30 and type(each.get("zero_point")) is int
        if not (sized and scaled and each.get("dtype") in TYPES and isinstance(each.get("name"), str)):
            raise AgentError(
                "request", f"'{name}' of the golden values must have name, dtype, shape, scale, zero_point"
            )
    return given


class Agent:
    OPERATIONS = ("ping", "info", "lease", "release", "time", "run", "forget", "close")

    def __init__(self, wire, folder, board, python, memory_bytes):
        self.wire, self.folder, self.board = wire, folder, board
        self.python, self.memory_bytes = python, memory_bytes
        self.files = os.path.join(folder, "files")
        self.scratch = os.path.join(folder, f"scratch-{os.getpid()}")
        for path in (folder, self.files, self.scratch):
            os.makedirs(path, mode=0o700, exist_ok=True)
            if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        for path in glob.glob(os.path.join(glob.escape(folder), "scratch-*")):
            if not process_start(path.rpartition("-")[2]):
                shutil.rmtree(path, ignore_errors=True)
        self.lease = Lease(folder, board.boot_id)
        self.clocks = Clocks(board, folder)
        self.workers = {}  # name of the module imported: Worker

    def serve(self):
        """Answer until `close`, the end of input, or silence; the exit code."""
        with open(HERE, "rb") as file:
            self.version = hashlib.sha256(file.read()).hexdigest()
        self.wire.send({"hello": 1, "protocol": PROTOCOL, "version": self.version, "pid": os.getpid()})
        heard_s = time.monotonic()
        while True:
            try:
                line = self.wire.next_line()
                if line is None:
                    if select.select([self.wire.source], [], [], min(1.0, self.wire.idle_s))[0]:
                        self.wire.fill()
                        heard_s = time.monotonic()
                    elif time.monotonic() - heard_s > self.wire.idle_s:
                        return 0
                    elif self.clocks.raised and not self.lease.held_here():
                        self.clocks.restore()
                    continue
            except AgentError as failure:  # what follows an endless line cannot be understood
                self.wire.send(refusal(None, failure))
                return 2
            reply, op = self.answer(line)
            self.wire.send(reply)
            if op == "close" and reply["ok"]:
                return 0
            heard_s = time.monotonic()

    def answer(self, line):
        identity = op = None
        try:
            try:
                request = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError):
                raise AgentError("request", "a request is not JSON") from None
            if not isinstance(request, dict):
                raise AgentError("request", "a request is not a JSON object")
            if isinstance(request.get("id"), int):
                identity = request["id"]
            op = request.get("op")
            if op not in self.OPERATIONS:
                raise AgentError("request", f"no operation {str(op)[:40]!r}; there are {', '.join(self.OPERATIONS)}")
            return {"id": identity, "ok": True, "result": getattr(self, "op_" + op)(request)}, op
        except AgentError as failure:
            return refusal(identity, failure), op
        except (GoneError, BrokenPipeError):
            raise
        except Exception as error:
            sentence = f"the agent failed: {type(error).__name__}: {error}"
            return refusal(identity, AgentError("internal", sentence, trace=traceback.format_exc())), op

    def op_ping(self, request):
        return {}

    def op_close(self, request):
        return {}

    def op_info(self, request):
        facts = self.board.info()
        facts.update(protocol=PROTOCOL, version=self.version, state=self.board.state())
        facts["runtimes"] = [
            {"name": found["name"], "version": found["version"], "formats": found["formats"]}
            for found in self.board.runtimes()
        ]
        return facts

    def op_lease(self, request):
        holder, seconds = typed(request, "holder", str)[:200], number(request, "seconds", 0.001, 86400)
        return self.lease.take(holder, seconds, typed(request, "token", str, optional=True))

    def op_release(self, request):
        self.lease.release(typed(request, "token", str))
        self.clocks.restore()
        return {}

    def op_forget(self, request):
        names, older_than_s = typed(request, "files", list, optional=True), request.get("older_than_s")
        if (names is None) == (older_than_s is None):
            raise AgentError("request", "'forget' takes either 'files' or 'older_than_s'")
        if names is None:
            limit_s = time.time() - number(request, "older_than_s", 0, 1e9)
            with os.scandir(self.files) as entries:  # also what a lost connection left half sent
                paths = [entry.path for entry in entries if entry.stat(follow_symlinks=False).st_mtime <= limit_s]
        else:
            paths = [self.path_of(name) for name in names]
        removed = 0
        for path in paths:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
                os.remove(path)
                removed += 1
        return {"removed": removed}

    def op_time(self, request):
        token = typed(request, "token", str)
        self.lease.check(token)
        job = ModelJob.read("time", request, self)
        notes = self.clocks.prepare() if request.get("prepare") is True else self.clocks.restore()
        before = self.board.state()
        result, power = self.work(job, token)
        after = self.board.state()
        self.lease.check(token)
        windows = result.pop("windows_s")
        result["energy_mj"], result["power_w"] = energy(power, windows, result["samples_ns"])
        result["power_rail"] = self.board.power_rail if result["power_w"] else None
        result["notes"] = notes + result["notes"]
        result.update(before=before, after=after, child="fresh" if job.fresh else "fork")
        return result

    def op_run(self, request):
        token = typed(request, "token", str, optional=True)
        if token is None:
            self.lease.check_free()  # somebody else's timing must not be disturbed
        else:
            self.lease.check(token)
        job = ModelJob.read("run", request, self)
        result, _ = self.work(job, token)
        part = job.output
        result["output"] = {"file": request["output"], "sha256": sha256_of(part), "bytes": os.path.getsize(part)}
        os.replace(part, self.path_of(request["output"]))
        return result

    def path_of(self, name):
        if not isinstance(name, str) or not FILE_NAME.match(name):
            raise AgentError(
                "request", f"{str(name)[:60]!r} is no file name: letters, digits, '.', '_' and '-', not '.' first"
            )
        return os.path.join(self.files, name)

    def checked_file(self, fields):
        """The path of a file that has the hash that the client says. Raises AgentError, kind missing or hash."""
        path, expected = self.path_of(fields.get("file")), fields.get("sha256")
        if not isinstance(expected, str) or not SHA256.match(expected):
            raise AgentError("request", "'sha256' of {} must be 64 hexadecimal digits".format(fields["file"]))
        if sha256_of(path) != expected:
            raise AgentError("hash", "{} is damaged: its SHA-256 is not the one asked for".format(fields["file"]))
        os.utime(path)  # `forget` by age spares what is in use
        return path

    # One job: a child works, the agent watches the child, the clock, the lease, the power rail, and the client.

    def work(self, job, token):
        """The child's result, and the power seen meanwhile as (monotonic s, W). Raises AgentError or GoneError."""
        oom_kills, module = self.board.oom_kills(), job.found["module"]
        worker = None if job.fresh else self.workers.get(module)
        output = os.path.join(self.scratch, "printed")
        with contextlib.suppress(FileNotFoundError):
            os.remove(output)
        try:
            if worker is None:
                worker = Worker(None if job.fresh else module, self.python if job.fresh else None)
                if not job.fresh:
                    self.workers[module] = worker
            outcome, status, power = self.watch(worker, job, token)
        except BaseException:
            self.workers.pop(module, None)
            if worker:
                worker.kill()
            raise
        if job.fresh:
            worker.kill()
        elif worker.ended:
            self.workers.pop(module, None)
        if outcome and "result" in outcome:
            return outcome["result"], power
        detail = {"printed": tail_of(output)}
        if outcome:
            detail.update(outcome.get("detail") or {})
            raise AgentError(outcome["kind"], outcome["error"], detail, outcome.get("traceback"))
        how = f"signal {-status}" if status < 0 else f"exit code {status}"
        if status == -signal.SIGKILL and oom_kills != self.board.oom_kills():
            raise AgentError("memory", "the model took more memory than the board has", detail)
        raise AgentError("crash", f"the process of the model ended by {how}", detail)

    def watch(self, worker, job, token):
        deadline_s = time.monotonic() + job.timeout_s
        worker.send(job)
        outcome, power, check_s = None, [], 0.0
        tick_s = 0.05 if self.board.power_path else 0.5
        while True:
            wait_s = max(0.0, min(tick_s, deadline_s - time.monotonic()))
            ready = select.select([self.wire.source, worker.results], [], [], wait_s)[0]
            if worker.results in ready:
                for message in worker.messages():
                    if "ended" in message:
                        return outcome, message["ended"], power
                    outcome = message
            if self.wire.source in ready:
                self.wire.fill()
            now_s = time.monotonic()
            if now_s >= deadline_s and worker.results not in ready:
                raise AgentError("timeout", f"the model did not end within {job.timeout_s:g} s")
            if token is not None and now_s >= check_s:
                self.lease.check(token)
                check_s = now_s + 0.5
            if self.board.power_path:
                watts = self.board.power_w()
                if watts is not None:
                    power.append((now_s, watts))

    def end(self):
        for worker in self.workers.values():
            worker.kill()
        self.clocks.restore_at_the_end()
        self.lease.release(None)
        shutil.rmtree(self.scratch, ignore_errors=True)


def refusal(identity, failure):
    reply = {"id": identity, "ok": False, "kind": failure.kind, "error": str(failure), "traceback": failure.trace}
    if failure.detail is not None:
        reply["detail"] = failure.detail
    return reply


def energy(power, windows, samples_ns):
    """mJ of one inference (mean power while repeats ran x their mean duration), and the powers in W; (None, None)
    where fewer than three readings fell into the repeats. The power is the whole rail's, idle draw included."""
    watts = [watt for at_s, watt in power if any(start <= at_s <= end for start, end in windows)]
    durations_ns = [ns for repeat in samples_ns for ns in repeat]
    if len(watts) < 3 or not durations_ns:
        return None, None
    return sum(watts) / len(watts) * (sum(durations_ns) / len(durations_ns)) / 1e6, watts


def sha256_of(path):
    digest = hashlib.sha256()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            for block in iter(lambda: file.read(2**20), b""):
                digest.update(block)
    except OSError as error:
        raise AgentError("missing", f"there is no file {os.path.basename(path)} ({error.strerror})") from None
    return digest.hexdigest()


def tail_of(path, size=2048):
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - size))
        return file.read(size).decode("utf-8", "replace")
    return ""


# ------------------------------------------------------------------------------------------------ facts of the board


def read(path):
    """The text of a small file of the kernel's, or None; devices that are absent answer with all sorts of errors."""
    try:
        with open(path, errors="replace") as file:
            return file.read(65536).strip(" \n\t\0")
    except (OSError, ValueError):
        return None


def affinity():
    """The processors that this process may use, also where the interpreter cannot say (PyPy)."""
    spans = re.search(r"^Cpus_allowed_list:\s+(\S+)", read("/proc/self/status") or "", re.M)
    if not spans:
        return list(range(os.cpu_count() or 1))
    ends = [[int(end) for end in span.split("-")] for span in spans.group(1).split(",")]
    return [cpu for end in ends for cpu in range(end[0], end[-1] + 1)]


def command(arguments, timeout_s=10):
    """The output of a tool of the board's, or None where it is absent or fails."""
    if shutil.which(arguments[0]) is None:
        return None
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=timeout_s
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None


class Board:
    POWER_RAILS = (  # Jetson: INA3221 monitors, one rail of several named VDD_IN is the whole module
        "bus/i2c/drivers/ina3221x/*/iio:device*/in_power*_input",
        "bus/iio/devices/iio:device*/in_power*_input",
        "class/hwmon/hwmon*/in_power*_input",
    )

    def __init__(self, sysfs="/sys", procfs="/proc"):
        self.sysfs, self.procfs = sysfs, procfs
        self.boot_id = read(os.path.join(procfs, "sys/kernel/random/boot_id")) or "unknown"
        self.power_path, self.power_rail = self._power()
        self._runtimes = None

    def _glob(self, *patterns):
        root = glob.escape(self.sysfs)
        return [path for pattern in patterns for path in sorted(glob.glob(os.path.join(root, pattern)))]

    def _megahertz(self, name):
        values = [read(path) for path in self._glob("devices/system/cpu/cpufreq/policy*/" + name)]
        return [int(value) / 1000.0 for value in values if value and value.isdigit()] or None

    def _device_tree(self, name):
        return read(os.path.join(self.procfs, "device-tree", name))

    def _power(self):
        rails = []
        for path in self._glob(*self.POWER_RAILS):
            index = re.search(r"in_power(\d+)_input", path).group(1)
            rails.append((path, read(os.path.join(os.path.dirname(path), "rail_name_" + index)) or "unnamed"))
        whole = [rail for rail in rails if rail[1].upper() in ("VDD_IN", "5V_IN")] or [
            r for r in rails if len(rails) == 1
        ]
        return whole[0] if whole else (None, None)

    def power_w(self):
        milliwatts = read(self.power_path)
        return int(milliwatts) / 1000.0 if milliwatts and milliwatts.isdigit() else None

    def oom_kills(self):
        """How often the kernel killed for want of memory since boot; None on kernels before 4.13."""
        found = re.search(r"^oom_kill (\d+)$", read("/proc/vmstat") or "", re.M)
        return int(found.group(1)) if found else time.monotonic()  # never equal: then a SIGKILL is taken for it

    def governors(self):
        return self._glob("devices/system/cpu/cpufreq/policy*/scaling_governor")

    def state(self):
        governor = [read(path) or "unknown" for path in self.governors()] or None
        throttled, notes = None, []
        reported = re.match(r"throttled=(0x[0-9a-fA-F]+)$", command(["vcgencmd", "get_throttled"]) or "")
        if reported:
            throttled = int(reported.group(1), 16)
            names = ("under-voltage", "capped frequency", "throttled", "soft temperature limit")
            notes += [name + " now" for bit, name in enumerate(names) if throttled >> bit & 1]
        if governor and set(governor) != {"performance"}:
            notes.append("the governor is {}, not performance".format(", ".join(sorted(set(governor)))))
        uptime = (read(os.path.join(self.procfs, "uptime")) or "0").split()[0]
        return {
            "governor": governor,
            "clocks_mhz": self._megahertz("scaling_cur_freq"),
            "max_clocks_mhz": self._megahertz("cpuinfo_max_freq"),
            "temperature_c": self._temperatures(),
            "throttled": throttled,
            "load": os.getloadavg()[0],
            "uptime_s": float(uptime),
            "monotonic_s": time.monotonic(),
            "wall_s": time.time(),
            "affinity": affinity(),
            "notes": notes,
        }

    def _temperatures(self):
        celsius = {}
        for path in self._glob("class/thermal/thermal_zone*/temp", "class/apex/apex_*/temp"):
            folder = os.path.dirname(path)
            name, value = read(os.path.join(folder, "type")) or os.path.basename(folder), read(path)
            # the TX2's PMIC-Die always says 100 degrees
            if value and re.match(r"-?\d+$", value) and name != "PMIC-Die":
                if name in celsius:
                    name = f"{name} {os.path.basename(folder)}"
                celsius[name] = int(value) / 1000.0
        return celsius

    def info(self):
        cpuinfo = read(os.path.join(self.procfs, "cpuinfo")) or ""
        meminfo = re.search(r"^MemTotal:\s+(\d+) kB", read(os.path.join(self.procfs, "meminfo")) or "", re.M)
        cpu = re.search(r"^(?:model name|Hardware|cpu model)\s*:\s*(.+)$", cpuinfo, re.M)
        model = self._device_tree("model")
        serial = self._device_tree("serial-number") or read("/etc/machine-id") or platform.node()
        return {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "machine": platform.machine(),
            "model": model or read(os.path.join(self.sysfs, "class/dmi/id/product_name")),
            "cpu": cpu.group(1) if cpu else model,
            "cores": os.cpu_count(),
            "memory_mb": int(meminfo.group(1)) // 1024 if meminfo else None,
            "boot_id": self.boot_id,
            "board_id": hashlib.sha256(serial.encode("utf-8")).hexdigest()[:16],
            "host": platform.node(),
        }

    def runtimes(self):
        """What can run models here, best first: name, formats, and what its probe found."""
        if self._runtimes is None:
            probes = [(each, each.probe(self)) for each in RUNTIMES.values()]
            self._runtimes = [dict(found, name=each.name, formats=[each.form]) for each, found in probes if found]
        return self._runtimes

    def edgetpu(self):
        """The path of libedgetpu where both it and an Edge TPU are here."""
        usb = {
            "{}:{}".format(read(path), read(path[:-8] + "idProduct"))
            for path in self._glob("bus/usb/devices/*/idVendor")
        }
        if not self._glob("class/apex/apex_*") and not usb & {"1a6e:089a", "18d1:9302"}:
            return None
        folders = os.environ.get("LD_LIBRARY_PATH", "").split(":") + glob.glob("/usr/lib/*-linux-gnu*")
        for folder in [*folders, "/usr/lib", "/usr/local/lib"]:
            path = os.path.join(folder, "libedgetpu.so.1")
            if folder and os.path.exists(path):
                return path
        return None

    def runtime(self, name, form, path):
        """The runtime called `name`, or the best for the file at `path` where that is None; never an accelerator that
        was not asked for, but for a file that runs nowhere else."""
        kind = "compiled" if name is None and form == "tflite" and is_compiled(path) else form
        fitting = [
            found
            for found in self.runtimes()
            if (RUNTIMES[found["name"]].default_for == kind if name is None else found["name"] == name)
            and form in found["formats"]
        ]
        if not fitting:
            here = ", ".join(found["name"] for found in self.runtimes()) or "none at all"
            raise AgentError(
                "runtime", "no runtime {}here runs {}; found: {}".format(name + " " if name else "", form, here)
            )
        return fitting[0]


def is_compiled(path):
    """Whether a TFLite file is compiled for the Edge TPU."""
    with open(path, "rb") as file:
        return COMPILED in file.read()


def distribution(module):
    """(folder, version) of an importable package, without importing it; None where it is absent."""
    for entry in sys.path:
        folder = os.path.join(entry or os.getcwd(), module)
        if not os.path.isfile(os.path.join(folder, "__init__.py")):
            continue
        for path in sorted(glob.glob(os.path.join(glob.escape(os.path.dirname(folder)), module + "*-*-info"))) + sorted(
            glob.glob(os.path.join(glob.escape(os.path.dirname(folder)), module + "*.*-info"))
        ):
            name = re.match(r"[A-Za-z0-9_]+-([0-9][^-]*?)(-py.*)?\.(dist|egg)-info$", os.path.basename(path))
            if name:
                return folder, name.group(1)
        text = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)", read(os.path.join(folder, "__init__.py")) or "", re.M)
        return folder, text.group(1) if text else None
    return None


class Clocks:
    """Raises the clocks for timing and puts them back: what they were is on disk before it is changed, so that the next
    agent can put them back where this one is killed."""

    def __init__(self, board, folder):
        self.board = board
        self.path, self.store = os.path.join(folder, "clocks.json"), os.path.join(folder, "jetson_clocks.conf")
        self.raised = False
        left = load_json(self.path)
        if left and not process_start(left.get("pid")):
            self.raised = left.get("boot_id") == board.boot_id
            self.restore()

    def prepare(self):
        """Raise what may be raised; notes on what may not. Stays until the lease ends."""
        if self.raised:
            return []
        give_up_s = time.monotonic() + 60
        while time.monotonic() < give_up_s:
            left = load_json(self.path) or {}
            if not (left.get("restoring") and process_start(left.get("pid"))):
                break
            time.sleep(0.05)  # an agent before this one is putting them back
        mode = re.search(r"(\d+)\s*$", command(["nvpmodel", "-q"]) or "")
        jetson = command(["jetson_clocks", "--store", self.store], 60) is not None
        before = {
            "boot_id": self.board.boot_id,
            "pid": os.getpid(),
            "governors": {path: read(path) for path in self.board.governors()},
            "nvpmodel": mode.group(1) if mode else None,
            "jetson_clocks": jetson,
        }
        save_json(self.path, before)
        self.raised, notes = True, []
        if mode and mode.group(1) != "0" and command(["nvpmodel", "-m", "0"], 60) is None:
            notes.append("nvpmodel -m 0 failed; it needs root")
        if shutil.which("jetson_clocks") and not (jetson and command(["jetson_clocks"], 60) is not None):
            notes.append("jetson_clocks failed; it needs root")
        for path, governor in before["governors"].items():
            if governor != "performance" and not write(path, "performance"):
                notes.append(f"the governor stays {governor}: {path} may not be written")
        return notes

    def restore(self):
        if self.raised:
            before = load_json(self.path) or {}
            allowed = set(self.board.governors())
            for path, governor in (before.get("governors") or {}).items():
                if path in allowed and governor:
                    write(path, governor)
            if before.get("jetson_clocks"):
                command(["jetson_clocks", "--restore", self.store], 60)
            if before.get("nvpmodel") not in (None, "0"):
                command(["nvpmodel", "-m", str(before["nvpmodel"])], 60)
        self.raised = False
        with contextlib.suppress(OSError):
            os.remove(self.path)
        return []

    def restore_at_the_end(self):
        """As restore, in a process that goes on where this one is killed before it is done: tools take seconds. Another
        agent sees by its number that it is at work."""
        if not self.raised:
            return
        try:
            pid = os.fork()
        except OSError:
            self.restore()
            return
        if pid == 0:
            try:
                os.setsid()
                save_json(self.path, dict(load_json(self.path) or {}, pid=os.getpid(), restoring=True))
                self.restore()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)


def write(path, text):
    try:
        with open(path, "w") as file:
            file.write(text)
        return True
    except OSError:
        return False


def load_json(path):
    """The JSON object of a file of our own; None where it is absent or damaged."""
    try:
        with open(path) as file:
            value = json.loads(file.read(65536))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def save_json(path, value):
    part = f"{path}.{os.getpid()}"
    with open(part, "w") as file:
        json.dump(value, file)
    os.replace(part, path)


# ------------------------------------------------------------------------------------------------------------- lease


def process_start(pid):
    """When a process started, in clock ticks since boot, so that another of the same number is not taken for it; None
    where there is none, or only its remains."""
    fields = (read(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else None


class Lease:
    """Kept in FOLDER/lease.json; void after its time, after a reboot, and once the agent that gave it is gone."""

    def __init__(self, folder, boot_id):
        self.path, self.lock = os.path.join(folder, "lease.json"), os.path.join(folder, "lease.lock")
        self.boot_id = boot_id

    @contextlib.contextmanager
    def _locked(self):
        with open(self.lock, "a") as file:
            give_up_s = time.monotonic() + 5
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > give_up_s:
                        raise AgentError("busy", f"another agent holds {self.lock}") from None
                    time.sleep(0.005)
            yield

    def _current(self):
        lease = load_json(self.path)
        try:
            left_s = float(lease["expires_s"]) - time.monotonic()
            alive = lease["boot_id"] == self.boot_id and process_start(int(lease["pid"])) == lease["start"]
            return dict(lease, left_s=left_s) if alive and left_s > 0 else None
        except (KeyError, TypeError, ValueError):
            return None

    def take(self, holder, seconds, token):
        with self._locked():
            current = self._current()
            if token is not None and (current is None or current["token"] != token):
                raise AgentError("lease", "the lease has been lost; take a new one", self._whose(current))
            if token is None and current is not None:
                raise AgentError("busy", "the board is leased to {}".format(current["holder"]), self._whose(current))
            token = token or hashlib.sha256(os.urandom(32)).hexdigest()[:32]
            save_json(
                self.path,
                {
                    "token": token,
                    "holder": holder,
                    "expires_s": time.monotonic() + seconds,
                    "boot_id": self.boot_id,
                    "pid": os.getpid(),
                    "start": process_start(os.getpid()),
                },
            )
        return {"token": token, "expires_in_s": seconds}

    def release(self, token):
        """Give up the lease of `token`; None: the one that this agent gave, if any."""
        with self._locked():
            current = self._current()
            if current and (current["token"] == token or (token is None and current["pid"] == os.getpid())):
                os.remove(self.path)

    def check(self, token):
        current = self._current()
        if current is None or current["token"] != token:
            raise AgentError("lease", "the lease is not, or no longer, held", self._whose(current))

    def check_free(self):
        current = self._current()
        if current:
            raise AgentError("busy", "the board is leased to {}".format(current["holder"]), self._whose(current))

    def held_here(self):
        current = self._current()
        return current is not None and current["pid"] == os.getpid()

    def _whose(self, current):
        return {"holder": current["holder"], "expires_in_s": current["left_s"]} if current else None


# -------------------------------------------------------------------------------------------------------------- jobs


class ModelJob:
    """One model to time or to run: checked where the request arrives, done in a child, to which it goes as JSON.

    `op`: time or run. `found`: the runtime, as Board.runtimes() has it. `plan` and `golden` are of time, `golden` None
    where no output is to be checked; `input`, `batch` and `output` are of run. All files are paths here.
    """

    def __init__(self, op, model, found, threads, affinity, fresh, timeout_s, scratch, memory_bytes, **of_its_op):
        self.op, self.model, self.found = op, model, found
        self.threads, self.affinity, self.fresh, self.timeout_s = threads, affinity, fresh, timeout_s
        self.scratch, self.memory_bytes = scratch, memory_bytes
        self.plan, self.golden = of_its_op.get("plan"), of_its_op.get("golden")
        self.input, self.batch, self.output = of_its_op.get("input"), of_its_op.get("batch"), of_its_op.get("output")

    @classmethod
    def read(cls, op, request, agent):
        """What `request` asks of `agent`. Raises AgentError where it is not as agreed, or cannot be done here."""
        model = typed(request, "model", dict)
        form = model.get("format")
        if form not in ("onnx", "tflite"):
            raise AgentError("request", "the model's format must be onnx or tflite")
        path = agent.checked_file(model)
        found = agent.board.runtime(typed(request, "runtime", str, optional=True), form, path)
        cores = typed(request, "affinity", list, optional=True)
        if cores is not None and not (cores and all(type(core) is int and 0 <= core < 4096 for core in cores)):
            raise AgentError("request", "'affinity' must be a list of processor numbers")
        job = cls(
            op,
            path,
            found,
            threads=number(request, "threads", 1, 256, 1, whole=True),
            affinity=cores,
            fresh=request.get("fresh") is True,
            timeout_s=number(request, "timeout_s", 0.001, 86400, 60),
            scratch=agent.scratch,
            memory_bytes=agent.memory_bytes,
        )
        if op == "time":
            job._read_time(request, agent)
        else:
            job._read_run(request, agent)
        return job

    def _read_time(self, request, agent):
        plan = typed(request, "plan", dict)
        self.plan = {
            "warmup_runs": number(plan, "warmup_runs", 0, 10**6, 10, whole=True),
            "warmup_s": number(plan, "warmup_s", 0, 3600, 0.5),
            "repeats": number(plan, "repeats", 1, 10**4, 5, whole=True),
            "min_repeat_ms": number(plan, "min_repeat_ms", 0, 3.6e6, 100),
            "min_runs": number(plan, "min_runs", 0, MAX_SAMPLES, 0, whole=True),
            "max_repeat_s": number(plan, "max_repeat_s", 0.001, 3600, 60),
            "pause_s": number(plan, "pause_s", 0, 600, 0.1),
            "min_sample_ms": number(plan, "min_sample_ms", 0, 1e4, 0),
        }
        golden = typed(request, "golden", dict, optional=True)
        if golden is not None:
            self.golden = {
                "input": agent.checked_file(typed(golden, "input", dict)),
                "output": agent.checked_file(typed(golden, "output", dict)),
                "relative_error": number(golden, "relative_error", 0, 1e3),
                "inputs": tensors(golden, "inputs"),
                "outputs": tensors(golden, "outputs"),
            }

    def _read_run(self, request, agent):
        self.input = agent.checked_file(typed(request, "input", dict))
        self.batch = number(request, "batch", 1, 4096, 1, whole=True)
        agent.path_of(typed(request, "output", str))  # where it goes once it is whole
        self.output = os.path.join(self.scratch, "output")

    def encoded(self):
        return json.dumps(vars(self)).encode("ascii")

    @classmethod
    def decoded(cls, data):
        return cls(**json.loads(data.decode("ascii")))

    @property
    def runtime(self):
        return RUNTIMES[self.found["name"]]

    def confine(self):
        """Keep this process to the scratch folder, the memory and the processors that it may use."""
        os.chdir(self.scratch)
        os.environ["TMPDIR"] = self.scratch
        output = os.open("printed", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        limit(resource.RLIMIT_FSIZE, MAX_FILE_BYTES)
        limit(resource.RLIMIT_CORE, 0)
        limit(resource.RLIMIT_DATA, self.memory_bytes)
        if self.affinity:
            try:
                os.sched_setaffinity(0, self.affinity)
            except OSError as error:
                raise AgentError("hardware", f"processors {self.affinity}: {error.strerror}") from None

    def perform(self):
        """The result for the client, in the child."""
        result = self.runtime.time(self) if self.op == "time" else run_model(self)
        runtime = {"name": self.found["name"], "version": self.found["version"]}
        return dict(result, runtime=runtime, threads=self.threads, affinity=affinity())


# ---------------------------------------------------------------------------------------------------------- children


class Worker:
    """A process that forks one child a job. Forking from one that has imported numpy and a runtime takes milliseconds
    where a new interpreter takes seconds on a small board; a fresh one gets an address space laid out anew."""

    def __init__(self, preload, python):
        """`preload`: the module to import before any job, or None. `python`: start this interpreter, None: fork."""
        requests, self.requests = os.pipe()
        self.results, results = os.pipe()
        self.child, self.ended, self._pending, parent = None, False, b"", os.getpid()
        try:
            if python:
                duty = json.dumps({"requests": requests, "results": results, "parent": parent, "preload": preload})
                self.pid = subprocess.Popen(
                    [*python, HERE, "--worker", duty],
                    stdin=subprocess.DEVNULL,
                    stdout=2,
                    pass_fds=(requests, results),
                ).pid
            else:
                sys.stdout.flush()
                self.pid = os.fork()
                if self.pid == 0:
                    worker(requests, results, parent, preload)
        except OSError as error:
            os.close(self.requests)
            os.close(self.results)
            raise AgentError("internal", f"a child cannot be started: {error}") from None
        finally:
            os.close(requests)
            os.close(results)

    def send(self, job):
        with contextlib.suppress(BrokenPipeError):  # its end is seen where the results are read
            os.write(self.requests, job.encoded() + b"\n")

    def messages(self):
        """What has arrived: at most one result or error, then {"ended": exit code, or -signal}."""
        chunk = os.read(self.results, 2**20)
        self._pending += chunk
        if not chunk:
            self.ended = True
            yield {"ended": self._reap()}
            return
        if len(self._pending) > MAX_RESULT_BYTES:
            raise AgentError("internal", f"the result of the child is longer than {MAX_RESULT_BYTES} bytes")
        lines = self._pending.split(b"\n")
        self._pending = lines.pop()
        for line in lines:
            try:
                message = json.loads(line.decode("ascii"))
            except ValueError:
                continue  # cut off where the child was killed while it wrote
            if "started" in message:
                self.child = message["started"]
            else:
                if "ended" in message:
                    self.child = None
                yield message

    def kill(self):
        """End the worker and the child, also where they are stopped. Safe to repeat."""
        for pid in (self.child, None if self.ended else self.pid):
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)  # where it had no time to make its group
        if not self.ended:
            self.ended = True
            self._reap()
        self.child = None

    def _reap(self):
        os.close(self.requests)
        os.close(self.results)
        try:
            status = os.waitpid(self.pid, 0)[1]
        except ChildProcessError:
            return 1
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def leave_with(parent):
    """Let the kernel kill this process when its parent ends, however that ends."""
    with contextlib.suppress(Exception):  # a C library without prctl: then the agent's own care has to do
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def worker(requests, results, parent, preload):
    """The life of a worker process; does not return."""
    code = 1
    try:
        leave_with(parent)
        os.setpgid(0, 0)
        for number_ in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number_, signal.SIG_DFL)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        for name in os.listdir("/proc/self/fd"):  # above all the wire and the pipes of other workers
            if int(name) not in (0, 1, 2, requests, results):
                with contextlib.suppress(OSError):
                    os.close(int(name))
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # where memory runs out the model goes, not the SSH server
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # threads do not survive a fork, and nothing here multiplies matrices
        sys.dont_write_bytecode = True
        if preload:
            with contextlib.suppress(Exception):  # the job imports it again, and can say what is wrong
                import_runtime(preload)
        for line in os.fdopen(requests, "rb"):
            pid = os.fork()
            if pid == 0:
                child(ModelJob.decoded(line), results, os.getppid())
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # until it is waited for, its number is its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # whatever it left behind
            status = os.waitpid(pid, 0)[1]
            ended = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            os.write(results, b'\n{"ended": %d}\n' % ended)
        code = 0
    finally:
        os._exit(code)


def child(job, results, parent):
    """One job in a process, and a process group, of its own; does not return."""
    message = None
    try:
        os.setpgid(0, 0)
        os.write(results, b'{"started": %d}\n' % os.getpid())
        leave_with(parent)
        job.confine()
        message = {"result": job.perform()}
        text = json.dumps(message, allow_nan=False)
    except AgentError as failure:
        fields = {"kind": failure.kind, "error": str(failure), "traceback": failure.trace, "detail": failure.detail}
        text = json.dumps(fields)
    except MemoryError:
        text = json.dumps({"kind": "memory", "error": "the model took more memory than it may"})
    except BaseException as error:
        sentence = "{}: {}".format(type(error).__name__, " ".join(str(error).split())[:500])
        text = json.dumps({"kind": "internal", "error": sentence, "traceback": traceback.format_exc()})
    try:
        data = memoryview(text.encode("ascii") + b"\n")
        while data:
            data = data[os.write(results, data) :]
    finally:
        os._exit(0)


def limit(kind, value):
    soft_and_hard = value if resource.getrlimit(kind)[1] == resource.RLIM_INFINITY else resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (min(value, soft_and_hard), min(value, soft_and_hard)))


# ------------------------------------------------------------------------------------------------------------ models

clock_ns = getattr(time, "perf_counter_ns", None)
if clock_ns is None:  # Python 3.6; a double resolves a nanosecond for the first 52 days after boot, then two

    def clock_ns():
        return int(time.perf_counter() * 1e9)


def import_runtime(module):
    import numpy  # noqa: F401

    return importlib.import_module(module)


ONNX_TYPES = dict(
    {f"tensor({name})": name for name in TYPES}, **{"tensor(float)": "float32", "tensor(double)": "float64"}
)


class OnnxModel:
    """A model under onnxruntime. On the CPU the output is bound beforehand; under CUDA the copies to and from the GPU
    are part of an inference, and it has ended when invoke() returns."""

    def __init__(self, job, provider):
        onnxruntime = import_runtime(job.found["module"])
        onnxruntime.set_default_logger_severity(3)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = job.threads, 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        self._session = onnxruntime.InferenceSession(job.model, options, providers=[provider])
        if provider not in self._session.get_providers():  # onnxruntime falls back to the CPU without a word
            raise AgentError("hardware", f"onnxruntime has no {provider} on this board")
        self.inputs = [
            end(each.name, ONNX_TYPES.get(each.type), each.type, each.shape) for each in self._session.get_inputs()
        ]
        self._outputs = [each.name for each in self._session.get_outputs()]
        self._binding = self._session.io_binding()

    def own(self, values):
        return values.astype(single(self.inputs)["dtype"])

    def set_inputs(self, arrays):
        self._arrays = arrays  # the binding does not keep them alive
        for source, values in zip(self.inputs, arrays):
            self._binding.bind_cpu_input(source["name"], values)
        for name in self._outputs:
            self._binding.bind_output(name)

    def invoke(self):
        self._session.run_with_iobinding(self._binding)

    def outputs(self):
        return numbers(self._binding.copy_outputs_to_cpu())

    def floats(self):
        return self.outputs()[0].astype("float32")


class TFLiteModel:
    """A model under LiteRT or tflite-runtime, whose invoke() works on tensors set before. What comes in as float32 and
    goes out as such is converted by the model's own scales, outside of what is timed."""

    def __init__(self, job, delegate=None):
        runtime, options = import_runtime(job.found["module"]), {}
        if delegate:
            options["experimental_delegates"] = [runtime.load_delegate(delegate)]
        self._interpreter = runtime.Interpreter(model_path=job.model, num_threads=job.threads, **options)
        self._interpreter.allocate_tensors()
        self._sources, self._targets = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.inputs = []
        for each in self._sources:
            dtype = getattr(each["dtype"], "__name__", str(each["dtype"]))
            dtype = "bool" if dtype.startswith("bool") else dtype  # of numpy: bool_
            self.inputs.append(end(each.get("name", ""), dtype if dtype in TYPES else None, dtype, each["shape"]))
        self.invoke = self._interpreter.invoke

    def own(self, values):
        import numpy

        source = single(self._sources)
        scale, zero_point = source["quantization"]
        if numpy.issubdtype(source["dtype"], numpy.integer):
            limits = numpy.iinfo(source["dtype"])
            values = numpy.clip(numpy.rint(values / scale) + zero_point, limits.min, limits.max)
        return values.astype(source["dtype"])

    def set_inputs(self, arrays):
        for source, values in zip(self._sources, arrays):
            self._interpreter.set_tensor(source["index"], values)

    def outputs(self):
        return numbers([self._interpreter.get_tensor(each["index"]) for each in self._targets])

    def floats(self):
        import numpy

        raw = self._interpreter.get_tensor(self._targets[0]["index"])
        scale, zero_point = self._targets[0]["quantization"]
        integers = numpy.issubdtype(raw.dtype, numpy.integer)
        return ((raw.astype("float32") - zero_point) * numpy.float32(scale)) if integers else raw.astype("float32")


def end(name, dtype, said, shape):
    """An input: `dtype` numpy's name of its type, `shape` a list with None for an open side."""
    if dtype is None:
        raise AgentError("model", f"the model's input {name} is {said}; no such input can be made up")
    sizes = [int(size) if not isinstance(size, str) and size is not None and size > 0 else None for size in shape]
    if None in sizes[1:]:
        raise AgentError("model", f"the model's input {name} has no fixed size: {list(shape)}")
    return {"name": name, "dtype": dtype, "shape": sizes}


def numbers(values):
    """Those of the outputs that are arrays of numbers."""
    return [value for value in values if getattr(getattr(value, "dtype", None), "kind", "") in tuple("fiub")]


def single(inputs):
    if len(inputs) != 1:
        raise AgentError("model", f"the model has {len(inputs)} inputs; one is expected")
    return inputs[0]


@contextlib.contextmanager
def runtime_errors(job):
    """Runtimes raise classes of their own without a common base; here they get the kinds of the protocol."""
    try:
        yield
    except (AgentError, MemoryError):
        raise
    except ImportError as error:
        raise AgentError("runtime", "{} cannot be imported: {}".format(job.found["name"], error)) from None
    except Exception as error:
        reason = reason_of(error)
        if re.search(r"bad_alloc|bad allocation|out of memory|failed to allocate memory", reason, re.I):
            raise AgentError("memory", f"the model took more memory than it may: {reason}") from None
        trace = traceback.format_exc()
        raise AgentError("model", "{} rejects the model: {}".format(job.found["name"], reason), trace=trace) from None


def reason_of(error):
    """What a runtime says, in one line that the client shows whole: without the file and the place in the runtime's
    source that come first, and cut in the middle where it is long, since what is wrong stands at the end."""
    before = r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed: ?|/\S+:\d+ \S.*?\)(?: const)? (?=\S)"
    text = re.sub(before, "", " ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 340 else text[:150] + " ... " + text[-185:]


def open_model(job):
    with runtime_errors(job):
        return job.runtime.open(job)


def batches(model, path, batch):
    """Raw little-endian float32 as arrays [rows, ...] of the model's own layout; `batch` rows where it takes any."""
    import numpy

    source = single(model.inputs)
    if not source["shape"]:
        raise AgentError("model", "the model takes a single value, and no batch")
    rows, shape = source["shape"][0] or batch, source["shape"][1:]
    values = numpy.fromfile(path, dtype="<f4")
    size = rows * int(numpy.prod(shape))
    if not len(values) or len(values) % size:
        raise AgentError("request", f"the input has {len(values)} numbers; the model takes a multiple of {size}")
    return values.reshape([-1, rows, *shape])


def own_values(path, given):
    """The arrays that `given` describes, whose values lie one after another in the file at `path`."""
    import numpy

    with open(path, "rb") as file:
        data = file.read()
    arrays, at = [], 0
    for each in given:
        dtype, size = numpy.dtype(each["dtype"]), 1
        for side in each["shape"]:
            size *= side
        part, at = data[at : at + size * dtype.itemsize], at + size * dtype.itemsize
        if len(part) == size * dtype.itemsize:
            array = numpy.frombuffer(part, dtype).copy() if part else numpy.zeros(0, dtype)
            arrays.append(array.reshape(each["shape"]))
    if at != len(data):
        raise AgentError("request", f"the golden values are {len(data)} bytes; their types take {at}")
    return arrays


def made_up(model):
    """Input for a model whose output is not checked: of its own types, an open batch being 1. Whole numbers that may
    be places in a table, lengths or masks are 0 and 1, beginning with 1."""
    import numpy

    generator, arrays = numpy.random.RandomState(0), []
    for source in model.inputs:
        shape, dtype = [size or 1 for size in source["shape"]], numpy.dtype(source["dtype"])
        if dtype.kind == "f":
            values = generator.random_sample(shape)
        elif dtype.kind in "iu" and dtype.itemsize <= 2:
            limits = numpy.iinfo(dtype)
            values = generator.randint(limits.min, limits.max + 1, shape)
        else:
            values = generator.randint(0, 2, [*shape, 1])
            values[0 if len(shape) == 0 else (Ellipsis, 0, 0)] = 1
        arrays.append(numpy.asarray(values).astype(dtype).reshape(shape))
    return arrays


def predict(job, model, values):
    with runtime_errors(job):
        model.set_inputs([model.own(values)])
        model.invoke()
        return model.floats().reshape(len(values), -1)


def golden_inputs(job, model):
    """Inputs that a model's output is known for, a list of arrays for each run."""
    golden = job.golden
    if golden["inputs"] is None:
        return [[model.own(values)] for values in batches(model, golden["input"], 1)]
    arrays = own_values(golden["input"], golden["inputs"])
    if len(arrays) != len(model.inputs):
        raise AgentError("request", f"the model has {len(model.inputs)} inputs; {len(arrays)} were sent")
    return [arrays]


def check_golden(job, model, inputs):
    """The error of the outputs as `compare` has it; those for the first of `inputs` are there already."""
    import numpy

    golden = job.golden
    if golden["outputs"] is not None:
        return compare(model.outputs(), own_values(golden["output"], golden["outputs"]), job)
    rows = []
    for index, arrays in enumerate(inputs):
        with runtime_errors(job):
            if index:
                model.set_inputs(arrays)
                model.invoke()
            rows.extend(model.floats().reshape(len(arrays[0]), -1))
    expected = numpy.fromfile(golden["output"], dtype="<f4")
    size = sum(row.size for row in rows)
    if size != expected.size:
        raise AgentError("wrong", f"the model gives {size} numbers; {expected.size} are expected")
    return compare(rows, list(expected.reshape(len(rows), -1)), job)


def compare(outputs, expected, job):
    """The largest error of any output. Of numbers: |output - expected| / |expected|, the largest of each; of quantised
    ones three steps are always allowed; of whole numbers that mean something each: the share that differs. Raises
    AgentError, kind wrong, where it is more than allowed."""
    import numpy

    require_finite(outputs)
    bound, given = job.golden["relative_error"], job.golden["outputs"] or []
    sizes = [", ".join(str(each.size) for each in one) for one in (outputs, expected)]
    if sizes[0] != sizes[1]:
        raise AgentError("wrong", "the model gives {} numbers; {} are expected".format(*sizes))
    error = 0.0
    for index, (output, right) in enumerate(zip(outputs, expected)):
        scale, zero_point = (given[index]["scale"], given[index]["zero_point"]) if given else (0, 0)
        if not right.size:
            continue
        output, right = output.ravel(), right.ravel()  # some runtimes tell values without a shape
        if right.dtype.kind == "f" or scale:
            output, right = ((each.astype("float64") - zero_point) * (scale or 1) for each in (output, right))
            least = 3 * scale / max(bound, 1e-9) if scale else MIN_PEAK
            error = max(error, float(numpy.abs(output - right).max() / max(numpy.abs(right).max(), least)))
        else:
            error = max(error, float((output != right).mean()))
    if not error <= bound:
        detail = {"golden_error": error if math.isfinite(error) else None}
        raise AgentError(
            "wrong", f"the output differs by {error:.3g} of its largest value; {bound:.3g} is allowed", detail
        )
    return error


def require_finite(outputs):
    import numpy

    if not all(numpy.isfinite(each).all() for each in outputs if each.dtype.kind == "f"):
        raise AgentError("wrong", "the model's output is not finite")


def memory_kb(field):
    found = re.search(rf"^{field}:\s+(\d+) kB", read("/proc/self/status") or "", re.M)
    return int(found.group(1)) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def time_model(job):
    plan, golden, golden_error, notes = job.plan, job.golden, None, []
    with runtime_errors(job):
        import_runtime(job.found["module"])
    base_kb = memory_kb("VmRSS")
    start_ns = clock_ns()
    model = open_model(job)
    init_ns = clock_ns() - start_ns
    inputs = golden_inputs(job, model) if golden else [made_up(model)]
    with runtime_errors(job):
        model.set_inputs(inputs[0])
        start_ns = clock_ns()
        model.invoke()
        first_ns = clock_ns() - start_ns
        require_finite(model.outputs())
    if golden:
        golden_error = check_golden(job, model, inputs)
    samples_ns, windows_s, invoke = [], [], model.invoke
    with runtime_errors(job):
        model.set_inputs(inputs[0])
        warm_ns = sorted(repeat(invoke, plan["warmup_s"] * 1e9, plan["warmup_runs"], 3.6e12, MAX_SAMPLES)[-101:])
        # The fastest of the last runs, so that no sample falls short of min_sample_ms; 100,000 bounds an odd clock.
        inner = min(100000, max(1, math.ceil(plan["min_sample_ms"] * 1e6 / max(1, (warm_ns or [first_ns])[0]))))
        for index in range(plan["repeats"]):
            if index:
                time.sleep(plan["pause_s"])
            room = MAX_SAMPLES - sum(map(len, samples_ns))
            if room <= 0:
                notes.append(f"stopped at {MAX_SAMPLES} samples")
                break
            start_s = time.monotonic()
            samples_ns.append(
                repeat(invoke, plan["min_repeat_ms"] * 1e6, plan["min_runs"], plan["max_repeat_s"] * 1e9, room, inner)
            )
            windows_s.append([start_s, time.monotonic()])
        require_finite(model.outputs())
    flat = sorted(ns for one in samples_ns for ns in one)
    if flat[len(flat) // 2] * inner < 100000:
        overhead_ns = sorted(repeat(lambda: None, 0, 1001, 1e9, 1001))[500]
        notes.append(f"half of the samples are under 100 us, of which the call and the clock are {overhead_ns} ns")
    return {
        "samples_ns": samples_ns,
        "inner": inner,
        "windows_s": windows_s,
        "init_ns": init_ns,
        "first_ns": first_ns,
        "peak_memory_kb": memory_kb("VmHWM"),
        "base_memory_kb": base_kb,
        "golden_error": golden_error,
        "notes": notes,
    }


def repeat(invoke, least_ns, least_runs, most_ns, room, inner=1):
    """Samples in ns, each the mean of `inner` calls in a row, until both minima are met, or the time or the room is
    used up. The minimum is of the time inside the samples: where other programs run in between, it takes longer."""
    samples_ns, clock, rest, inside = [], clock_ns, range(inner - 1), 0
    gc.disable()
    try:
        begin = end = clock()
        while end - begin < most_ns and len(samples_ns) < room:
            if inside >= least_ns and len(samples_ns) * inner >= least_runs:
                break
            start = clock()
            invoke()
            for _ in rest:
                invoke()
            end = clock()
            inside += end - start
            samples_ns.append((end - start) // inner)
    finally:
        gc.enable()
    return samples_ns


def run_model(job):
    model = open_model(job)
    inputs = batches(model, job.input, job.batch)
    start_s = time.monotonic()
    with open(job.output, "wb") as file:
        for values in inputs:
            outputs = predict(job, model, values)
            require_finite([outputs])
            file.write(outputs.astype("<f4").tobytes())
    return {"count": len(inputs) * inputs.shape[1], "seconds": time.monotonic() - start_s, "values": outputs.shape[1]}


def run_tool(arguments, kind="model"):
    """The output of a timing program; dies with this child."""
    parent = os.getpid()
    done = subprocess.run(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: leave_with(parent),
    )
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        tail = " ".join(text.split())[-300:]
        how = f"{os.path.basename(arguments[0])} ended with {done.returncode}: {tail}"
        raise AgentError("crash" if done.returncode < 0 else kind, how)
    return text


def time_trtexec(job):
    """TensorRT, in a process a repeat. A sample is trtexec's latency: copy in, compute, copy out. Building the engine
    is init_ns; the first inference is lost in trtexec's warm-up."""
    import numpy  # the golden check needs it; a board with TensorRT has it

    plan, tool, golden_error, samples_ns, windows_s = job.plan, job.found["path"], None, [], []
    once = ["--iterations=1", "--duration=0", "--warmUp=0"]
    start_ns = clock_ns()
    printed = run_tool([tool, "--onnx=" + job.model, "--saveEngine=engine", *once])
    init_ns = clock_ns() - start_ns
    if job.golden:
        # Before version 10, which prints itself as v100000, TensorRT has no integers of 64 bits.
        inputs, expected = trtexec_golden(job, re.search(r"TensorRT v\d{6}\b", printed) is not None)
        run_tool([tool, "--loadEngine=engine", inputs, "--exportOutput=output.json", *once])
        rows, given = exported("output.json"), job.golden["outputs"]
        values = {row.get("name"): row.get("values") or [] for row in rows}
        if given is None:
            outputs = [numpy.array(rows[0]["values"], dtype="float32")]
        else:
            outputs = [numpy.array(values.get(each["name"], []), dtype=each["dtype"]) for each in given]
        golden_error = compare(outputs, expected, job)
    arguments = [
        f"--iterations={max(plan['min_runs'], 1)}",
        f"--duration={math.ceil(plan['min_repeat_ms'] / 1e3)}",
        f"--warmUp={math.ceil(plan['warmup_s'] * 1e3)}",
        "--exportTimes=times.json",
    ]
    for index in range(plan["repeats"]):
        time.sleep(plan["pause_s"] if index else 0)
        start_s = time.monotonic()
        run_tool([tool, "--loadEngine=engine", *arguments])
        windows_s.append([start_s, time.monotonic()])
        samples_ns.append([int(float(row["latencyMs"]) * 1e6) for row in exported("times.json")])
    return {
        "samples_ns": samples_ns,
        "windows_s": windows_s,
        "init_ns": init_ns,
        "first_ns": None,
        "peak_memory_kb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
        "base_memory_kb": None,
        "golden_error": golden_error,
        "notes": ["a sample holds the copies to and from the GPU; init_ns holds the build of the engine"],
    }


def trtexec_golden(job, knows_int64):
    """The option that gives trtexec the golden input, and the golden output."""
    import numpy

    golden, pairs = job.golden, []
    if golden["inputs"] is None:
        pairs.append((onnx_input(job.model), golden["input"]))
        expected = [numpy.fromfile(golden["output"], dtype="<f4")]
    else:
        for index, each in enumerate(own_values(golden["input"], golden["inputs"])):
            each = each.astype("int32") if each.dtype == numpy.int64 and not knows_int64 else each
            path = f"input-{index}"
            each.tofile(path)
            pairs.append((golden["inputs"][index]["name"], path))
        expected = own_values(golden["output"], golden["outputs"])
    names = [f"'{name}'" if ":" in name or "," in name else name for name, _ in pairs]
    return "--loadInputs=" + ",".join(f"{name}:{path}" for name, (_, path) in zip(names, pairs)), expected


def exported(path):
    try:
        with open(path) as file:
            rows = json.load(file)
        if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
            raise ValueError("no list of objects")
        return rows
    except (OSError, ValueError) as error:
        raise AgentError("runtime", f"trtexec wrote no usable {path} ({error})") from None


def onnx_input(path):
    """The name of the input of an ONNX file, read from its protobuf fields: ModelProto.graph is 7; GraphProto.input 11
    and .initializer 5; ValueInfoProto.name 1, TensorProto.name 8."""

    def varint(data, at):
        value = shift = 0
        while True:
            byte = data[at]
            value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                return value, at

    def fields(data):
        at = 0
        while at < len(data):
            key, at = varint(data, at)
            if key & 7 == 0:
                value, at = varint(data, at)
            elif key & 7 == 2:
                size, at = varint(data, at)
                value, at = data[at : at + size], at + size
            elif key & 7 in (1, 5):
                value, at = None, at + (8 if key & 7 == 1 else 4)
            else:
                raise ValueError(f"wire type {key & 7}")
            yield key >> 3, value

    def names(graph, field, name_field):
        messages = [value for number_, value in fields(graph) if number_ == field]
        return [bytes(value).decode("utf-8") for one in messages for n, value in fields(one) if n == name_field]

    try:
        with open(path, "rb") as file:
            graph = dict(fields(memoryview(file.read())))[7]
        weights = set(names(graph, 5, 8))
        return single([name for name in names(graph, 11, 1) if name not in weights])
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise AgentError("model", f"the ONNX file cannot be read ({error})") from None


def time_benchmark_model(job):
    """TFLite's own benchmark, a process a repeat. It prints no single samples: one is the average of a repeat."""
    if job.golden:
        raise AgentError(
            "runtime", "benchmark_model cannot check a golden output; install ai-edge-litert or tflite-runtime"
        )
    plan, samples_ns, windows_s, counts, init_ns, first_ns = job.plan, [], [], [], None, None
    for index in range(plan["repeats"]):
        time.sleep(plan["pause_s"] if index else 0)
        start_s = time.monotonic()
        text = run_tool(
            [
                job.found["path"],
                "--graph=" + job.model,
                f"--num_threads={job.threads}",
                f"--warmup_runs={plan['warmup_runs']}",
                f"--warmup_min_secs={plan['warmup_s']:g}",
                f"--num_runs={max(plan['min_runs'], 1)}",
                f"--min_secs={plan['min_repeat_ms'] / 1e3:g}",
                f"--max_secs={plan['max_repeat_s']:g}",
            ]
        )
        windows_s.append([start_s, time.monotonic()])
        found = re.search(
            r"Init: (\d+), First inference: (\d+), Warmup \(avg\): [\d.e+]+, Inference \(avg\): ([\d.e+]+)", text
        )
        runs = re.findall(r"count=(\d+)", text)
        if not found or not runs:
            raise AgentError(
                "runtime", "the output of benchmark_model is not understood: {}".format(" ".join(text.split())[-300:])
            )
        if init_ns is None:
            init_ns, first_ns = int(found.group(1)) * 1000, int(found.group(2)) * 1000
        samples_ns.append([int(float(found.group(3)) * 1000)])
        counts.append(int(runs[-1]))
    return {
        "samples_ns": samples_ns,
        "windows_s": windows_s,
        "inner": min(counts),
        "averaged_runs": counts,
        "init_ns": init_ns,
        "first_ns": first_ns,
        "peak_memory_kb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
        "base_memory_kb": None,
        "golden_error": None,
        "notes": ["a sample is the average of a repeat: benchmark_model prints no more"],
    }


# ---------------------------------------------------------------------------------------------------------- runtimes


def probed(version, module=None, path=None):
    """What a probe finds: `module` is imported before a job, `path` is of a tool or a delegate."""
    return {"version": version or "unknown", "module": module, "path": path}


def probe_onnxruntime(board):
    package = distribution("onnxruntime")
    return probed(package[1], "onnxruntime") if package else None


def probe_cuda(board):
    package = distribution("onnxruntime")
    provider = package and os.path.join(package[0], "capi", "libonnxruntime_providers_cuda.so")
    return probed(package[1], "onnxruntime") if provider and os.path.exists(provider) else None


def open_on_cpu(job):
    return OnnxModel(job, "CPUExecutionProvider")


def open_on_cuda(job):
    return OnnxModel(job, "CUDAExecutionProvider")


def probe_interpreter(name):
    package = distribution(name)
    return probed(package[1], name + ".interpreter") if package else None


def probe_litert(board):
    return probe_interpreter("ai_edge_litert")


def probe_tflite_runtime(board):
    return probe_interpreter("tflite_runtime")


def probe_edgetpu(board):
    delegate = board.edgetpu()
    for name in ("tflite-runtime", "ai-edge-litert"):  # Coral's libraries are built for the first
        interpreter = RUNTIMES[name].probe(board)
        if delegate and interpreter:
            content = sha256_of(os.path.realpath(delegate))[:12]
            return probed("{} in {} {}".format(content, name, interpreter["version"]), interpreter["module"], delegate)
    return None


def open_on_edgetpu(job):
    if not is_compiled(job.model):
        raise AgentError("model", "the model is not compiled for the Edge TPU; run edgetpu_compiler")
    return TFLiteModel(job, delegate=job.found["path"])


def probe_trtexec(board):
    tool = shutil.which("trtexec") or shutil.which("/usr/src/tensorrt/bin/trtexec")
    header = read(f"/usr/include/{platform.machine()}-linux-gnu/NvInferVersion.h") or ""
    numbers = re.findall(r"#define NV_TENSORRT_(?:MAJOR|MINOR|PATCH) (\d+)", header)
    return probed(".".join(numbers), path=tool) if tool else None


def probe_benchmark_model(board):
    tool = shutil.which("benchmark_model")  # knows no version: its content is one
    return probed(sha256_of(os.path.realpath(tool))[:12], path=tool) if tool else None


def open_none(job):
    raise AgentError("runtime", "{} gives no outputs; name another runtime".format(job.found["name"]))


class Runtime:
    """What executes models. `name`: of edgenas/runtimes.py, which device profiles use too; `form`: of its files.

    `probe(board)`: what is found of it there, None where it is absent. `open(job)`: the model under it, which has
    inputs, set_inputs, invoke, outputs, own and floats. `time(job)`: what a reply to `time` says that the child knows.
    `default_for`: what it runs where no runtime is named: onnx, tflite, compiled (for the Edge TPU), or None.
    """

    def __init__(self, name, form, default_for, probe, open, time):
        self.name, self.form, self.default_for = name, form, default_for
        self.probe, self.open, self.time = probe, open, time


# The first whose default_for fits runs a file for which no runtime is named. CPython 3.6 keeps the order of a dict too.
RUNTIMES = {
    each.name: each
    for each in (
        Runtime("onnxruntime", "onnx", "onnx", probe_onnxruntime, open_on_cpu, time_model),
        Runtime("onnxruntime+cuda", "onnx", None, probe_cuda, open_on_cuda, time_model),
        Runtime("ai-edge-litert", "tflite", "tflite", probe_litert, TFLiteModel, time_model),
        Runtime("tflite-runtime", "tflite", "tflite", probe_tflite_runtime, TFLiteModel, time_model),
        Runtime("libedgetpu", "tflite", "compiled", probe_edgetpu, open_on_edgetpu, time_model),
        Runtime("tensorrt", "onnx", "onnx", probe_trtexec, open_none, time_trtexec),
        Runtime("benchmark_model", "tflite", "tflite", probe_benchmark_model, open_none, time_benchmark_model),
    )
}


def main():
    parser = argparse.ArgumentParser(description="Times models on this board for EdgeNAS; speaks JSON lines.")
    parser.add_argument("--work", default="~/.edgenas", help="the only folder that is written (default: %(default)s)")
    parser.add_argument("--idle-s", type=float, default=120, help="silence after which it ends (default: %(default)s)")
    parser.add_argument("--memory-mb", type=int, help="what a model may take (default: the board's memory)")
    parser.add_argument("--python", help="JSON list: the command that starts a fresh interpreter (default: this one)")
    parser.add_argument("--sysfs", default="/sys", help="where the kernel shows its devices (default: %(default)s)")
    parser.add_argument("--procfs", default="/proc", help="where it shows the board itself (default: %(default)s)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        duty = json.loads(options.worker)
        worker(duty["requests"], duty["results"], duty["parent"], duty["preload"])
    replies = os.dup(1)
    os.dup2(2, 1)  # from here on a stray print goes to standard error

    def leave(signal_number, _frame):
        raise SystemExit(128 + signal_number)

    for signal_number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signal_number, leave)
    board = Board(options.sysfs, options.procfs)
    memory_mb = options.memory_mb or board.info()["memory_mb"] or 2**20
    wire, folder = Wire(0, replies, options.idle_s), os.path.abspath(os.path.expanduser(options.work))
    try:
        python = json.loads(options.python) if options.python else [sys.executable]
        agent = Agent(wire, folder, board, python, memory_mb * 2**20)
    except OSError as error:
        cure = (
            f"sudo chown -R {os.getuid()} {os.path.dirname(folder)}"
            if isinstance(error, PermissionError)
            else "df -h; mount"
        )
        sentence = f"{error.filename or folder} cannot be written there ({error.strerror}); try there: {cure}"
        wire.send(refusal(None, AgentError("folder", sentence)))
        return 2
    try:
        return agent.serve()
    except (GoneError, BrokenPipeError):
        return 0
    finally:
        agent.end()


if __name__ == "__main__":
    sys.exit(main())
