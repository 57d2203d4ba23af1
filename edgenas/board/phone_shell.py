"""What a phone is asked by scripts for its shell: facts, state and who holds its lease.

They run in one shell that lives as long as the session, in the folder of the transport, under Android's `sh` and
toybox as under any POSIX shell. What the system does not tell stays unknown; nothing is assumed.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from typing import Any

from edgenas.text import printable

MAX_LINES = 1000  # of facts or state; a phone tells some hundred
MAX_LIST = 4096  # characters of a list of cores
_WHOLE = re.compile(r"[0-9]{1,15}")
FACTS = """
say() { value=$2; [ -n "$value" ] && echo "$1=$value"; }
say serial "$(getprop ro.serialno 2>/dev/null)"
say maker "$(getprop ro.product.manufacturer 2>/dev/null)"
say model "$(getprop ro.product.model 2>/dev/null)"
say soc "$(getprop ro.soc.model 2>/dev/null)"
say platform "$(getprop ro.board.platform 2>/dev/null)"
say android "$(getprop ro.build.version.release 2>/dev/null)"
say build "$(getprop ro.build.fingerprint 2>/dev/null)"
say machine "$(uname -m)"
say kernel "$(uname -r)"
say hardware "$(sed -n 's/^Hardware[^:]*: *//p' {proc}/cpuinfo 2>/dev/null | head -n 1)"
say present "$(cat {sys}/devices/system/cpu/present 2>/dev/null)"
say memory "$(sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' {proc}/meminfo 2>/dev/null)"
say boot "$({boot})"
"""
# Android hides the random id from some users; the time at which init began tells boots apart as well.
BOOT = "cat {proc}/sys/kernel/random/boot_id 2>/dev/null || getprop ro.boottime.init 2>/dev/null"
STATE = """
tell() { value=; read -r value < "$2"; [ -n "$value" ] && echo "$1=$value"; } 2>/dev/null
for each in {sys}/devices/system/cpu/cpufreq/policy*; do
  tell governor "$each/scaling_governor"
  tell clock "$each/scaling_cur_freq"
  tell most "$each/cpuinfo_max_freq"
  tell allowed "$each/scaling_max_freq"
done
heat=
for each in {sys}/class/thermal/thermal_zone*; do
  value=; read -r value < "$each/temp"
  [ -n "$value" ] && heat=1 && name= && read -r name < "$each/type"
  [ -n "$value" ] && echo "zone=$value ${name:-zone}"
done 2>/dev/null
[ -n "$heat" ] || dumpsys thermalservice 2>/dev/null |
  sed -n 's/.*Temperature{mValue=\\([^,]*\\).*mName=\\([^,}]*\\).*/hal=\\1 \\2/p'
