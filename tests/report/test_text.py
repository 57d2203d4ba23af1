"""Results and devices as a person reads them, from made-up JSON."""

from __future__ import annotations

from typing import Any

import pytest

from edgenas import device as devices
from edgenas.report.text import MAX_POINTS, constraints_text, device_fact, device_text, result_text, table_text
from edgenas.spaces.nasbench201 import NASBench201
from tests import runs
from tests.cli.test_terminal import NASTY, is_clean

ARCH = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|nor_conv_1x1~1|avg_pool_3x3~2|"
GENES = NASBench201().parse(ARCH).genes
LIMIT = {"metric": "latency", "limit": 5.0, "unit": "ms"}


def found(**change: Any) -> dict[str, Any]:
    return {**runs.winner(GENES, ARCH, latency=4.2, macs=60.0), **change}


def text(winner: dict[str, Any], **change: Any) -> str:
    return result_text(runs.result(winner, constraints=[LIMIT], **change), runs.header(device="raspi4"))


def test_columns_are_aligned() -> None:
    assert table_text(["a", "bcd"], [["long", "x"], ["", ""]]) == "a     bcd\nlong  x\n"


def test_limits_have_their_units() -> None:
    more = {"metric": "macs", "limit": 60.0, "unit": "M"}
    assert constraints_text({"constraints": [LIMIT, more]}) == "latency <= 5 ms, macs <= 60 M"


def test_one_network_for_several_devices_is_shown_beside_one_for_each() -> None:
    facts = {
        "genes": list(GENES),
        "arch_str": ARCH,
        "score": 0.9,
        "test_accuracy": 91.0,
        "best_possible_accuracy": 92.0,
    }
    alone = [
        {**facts, "device": "coral", "searched": True, "command": "c", "test_accuracy": 93.5, "score": 0.95},
        {**facts, "device": "pi", "searched": True, "command": "c", "test_accuracy": 92.0, "score": 0.8},
        {**dict.fromkeys(facts), "device": "far", "searched": False, "command": "edgenas search --device far"},
    ]
    where = {"device": "coral,pi,far", "compromise": {**facts, "alone": alone}}
    lines = text(found(), **where).splitlines()
    start = lines.index("  one network for all devices, beside one for each:")
    assert [line.split() for line in lines[start + 1 : start + 7]] == [
        ["FOR", "PHI", "ACCURACY", "BEST", "POSSIBLE"],
        ["all", "0.9000", "91.00", "%", "92.00", "%"],
        ["coral", "alone", "0.9500", "93.50", "%", "92.00", "%", "+2.50", "points"],
        ["pi", "alone", "0.8000", "92.00", "%", "92.00", "%", "found", "nothing", "better"],
        ["what", "one", "network", "for", "each", "would", "come", "to:"],
        ["edgenas", "search", "--device", "far"],
    ]
    unknown = {"test_accuracy": None, "best_possible_accuracy": None}
    where["compromise"] = {**facts, **unknown, "alone": [{**alone[0], **unknown}]}
    lines = text(found(), **where, refinement=None).splitlines()
    start = lines.index("  one network for all devices, beside one for each:")
    assert [line.split() for line in lines[start + 1 : start + 4]] == [
        ["FOR", "PHI"],
        ["all", "0.9000"],
        ["coral", "alone", "0.9500", "+0.0500"],
    ]


def test_a_winner_with_its_costs_and_where_they_come_from() -> None:
    shown = text(found())
    assert shown.startswith("raspi4, cifar10: latency <= 5 ms\n")
    assert f"  {ARCH}\n" in shown
    (latency,) = [line for line in shown.splitlines() if line.startswith("  latency")]
    assert latency.split() == ["latency", "4.2", "ms", "of", "5", "ms", "a", "test"]
    assert "run runs/made-up" in shown


def test_how_far_a_cost_may_be_off() -> None:
    winner = found()
    winner["costs"]["latency"] |= {"interval": [3.9, 4.6], "chance_over_limit": 0.004}
    assert "; 3.9 ms to 4.6 ms with 95 % probability, under 1 % chance to be over the limit" in text(winner)
    winner["costs"]["latency"] |= {"raw": 4.0, "chance_over_limit": 0.11}
    assert "the table's own value is 4 ms" in text(winner)
    assert ", 11 % chance to be over the limit" in text(winner)


def test_an_accuracy_is_shown_where_it_is_known() -> None:
    known = text(found(test_accuracy=93.5), best_possible_accuracy=94.0)
    assert "93.50 %" in known
    assert "of 94.00 %" in known
    assert "NAS-Bench-201, test; the best possible" in known
    assert "accuracy is not known here" not in known


def test_what_to_import_is_said_where_that_would_tell_the_accuracy() -> None:
    assert "  accuracy is not known here: edgenas data import nasbench201 FILE\n" in text(found(), dataset="cifar100")
    assert "accuracy" not in text(found(), dataset="digits")


def test_what_refinement_found() -> None:
    refined = {
        "val_accuracy": 84.1,
        "standard_error": 0.58,
        "val_images": 4000,
        "images_seen": 102_400,
        "runner_up": {"ahead": -0.5, "ahead_standard_error": 0.3},
    }
    shown = text(found(refined=refined))
    assert "84.10 ± 0.58 %" in shown
    assert "4,000 images held out, after 102,400 images of training; 0.50 ± 0.30 points behind the runner-up" in shown
    skipped = text(found(), refinement={"skipped": "one class within the limits"})
    assert "  not refined: one class within the limits" in skipped


@pytest.mark.parametrize(("count", "hidden"), [(MAX_POINTS, 0), (MAX_POINTS + 1, 1), (100, 100 - MAX_POINTS)])
def test_a_long_front_is_cut_for_a_reader(count: int, hidden: int) -> None:
    point = found()
    front = [{**point, "score": number / 100} for number in range(count)]
    shown = text(point, pareto="latency", front=front)
    assert shown.count(ARCH) == MAX_POINTS
    assert "  0.0000  " in shown
    assert f"  {(count - 1) / 100:.4f}  " in shown
    assert (f"and {hidden} more between these; all {count}: edgenas runs show" in shown) == (hidden > 0)


def test_words_of_others_do_nothing_to_a_terminal() -> None:
    winner = found(arch_str=NASTY)
    winner["costs"]["latency"]["source"] = NASTY
    assert is_clean(text(winner, dataset=NASTY))
    assert is_clean(text(winner, dataset=NASTY, pareto="latency", front=[winner]))


@pytest.mark.parametrize("name", devices.names())
def test_a_device_is_shown_with_what_it_can_be_limited_by(name: str) -> None:
    fact = device_fact(devices.load(name))
    shown = device_text(fact)
    assert {line.split()[0] for line in shown.splitlines()[:3]} == {"name", "device", "kind"}
    assert ", ".join(fact["metrics"]) in shown
    assert shown.endswith(fact["description"])
