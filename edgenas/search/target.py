"""What a search is for: its devices, the limits on each, a space, and what its architectures cost there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgenas import device as devices
from edgenas import plugins, spaces
from edgenas.architecture import LIMITS, Constraint, CostProvider, SearchRequest, SearchSpace
from edgenas.cost import several
from edgenas.device import Device
from edgenas.errors import UnknownNameError, UsageError
from edgenas.text import names_in
from edgenas.units import COUNTED, METRICS, cost_name


@dataclass(frozen=True)
class Target:
    """What a search is for, loaded: its devices, a space, and what its architectures cost there."""

    devices: tuple[Device, ...]
    space: SearchSpace
    cost: CostProvider

    @property
    def name(self) -> str:
        """What its devices are called, with commas between."""
        return ",".join(each.name for each in self.devices)


def spelled_out(request: SearchRequest) -> SearchRequest:
    """`request`, where it is for several devices, with these in the order of their names and with the limit on each:
    what asks for the same is the same.

    Raises UsageError for a device that is unknown or listed twice, and for a limit on one that is not listed.
    """
    limits = {field: getattr(request, field) for field in LIMITS}
    each_its_own = any(isinstance(limit, Mapping) for limit in limits.values())
    if len(devices.named(request.device)) == 1 and not each_its_own:
        return request
    listed = devices.load_each(request.device)
    names = [device.name for device in listed.values()]
    for field, limit in limits.items():
        metric = LIMITS[field]
        if isinstance(limit, Mapping):
            for strange in sorted(limit.keys() - set(names)):
                raise _not_listed(metric, strange, names)
            limits[field] = dict(sorted(limit.items()))
        elif limit is not None and metric not in COUNTED:
            limits[field] = dict.fromkeys(names, limit)
        if len(names) == 1 and isinstance(limit, Mapping):
            limits[field] = limit.get(names[0])
    return replace(request, device=",".join(listed), **limits)


def _not_listed(metric: str, name: str, listed: list[str]) -> UsageError:
    """The error for a limit on a device that is not one of those `listed`."""
    all_listed = ",".join(listed)
    if name in devices.names():
        return UsageError(
            f"--{metric} limits {name}, which --device {all_listed} does not list; list it there, or leave its limit"
            " out"
        )
    return UnknownNameError("device", name, listed, f"--{metric} limits those of --device {all_listed}")


def check_devices(request: SearchRequest) -> None:
    """Raises UsageError where one of several devices has no limit, or a front is sought that is of one device."""
    if len(devices.named(request.device)) == 1:
        return
    if request.pareto is not None and request.pareto not in COUNTED:
        raise UsageError(
            f"--pareto {request.pareto} is a front on one device, and --device lists several; search for a front on"
            " each, or give --pareto macs or params, with a limit on each device"
        )
    limited = {each.device for each in request.constraints()}
    for device in devices.load_each(request.device).values():
        if device.name not in limited:
            raise UsageError(
                f"{device.name} has no limit of its own; give one, like --latency {device.name}=5ms, or leave it out of"
                " --device"
            )


def load_target(request: SearchRequest) -> Target:
    """Raises UsageError for a name that is unknown, and for a metric that nothing here knows of a device."""
    profiles = devices.load_each(request.device).values()
    listed = tuple(devices.deploying(each, request.format) for each in profiles)
    space = plugins.load("spaces", request.space or spaces.DEFAULT)()
    boards = names_in(request.board)
    if request.confidence is not None and not 0.5 <= request.confidence < 1:
        raise UsageError(
            f"--confidence {request.confidence:.6g} is no probability from 50% to 99.9%; write it like 95%"
        )
    costs = several.create(request.cost, space, request.dataset, listed, boards, request.confidence)
    if request.format is not None:
        for profile, device in zip(profiles, listed, strict=True):
            _check_format(request.format, profile.model_format, device, costs, boards)
    front = [] if request.pareto is None else [Constraint(request.pareto, 0.0)]
    for each in [*front, *request.constraints()]:
        if each.cost not in costs.metrics:
            device = next((device for device in listed if device.name == each.device), listed[0])
            raise _unlimited(each.metric, device, listed, costs, space, request.cost)
    return Target(listed, space, costs)


def _unlimited(
    metric: str, device: Device, listed: Sequence[Device], costs: CostProvider, space: SearchSpace, kind: str
) -> UsageError:
    """The error for a limit by `metric`, of which `costs` of `kind` know nothing on `device`, one of those `listed`."""
    if metric in COUNTED:
        return UsageError(
            f"the space {space.name} does not count MACs and parameters; limit what boards measure, like --latency 5ms"
        )
    if metric in device.metrics and kind not in ("live", "hybrid"):
        return UsageError(
            f"nothing here predicts the {metric} of {device.name}; measure it on a board by --cost"
            " live (`edgenas board add --help` says how to name one)"
        )
    if len(listed) == 1:
        known = costs.metrics
        advice = "`edgenas devices` lists what each device has"
    else:
        known = device.metrics | (costs.metrics & COUNTED)
        with_it = [each.name for each in listed if cost_name(metric, each.name) in costs.metrics]
        parts = ",".join(f"{name}={METRICS[metric].example}" for name in with_it)
        advice = f"limit the others alone, like --{metric} {parts}" if with_it else f"leave --{metric} out"
    return UsageError(f"{device.name} has no {metric} to limit, only {', '.join(sorted(known))}; {advice}")


def _check_format(form: str, own: str, device: Device, costs: CostProvider, boards: Sequence[str]) -> None:
    """Raise UsageError where `costs` hold for files of another format than `form`; `own`: that of the profile."""
    if costs.kind in ("live", "hybrid"):
        from edgenas.board import registry
        from edgenas.board.runtimes import model_format

        mine = [each for each in boards if registry.is_of(registry.board(each), device.name)]
        for board in registry.pool(device.name, mine):
            takes = model_format(device, board.runtime)
            if takes != form:
                raise UsageError(
                    f"board {board.name} runs models by {board.runtime}, which takes {takes} files, not"
                    f" {form}; name other boards by --board, or leave --format out"
                )
    elif form != own and costs.metrics - COUNTED:
        raise UsageError(
            f"what --cost {costs.kind} knows of {device.name} holds for {own} files, not for {form}; measure"
            " these by --cost live or hybrid, limit MACs alone by --cost analytic, or leave --format out"
        )
