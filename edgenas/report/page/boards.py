"""What boards measured: samples as a distribution and over time, with temperature and clocks beside them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from edgenas.report.fields import at, items, number, pair, table, words
from edgenas.report.page.charts import Drawings, axis, series, thinned
from edgenas.report.page.markup import Markup, badge, element, section
from edgenas.report.page.markup import table as html_table
from edgenas.report.subjects import Subject

MAX_SAMPLES = 4000  # that are drawn
_BINS = 40
_TAIL = 0.98  # of the samples, that the distribution shows; what lies beyond is counted


def sections(subject: Subject, drawings: Drawings) -> list[Markup]:
    fact = table(subject.fact, "latency") if subject.kind == "deployment" else subject.fact
    found = [_self_check(subject.fact), _samples(fact, subject.samples, drawings)]
    return [each for each in found if each is not None]


def _self_check(fact: Mapping[str, Any]) -> Markup | None:
    rows = []
    for each in items(fact, "self_check", "models"):
        passed = at(each, "passed")
        word = (
            badge("passed", "good")
            if passed is True
            else badge("failed", "bad")
            if passed is False
            else badge("skipped", "neutral")
        )
        rows.append([words(each, "file"), word, words(each, "detail")])
    if not rows:
        return None
    return section("Self-check on the board", html_table(["file", "outcome", "detail"], rows, "Self-check"))


class _Timed:
    """The samples of the last attempt in ms, each with the second at which it began, and the states of the board."""

    def __init__(self, stored: Mapping[str, Any]) -> None:
        attempt = table(stored, "attempts", -1)
        inner = number(attempt, "inner") or 1.0
        self.seconds: list[float] = []
        self.values: list[float] = []
        self.temperatures: list[tuple[float, float]] = []  # of the hottest zone
        self.clocks: list[tuple[float, float]] = []  # of the fastest core, MHz
        repeats = iter(items(attempt, "samples_ns"))
        now, origin = 0.0, None
        for process in items(attempt, "processes"):
            began = number(process, "before", "monotonic_s")
            if began is not None:
                origin = began if origin is None else origin
                now = max(now, began - origin)
            self._state(table(process, "before"), now)
            for _ in range(int(number(process, "repeats") or 0)):
                for sample in items(next(repeats, None)):
                    took = number(sample)
                    if took is not None:
                        self.seconds.append(now)
                        self.values.append(took / 1e6)
                        now += took * inner / 1e9
            ended = number(process, "after", "monotonic_s")
            now = max(now, ended - origin) if ended is not None and origin is not None else now
            self._state(table(process, "after"), now)

    def _state(self, state: Mapping[str, Any], second: float) -> None:
        heat = [each for value in table(state, "temperature_c").values() if (each := number(value)) is not None]
        clocks = [each for value in items(state, "clocks_mhz") if (each := number(value)) is not None]
        self.temperatures += [(second, max(heat))] if heat else []
        self.clocks += [(second, max(clocks))] if clocks else []


def _samples(fact: Mapping[str, Any], stored: Mapping[str, Any], drawings: Drawings) -> Markup | None:
    if words(fact, "error") is not None:
        return None
    timed = _Timed(stored)
    if not timed.values:
        note = "The raw samples are in the store of the computer that measured; a report made there shows them."
        return section("Latency samples", element("p", note, class_="note"))
    figures: list[Markup | None] = [_distribution(fact, timed, drawings), _over_time(fact, timed, drawings)]
    figures += [
        _beside("Temperature while it was measured", "degrees C", "second", timed.temperatures, drawings),
        _beside("Clocks while it was measured", "MHz", "third", timed.clocks, drawings),
    ]
    unknown = [name for name, values in (("temperature", timed.temperatures), ("clocks", timed.clocks)) if not values]
    parts = [element("div", *(each for each in figures if each is not None), class_="pair")]
    if unknown:
        parts.append(element("p", f"The board does not tell its {' and '.join(unknown)}.", class_="note"))
    return section("Latency samples", *parts)


def _lines(fact: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The median and the limit."""
    median, limit = number(fact, "median_ms"), number(fact, "limit_ms")
    found = [] if median is None else [{"at": median, "label": f"median {median:.4g} ms", "quiet": True}]
    return found + ([] if limit is None else [{"at": limit, "label": f"limit {limit:.4g} ms"}])


def _distribution(fact: Mapping[str, Any], timed: _Timed, drawings: Drawings) -> Markup:
    values = sorted(timed.values)
    top = values[min(len(values) - 1, math.ceil(_TAIL * len(values)))]
    low = values[0]
    width = (top - low) / _BINS or max(top, 1e-9) / _BINS
    counts = [0] * _BINS
    beyond = 0
    for value in values:
        place = int((value - low) / width)
        if value > top:
            beyond += 1
        else:
            counts[min(place, _BINS - 1)] += 1
    centres = [low + (i + 0.5) * width for i in range(_BINS)]
    median = statistics.median(values)
    sentence = f"{len(values):,} samples from {values[0]:.4g} to {values[-1]:.4g} ms, median {median:.4g} ms."
    interval = pair(fact, "interval_ms")
    if interval is not None:
        sentence += f" The median lies in {interval[0]:.4g} to {interval[1]:.4g} ms with 95 % probability."
    sentence += f" {beyond:,} samples lie beyond the right end." if beyond else ""
    chart = {
        "xs": [axis("latency (ms)")],
        "y": axis("samples", zero=True),
        "series": [{**series("samples", "first", centres, [float(each) for each in counts], "bars"), "width": width}],
        "limits": _lines(fact),
    }
    rows = [[low + i * width, low + (i + 1) * width, each] for i, each in enumerate(counts)]
    return drawings.figure(
        "Distribution of the latency",
        sentence,
        chart,
        html_table(["from (ms)", "to (ms)", "samples"], rows, "Distribution"),
    )


def _over_time(fact: Mapping[str, Any], timed: _Timed, drawings: Drawings) -> Markup:
    shown = thinned(len(timed.values), MAX_SAMPLES)
    xs, ys = [timed.seconds[i] for i in shown], [timed.values[i] for i in shown]
    half = len(timed.values) // 2
    sentence = f"Each sample by when it was taken, over {timed.seconds[-1]:.3g} s."
    if half:
        first, last = statistics.median(timed.values[:half]), statistics.median(timed.values[half:])
        sentence += f" The first half has the median {first:.4g} ms, the second {last:.4g} ms."
    chart = {
        "xs": [axis("seconds since the first", zero=True)],
        "y": axis("latency (ms)"),
        "series": [series("samples", "within", xs, ys)],
        "limits": [{**each, "across": True} for each in _lines(fact)],
    }
    rows = [[xs[i], ys[i]] for i in thinned(len(xs), 500)]
    caption = "Samples over time" + (
        f", {len(rows):,} of {len(timed.values):,}" if len(rows) < len(timed.values) else ""
    )
    return drawings.figure("Latency over time", sentence, chart, html_table(["second", "latency (ms)"], rows, caption))


def _beside(
    title: str, unit: str, role: str, points: Sequence[tuple[float, float]], drawings: Drawings
) -> Markup | None:
    if not points:
        return None
    xs, ys = [x for x, _ in points], [y for _, y in points]
    sentence = f"From {min(ys):.4g} to {max(ys):.4g} {unit}, before and after each process."
    chart = {
        "xs": [axis("seconds since the first", zero=True)],
        "y": axis(unit),
        "series": [{**series(title, role, xs, ys, "line"), "signs": True}],
    }
    return drawings.figure(title, sentence, chart, html_table(["second", unit], list(map(list, points)), title))