tell load {proc}/loadavg
tell uptime {proc}/uptime
echo "wall=$(date +%s)"
sed -n 's/^Cpus_allowed_list:[^0-9]*/cores=/p' /proc/self/status
"""
# A lease is a folder lease.N with a file `claim`; the highest N counts. A folder that is filled beforehand is renamed
# to the next N, which the kernel grants to one program only, and which never touches the claim of another.
# A claim is void after its time by the phone's uptime, after a reboot, and when the shell that made it is gone.
LEASE = """
mine={token} seconds={seconds} boot=$({boot})
read -r now rest < {proc}/uptime; now=${now%%.*}
highest() { last=0; for each in lease.[0-9]*; do n=${each#lease.}; [ "$n" -gt "$last" ] && last=$n; done; } 2>/dev/null
current() {
  highest; token=- pid=0 until=0 of=- holder=
  read -r token pid until of holder < lease.$last/claim
  [ "$of" = "$boot" ] && [ "$until" -gt "$now" ] && kill -0 "$pid"
} 2>/dev/null
claim() { echo "$mine $$ $((now + seconds)) $boot "{holder} > "$1"; }
verdict() {
  if ! current; then echo "free"
  elif [ "$token" = "$mine" ]; then echo "mine $((until - now))"
  else echo "busy $((until - now)) $holder"; fi
}
case {action} in
(take)
  if ! current; then
    rm -rf claim.$mine; mkdir claim.$mine && claim claim.$mine/claim
    next=lease.$((last + 1))
    [ -e $next ] || mv claim.$mine $next
    rm -rf claim.$mine $next/claim.$mine  # moved into the folder of one who was faster
    if current && [ "$token" = "$mine" ]; then
      for each in lease.[0-9]*; do [ "${each#lease.}" -lt "$last" ] && rm -rf "$each"; done
    fi
  fi;;
(renew|release)
  [ {action} = release ] && seconds=-$now
  if current && [ "$token" = "$mine" ]; then
    claim lease.$last/next && mv -f lease.$last/next lease.$last/claim
  fi;;
esac
verdict
"""


def filled(script: str, proc: str = "/proc", sys: str = "/sys", **values: str) -> str:
    """`script` with its {names} replaced by quoted `values`; other braces are the shell's."""
    quoted = {name: shlex.quote(value) for name, value in {"proc": proc, "sys": sys, **values}.items()}
    quoted["boot"] = re.sub(r"\{(proc|sys)\}", lambda found: quoted[found[1]], BOOT)
    return re.sub(r"\{(\w+)\}", lambda found: quoted.get(found[1], found[0]), script)


def pairs(printed: str) -> list[tuple[str, str]]:
    """The lines `name=value`, in order, MAX_LINES at most."""
    lines = (line.partition("=") for line in printed.splitlines()[:MAX_LINES])
    return [(name, value.strip()) for name, mark, value in lines if mark]


def facts(printed: str, address: str) -> dict[str, Any]:
    """What FACTS printed, as `info` of the wire protocol, and `present`, the numbers of the cores."""
    said = dict(pairs(printed))
    present = cores(said.get("present", ""))
    kilobytes = said.get("memory", "")
    return {
        "protocol": None,
        "python": None,
        "platform": f"Android {said.get('android', 'of unknown version')}",
        "build": said.get("build"),
        "machine": said.get("machine"),
        "kernel": said.get("kernel"),
        "model": " ".join(said[name] for name in ("maker", "model") if name in said) or None,
        "cpu": said.get("hardware") or said.get("soc") or said.get("platform"),
        "cores": len(present) if present else None,
        "present": present,
        "memory_mb": int(kilobytes) // 1024 if _WHOLE.fullmatch(kilobytes) else None,
        "boot_id": said.get("boot"),
        "board_id": hashlib.sha256((said.get("serial") or address).encode()).hexdigest()[:16],
        "host": None,
    }


def state(printed: str) -> dict[str, Any]:
    """What STATE printed, as `state` of the wire protocol; `allowed_clocks_mhz` is what heat leaves of the maxima."""
    found: dict[str, list[str]] = {}
    for name, value in pairs(printed):
        found.setdefault(name, []).append(value)

    def megahertz(name: str) -> list[float] | None:
        return [int(value) / 1e3 for value in found.get(name, ()) if _WHOLE.fullmatch(value)] or None

    def first(name: str) -> float | None:
        text = " ".join(found.get(name, [""])[0].split()[:1])
        return _number(text)

    most, allowed = megahertz("most"), megahertz("allowed")
    governor = found.get("governor")
    notes = []
    if governor and set(governor) != {"performance"}:
        notes.append(f"the governor is {', '.join(sorted(set(governor)))}, not performance")
    if most and allowed and len(most) == len(allowed):
        notes += [
            f"clocks are held at {now:g} of {top:g} MHz" for now, top in zip(allowed, most, strict=True) if now < top
        ]
    return {
        "governor": governor,
        "clocks_mhz": megahertz("clock"),
        "max_clocks_mhz": most,
        "allowed_clocks_mhz": allowed,
        "temperature_c": _zones(found),
        "throttled": None,
        "load": first("load"),
        "uptime_s": first("uptime"),
        "monotonic_s": first("uptime"),
        "wall_s": first("wall"),
        "affinity": cores(found["cores"][0]) if found.get("cores") else None,
        "notes": notes,
    }


def cores(text: str) -> list[int] | None:
    """The numbers in a list as Linux writes it, like 0-3,7; None where it is none."""
    if len(text) > MAX_LIST or not re.fullmatch(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*", text):
        return None
    spans = [[int(end) for end in span.split("-")] for span in text.split(",")]
    return sorted({core for span in spans for core in range(span[0], span[-1] + 1)}) or None


def sank(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether heat took clocks away between two states."""
    pairs = zip(before["allowed_clocks_mhz"] or (), after["allowed_clocks_mhz"] or (), strict=False)
    return any(now < then for then, now in pairs)


def verdict(printed: str) -> tuple[str, int, str] | None:
    """What LEASE printed: free, mine or busy; the seconds left; the other holder. None where it is none of these."""
    last = (["", *printed.strip().splitlines()])[-1]
    found = re.fullmatch(r"(free|mine|busy)(?: ([0-9]{1,9}))?(?: (.*))?", last)
    return (found[1], int(found[2] or 0), printable(found[3] or "", 200)) if found else None


def _zones(found: dict[str, list[str]]) -> dict[str, float]:
    """Degrees by the name of the zone. Old kernels tell whole degrees, others thousandths; what no phone can be, such
    as zones that are switched off, is left out."""
    celsius: dict[str, float] = {}
    for kind in ("zone", "hal"):
        for line in found.get(kind, ()):
            text, _, name = line.partition(" ")
            value = _number(text)
            if value is None:
                continue
            if kind == "zone" and abs(value) >= 1000:
                value /= 1e3
            if 0 < value < 150 and not name.startswith(("soc", "bcl", "ibat", "vbat")):  # charge, current, voltage
                while name in celsius:
                    name += "'"
                celsius[name] = value
    return celsius


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{1,12})?", text) else None
