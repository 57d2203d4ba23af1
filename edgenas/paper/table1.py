"""Table 1: networks of Once-for-all's space within limits on MACs, beside published ones, and what finding them takes.

Accuracies of ours are those that Once-for-all's own predictor says, where the user has it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edgenas import plugins
from edgenas.architecture import Architecture, Fitness
from edgenas.benchmarks.ofa import Oracle, Predictable
from edgenas.data import files
from edgenas.data.images import batch_within
from edgenas.data.ofa import PublishedNetwork, read_networks
from edgenas.fitness import SUPERNET, FitnessSettings, mixed
from edgenas.paper.energy import LB_CO2E_A_KWH, OVERHEAD, WATTS_A_CORE, co2e_lb, kwh_of
from edgenas.paper.figure import Asked, Beside, Table, counted, mean_and_std
from edgenas.paper.ofa_searches import RANDOM, Choosing, Chosen, read
from edgenas.report.drawing import COLOURS
from edgenas.search.request import PHOTOS_IN_BATCH, PRESETS, Preset
from edgenas.search.settings import PAPER

SEEDS = 5  # by default
SUPERNET_FILE = Predictable.name  # of edgenas.data.files: its weights
COUNTED = "macs+params"  # what is scored by where there are no trained weights to compare
_SHOWN_M = (200.0, 390.0)  # published networks

# As the paper's Table 1 has them: top-1 in % on ImageNet, MACs in M, GPU hours of a search, CO2e in lbs.
PAPERS_ROWS: tuple[tuple[str, str, float, float, float, float | None], ...] = (
    ("Mobilenetv2", "Manual", 72.0, 300, 0, None),
    ("ShuffleNet", "Manual", 71.5, 292, 0, None),
    ("ShuffleNetV2", "Manual", 72.6, 299, 0, None),
    ("NASNet-A", "Auto", 74.0, 564, 48_000, 13_600),
    ("DARTS", "Auto", 73.1, 595, 96, 27.4),
    ("MnasNet", "Auto", 74.0, 317, 40_000, 113_400),
    ("FBNet-C", "Auto", 74.9, 375, 216, 61),
    ("ProxylessNAS", "Auto", 74.6, 320, 200, 57),
    ("SinglePathNAS", "Auto", 74.7, 328, 312, 88.1),
    ("AutoSlim", "Auto", 74.2, 305, 180, 51),
    ("OFA", "Auto", 74.7, 270, 40, 11.3),
    ("HW-EvRSNAS", "Auto", 74.6, 240, 5, 1.05),
    ("HW-EvRSNAS", "Auto", 75.0, 300, 5, 1.05),
    ("HW-EvRSNAS", "Auto", 76.8, 374, 5, 1.05),
)
# AlphaNet (Wang et al., ICML 2021), subnets of another supernet as its authors published them: top-1, MACs in M.
ALPHANET = ((77.87, 203.0), (78.94, 279.0), (79.41, 357.0))


@dataclass(frozen=True)
class Table1:
    """See edgenas.paper.figure.Figure."""

    work: Choosing
    score: str  # what ours are searched by
    source: str  # of it, in words
    oracle: Oracle
    networks: tuple[PublishedNetwork, ...]  # none where the list is not here
    name = "table1"
    title = "Table 1: ImageNet networks within limits on MACs, in the space of Once-for-all and elsewhere"
    size = (8.0, 5.0)
    plan = None

    def tables(self) -> dict[str, Table]:
        header = ["model", "method", "top1", "predicted", "std", "m_macs", "hours", "on", "kwh", "co2e_lb", "from"]
        rows: list[list[Any]] = [
            [name, kind, top1, None, None, float(macs_m), hours, "GPU" if hours else None, None, co2e, "the paper"]
            for name, kind, top1, macs_m, hours, co2e in PAPERS_ROWS
        ]
        for each in self._shown:
            predicted = self._predicted(each)
            what = [f"OFA w{each.width}, {each.resolution} px", "Auto", each.top1, predicted, None, each.macs_m]
            rows.append([*what, None, None, None, None, "its authors"])
        for top1, macs_m in ALPHANET:
            rows.append(["AlphaNet", "Auto", top1, None, None, macs_m, None, None, None, None, "its authors"])
        titles = {self.score: f"ours, by {self.score.partition(':')[0]}", RANDOM: "drawn by chance"}
        for score in self.work.fitnesses:
            titles.setdefault(score, "ours, by the predictor itself")
        for score, called in titles.items():
            rows += [self._row(called, score, limit_m) for limit_m in self.work.limits_m]
        return {"table1": (header, rows)}

    def beside(self) -> list[Beside]:
        theirs = [top1 for name, _, top1, *_ in PAPERS_ROWS if name == "HW-EvRSNAS"]
        found = []
        for limit_m in self.work.limits_m:
            mean, std = mean_and_std(self._accuracies(self.score, limit_m))
            if mean is None or std is None:
                found.append("none")
            else:
                about = "" if self.offset is None else f" (about {mean - self.offset:.1f})"
                found.append(f"{mean:.1f}+-{std:.1f}{about}")
        less = ""
        if self.offset is not None:
            known = len(self._offsets)
            less = (
                f"; in brackets less {self.offset:.1f}, what it says more than was measured of {known} published"
                f" networks, which were fine-tuned"
            )
        rows = [
            Beside(
                f"top-1 (%) within {', '.join(f'{each:g}' for each in self.work.limits_m)} M MACs",
                ", ".join(f"{each:g}" for each in theirs),
                ", ".join(found),
                f"accuracies: predicted, of images held out of training{less}; the score: {self.source}",
            )
        ]
        seconds, kwh = self._effort
        rows.append(
            Beside(
                "what a search takes",
                "5 hours of a GPU (RTX A4000), 1.05 lbs CO2e",
                f"{seconds:.2g} s of a core, {kwh:.2g} kWh, {co2e_lb(kwh):.2g} lbs CO2e",
                "what a candidate takes: none is trained",
            )
        )
        best = max((each for each in self.networks if each.macs_m <= 270), key=lambda each: each.top1, default=None)
        if best is not None:
            rows.append(
                Beside(
                    "Once-for-all within 270 M MACs",
                    "74.7",
                    f"{best.top1:g} at {best.macs_m:.0f} M, as its authors published it",
                    "fine-tuning: theirs, where the paper's is its own",
                )
            )
        return rows

    def settings(self) -> list[str]:
        how = self.work.settings(self.work.fitnesses[self.score], 0)
        until = f"{how.generations} generations"
        if how.budget:
            until = f"until {how.budget} unique architectures are scored"
        power = "measured, all that this computer's processors took meanwhile (RAPL, NVML)"
        if any(each.joules is None for each in self.work.known.values()):
            power = f"assumed {WATTS_A_CORE:g} W a core, for not all was measured (no RAPL or NVML to be read)"
        lines = [
            f"preset {self.work.preset}: population {how.population}, {until}, by {self.source};"
            f" {counted(self.work.seeds, 'seed')}",
            f"predicted: by {self.oracle.source}, for ofa-mbv3-w1.2 at"
            f" {', '.join(map(str, self.work.space.resolutions))} pixels, which is what is searched here",
            f"kWh: {power}, x {OVERHEAD:g} for the data centre; CO2e: {LB_CO2E_A_KWH:g} lbs a kWh, the mean of the USA"
            " (Strubell et al., 2019); both of one search, without what made the supernet and the predictor",
            f"the paper: population {PAPER.population}, {PAPER.generations} generations, phi after training each"
            " candidate for 100 epochs on a batch, beta 0.8, reference the largest network; its rows as its table has"
            " them",
        ]
        if self.score == COUNTED:
            lines.append(
                "no photos were given, so nothing is compared with a reference: for phi import the checkpoint (edgenas"
                " data fetch ofa-mbv3-w1.2) and give --dataset PHOTOS"
            )
        if not self.networks:
            lines.append(f"no networks published for Once-for-all are shown: {files.absent('ofa-networks')}")
        return lines

    def draw(self, figure: Any) -> None:
        axis = figure.add_subplot()
        for kind, marker in (("Manual", "x"), ("Auto", "s")):
            theirs = [row for row in PAPERS_ROWS if row[1] == kind and row[0] != "HW-EvRSNAS"]
            points = [row[3] for row in theirs], [row[2] for row in theirs]
            axis.scatter(*points, marker=marker, color="grey", label=f"{kind.lower()}, as the paper has them")
        own = [row for row in PAPERS_ROWS if row[0] == "HW-EvRSNAS"]
        series = [
            ("HW-EvRSNAS, the paper", "D", [(row[3], row[2]) for row in own]),
            ("Once-for-all, published", "o", [(each.macs_m, each.top1) for each in self._shown]),
            ("AlphaNet, published", "^", [(macs_m, top1) for top1, macs_m in ALPHANET]),
        ]
        for (label, marker, found), colour in zip(series, COLOURS, strict=False):
            axis.plot([x for x, _ in found], [y for _, y in found], marker=marker, color=colour, label=label)
        less = self.offset or 0.0
        said = f"predicted less {less:.1f}" if self.offset is not None else "predicted, points too high"
        for (score, marker), colour in zip(((self.score, "v"), (RANDOM, "*")), COLOURS[3:], strict=False):
            shown = [(limit_m, self._accuracies(score, limit_m)) for limit_m in self.work.limits_m]
            shown = [(limit_m, values) for limit_m, values in shown if values]
            means = [statistics.fmean(values) - less for _, values in shown]
            stds = [mean_and_std(values)[1] for _, values in shown]
            called = f"ours ({said})" if score == self.score else f"drawn by chance ({said})"
            axis.errorbar([x for x, _ in shown], means, stds, fmt=marker, capsize=3, color=colour, label=called)
        axis.set(xlabel="M MACs", ylabel="ImageNet top-1 in %")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)

    @property
    def _shown(self) -> list[PublishedNetwork]:
        """Published networks of about these MACs that no smaller one beats."""
        found: list[PublishedNetwork] = []
        for each in sorted(self.networks, key=lambda each: (each.macs_m, -each.top1)):
            if not found or each.top1 > found[-1].top1:
                found.append(each)
        return [each for each in found if _SHOWN_M[0] <= each.macs_m <= _SHOWN_M[1]]

    @cached_property
    def _offsets(self) -> list[float]:
        """By how many points the predictor is above what was published, of each network that it knows."""
        known = [(each.top1, self._predicted(each)) for each in self.networks]
        return [predicted - top1 for top1, predicted in known if predicted is not None]

    @property
    def offset(self) -> float | None:
        """On average; None where no published network is known."""
        return statistics.fmean(self._offsets) if self._offsets else None

    def _predicted(self, network: PublishedNetwork) -> float | None:
        arch = self.work.space.published(network)
        return None if arch is None else self.oracle.accuracies([arch])[0]

    def _archs(self, score: str, limit_m: float) -> list[Architecture]:
        chosen = self.work.chosen(score, limit_m)
        return [self.work.space.parse(each.arch_str) for each in chosen if each.arch_str]

    def _accuracies(self, score: str, limit_m: float) -> list[float]:
        return self.oracle.accuracies(self._archs(score, limit_m))

    def _row(self, called: str, score: str, limit_m: float) -> list[Any]:
        archs, chosen = self._archs(score, limit_m), self.work.chosen(score, limit_m)
        mean, std = mean_and_std(self.oracle.accuracies(archs))
        macs_m = statistics.fmean(map(self.work.space.macs_m, archs)) if archs else None
        hours, kwh = statistics.fmean(each.core_seconds for each in chosen) / 3600, statistics.fmean(map(_kwh, chosen))
        of = f"here, <= {limit_m:g} M"
        return [called, "Auto", None, mean, std, macs_m, hours, "core", kwh, co2e_lb(kwh), of]

    @property
    def _effort(self) -> tuple[float, float]:
        """Seconds of a core and kWh of one of ours, on average."""
        chosen = [each for limit_m in self.work.limits_m for each in self.work.chosen(self.score, limit_m)]
        return statistics.fmean(each.core_seconds for each in chosen), statistics.fmean(map(_kwh, chosen))


def table1(asked: Asked, presets: Mapping[str, Preset] = PRESETS) -> Table1:
    """`presets`: as of edgenas.search.search. Raises DataError where the predictor is not on this machine, or a file is
    damaged, or the photos that are given are, and UsageError where torch is missing."""
    space = Predictable()
    oracle = Oracle(space)
    path = files.locate("ofa-networks")
    networks = tuple(read_networks(path)) if path is not None else ()
    seeds = asked.seeds or SEEDS
    if asked.dataset is None:
        score, source = COUNTED, "MACs and parameters, which need no weights"
        fitness: Fitness = mixed.create(COUNTED, space, "digits", FitnessSettings(), PAPER.population)
    else:
        batch = batch_within(asked.dataset, PHOTOS_IN_BATCH)
        space.supernet()  # what is missing is said now
        how = FitnessSettings(epochs=0, init="inherited", batch_size=batch, reference=SUPERNET)
        fitness = plugins.load("fitness", "live")(space, asked.dataset, how)
        score = f"phi:{fitness.fingerprint[:16]}"
        source = f"phi of inherited weights on {batch} photos, without a training step"
    fitnesses: dict[str, Fitness] = {score: fitness, f"predictor:{oracle.fingerprint[-16:]}": oracle}
    record = asked.folder / "table1.jsonl"
    work = Choosing(space, fitnesses, asked.preset, seeds, record, read(record), presets)
    return Table1(work, score, source, oracle, networks)


def _kwh(chosen: Chosen) -> float:
    return kwh_of(chosen.core_seconds, chosen.joules)
