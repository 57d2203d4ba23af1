"""Costs measured on boards: every candidate is built, lowered, written, checked here and timed there."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgenas.architecture import Architecture, Confirmation, Cost, Part, SearchSpace
from edgenas.board import registry
from edgenas.board.measure import Failed, Measured, Outcome, Tier
from edgenas.board.pool import BoardPool
from edgenas.board.runtimes import for_device, model_format, require_compiler, required
from edgenas.data.inputs import input_of
from edgenas.device import Device
from edgenas.errors import ExportError, UsageError
from edgenas.plugins import lacking
from edgenas.runtimes import LIBEDGETPU
from edgenas.units import show

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgenas.board.model import Model

_CALIBRATION_IMAGES = 8
_DIFFERENT_WEIGHTS = 1021  # in a tensor of a network that is timed: 4 kB, which compressors remember


class LiveCost:
    """Measures `latency` (ms), and `energy` (mJ) where the device has it, by timing networks with made-up weights.

    The network of a unique architecture (space.canonical) is what is timed: dead branches are pruned from a model file,
    so all architectures that compute the same run as the same one. Values are medians of the screening tier; `confirm`
    measures at the final one.
    """

    kind = "live"
    exhaustive = False

    def __init__(self, space: SearchSpace, dataset: str, device: Device, pool: BoardPool) -> None:
        from edgenas.lower import LOWERING_VERSION

        if device.measurement is None:
            raise UsageError(f"{device.name} cannot be measured; leave --cost live out")
        self.metrics = device.metrics & {"latency", "energy"}
        asked = sorted({board.runtime for board in pool.boards})
        if len(asked) > 1:
            raise UsageError(f"the boards run models by different runtimes ({', '.join(asked)}); give boards of one")
        self._asked = asked[0] if asked else ""
        self.model_format = model_format(device, self._asked)
        self.fingerprint = f"live:{device.sha256}:lowering {LOWERING_VERSION}" + f":{self._asked}" * bool(self._asked)
        self.runtime: str | None = None  # that ran what was timed last
        self._space, self._device, self._pool = space, device, pool
        self._how = device.measurement
        self._dataset = dataset

    @property
    def boards(self) -> Sequence[registry.Board]:
        """Those that measure."""
        return self._pool.boards

    @property
    def needs_compiler(self) -> bool:
        """Whether every candidate is compiled for an Edge TPU."""
        wanted = required(self._device, self._asked)
        return wanted is not None and wanted.name == LIBEDGETPU

    def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
        unique = list(dict.fromkeys(self._space.canonical(arch) for arch in archs))
        costs: dict[Architecture, Cost] = {}
        order: list[Architecture] = []
        for number, outcome in self._pool.measure(self._models(unique, costs, order), Tier.screen(self._how)):
            costs[order[number]] = self._cost(outcome)
        return [costs[self._space.canonical(arch)] for arch in archs]

    def confirm(self, arch: Architecture, limits: Mapping[str, float]) -> Confirmation:
        """Measure `arch` at the final tier and compare it with `limits`, metric -> limit in its canonical unit."""
        tier = Tier.final(self._how, limits.get("latency"), repeatable=True)
        outcome = self._pool.one(self.model(self._space.canonical(arch)), tier)
        if isinstance(outcome, Failed):
            return Confirmation("FAIL", {}, outcome.error)
        summary = outcome.summary
        limit_ms = limits.get("latency", math.inf)
        verdict = summary.verdict(limit_ms)
        words = _words(outcome)
        if verdict == "UNSTABLE":
            words += f"; unstable: {summary.doubt(limit_ms)}"
        values = {"latency": summary.median_ms}
        if outcome.energy_mj is not None:
            values["energy"] = outcome.energy_mj
            if verdict == "PASS" and outcome.energy_mj > limits.get("energy", float("inf")):
                verdict = "FAIL"
        reference = {} if outcome.reference_ms is None else {"latency": outcome.reference_ms}
        return Confirmation(verdict, values, words, reference)

    def close(self) -> None:
        self._pool.close()

    def model(self, arch: Architecture) -> Model:
        """The model file that stands for `arch`, checked here: made-up weights that follow from the architecture alone.

        Raises ExportError where it cannot be lowered or does not run here.
        """
        given = input_of(self._dataset, self._space, arch)
        facts = {"space": arch.space, "genes": list(arch.genes)}
        what = f"the model of {self._space.describe(arch)}"
        return self._file(lambda: self._space.build(arch, given.classes), given.shape, facts, what)

    def parts(self, parts: Sequence[Part]) -> Iterator[tuple[Part, Cost]]:
        """What each of `parts` costs by itself, in no order, as soon as it is known. Raises ExportError for one that
        cannot be lowered or does not run here."""

        def models() -> Iterator[Model]:
            for part in parts:
                facts = {"space": self._space.name, "part": part.name}
                yield self._file(part.build, part.shape, facts, f"the model of {part.name}")

        for number, outcome in self._pool.measure(models(), Tier.screen(self._how)):
            yield parts[number], self._cost(outcome)

    def _file(
        self, build: Callable[[], nn.Module], shape: tuple[int, int, int], facts: Mapping[str, Any], what: str
    ) -> Model:
        """The model file of the module that `build` makes, for one input of `shape`; its weights follow from `facts`,
        which it names."""
        import numpy as np
        import torch

        from edgenas.board.model import with_golden
        from edgenas.lower import LOWERING_VERSION, lower
        from edgenas.lower.trace import torch_logits
        from edgenas.lower.verify import FLOAT32, UNTRAINED, compare, require, run_model

        seed = int.from_bytes(hashlib.sha256(repr(tuple(facts.values())).encode()).digest()[:8], "big") >> 1
        images = np.random.default_rng(0).normal(size=(_CALIBRATION_IMAGES, *shape)).astype(np.float32)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build().eval()
        _make_up_weights(network, torch.from_numpy(images[:1]))
        graph = lower(network, torch.zeros(1, *shape))
        metadata = {**facts, "weights": f"random, seed {seed}, repeated after {_DIFFERENT_WEIGHTS}"}
        limits = FLOAT32
        if self.model_format == "onnx":
            from edgenas.lower.onnx import to_onnx

            content = to_onnx(graph, metadata)
        elif self.model_format == "tflite":
            from edgenas.lower.tflite import to_tflite

            content = to_tflite(graph, metadata)
        else:
            from edgenas.lower.quantize import full_int8

            content, limits = full_int8(graph, metadata, images), UNTRAINED
        found = run_model(content, images[:1])
        require(compare(found, torch_logits(network, images[:1])), limits, what)
        model = with_golden(content, images[:1], found, lowering_version=LOWERING_VERSION)
        return for_device(model, self._device, self._asked)

    def _models(
        self, archs: Sequence[Architecture], costs: dict[Architecture, Cost], order: list[Architecture]
    ) -> Iterator[Model]:
        """A model for each of `archs` that gives one, which then goes to `order`; for the others, why not, to
        `costs`."""
        for arch in archs:
            if not self._space.is_connected(arch):
                costs[arch] = Cost(error="the input never reaches the output, so there is nothing to time")
                continue
            try:
                model = self.model(arch)
            except ExportError as error:
                costs[arch] = Cost(error=str(error))
                continue
            order.append(arch)
            yield model

    def _cost(self, outcome: Outcome) -> Cost:
        if isinstance(outcome, Failed):
            return Cost(error=outcome.error)
        self.runtime = outcome.record["fingerprint"]["runtime"]
        values = {"latency": round(outcome.summary.median_ms, 6)}
        if "energy" in self.metrics:
            if outcome.energy_mj is None:
                return Cost(values, {"latency": _words(outcome)}, "the board has no power rail that can be read")
            values["energy"] = round(outcome.energy_mj, 6)
        return Cost(values, dict.fromkeys(values, _words(outcome)))


def create(space: SearchSpace, dataset: str, device: Device, boards: Sequence[str] = ()) -> LiveCost:
    """Measured on the user's boards of `device`, or those called `boards`.

    Raises UsageError for a device that only exists as a table, BoardError where there is no board of it.
    """
    registry.refuse_simulated(device)
    try:
        import torch  # noqa: F401  # candidates are built in it
    except ImportError as error:
        raise UsageError(f"--cost live needs {lacking(error)}") from error
    found = LiveCost(space, dataset, device, BoardPool(registry.pool(device.name, list(boards)), device))
    if found.needs_compiler:
        require_compiler()
    return found


def _make_up_weights(network: nn.Module, images: Tensor) -> None:
    """Weights for `network` in evaluation mode: of every tensor the first _DIFFERENT_WEIGHTS numbers, repeated, and
    scaled so that the results of each convolution and linear layer spread by 1 over `images`.

    No latency depends on them. A file of tens of MB is then sent as some hundred kB; and the output tells right from
    wrong, which it does not where signals fade from layer to layer until only the last bias is left. The number is
    prime, so that hardly two filters are alike.
    """
    import torch

    def scale(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        spread = float(output.std()) if output.numel() > 1 else 0.0
        if not 1e-12 < spread < 1e12:
            return output
        for weight in layer.parameters(recurse=False):
            weight.div_(spread)
        return output / spread

    layers = [each for each in network.modules() if isinstance(each, torch.nn.Conv2d | torch.nn.Linear)]
    with torch.no_grad():
        for weight in network.parameters():
            flat = weight.view(-1)
            times = -(-len(flat) // _DIFFERENT_WEIGHTS)
            flat.copy_(flat[:_DIFFERENT_WEIGHTS].repeat(times)[: len(flat)])
        hooks = [each.register_forward_hook(scale) for each in layers]
        network(images)
    for hook in hooks:
        hook.remove()


def _words(outcome: Measured) -> str:
    """Where the number comes from."""
    record, summary = outcome.record, outcome.summary
    fingerprint = record["fingerprint"]
    return (
        f"measured on board {record['board']} ({fingerprint['runtime']} {fingerprint['runtime_version']},"
        f" {fingerprint['threads']} thread{'s' * (fingerprint['threads'] > 1)}, median of {summary.n}, 95 % interval"
        f" {show(summary.low_ms, 'latency')} to {show(summary.high_ms, 'latency')})"
    ) + "".join(f"; void: {problem}" for problem in summary.problems[:1])
