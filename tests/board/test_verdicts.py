"""Verdicts on simulated noisy boards are rarely wrong; tests/benchmarks/verdicts.py prints how rarely, of many runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgenas import device as devices
from edgenas.board.statistics import ALPHA, summarise
from edgenas.board.tier import Tier
from tests.benchmarks.verdicts import MODEL_MS, NOISES, Board, measured

HOW = devices.load("host").measurement
assert HOW is not None
RUNS = 60  # a wrong share of 5 % gives more than 9 wrong once in a thousand times; the seed is fixed


@pytest.mark.parametrize("make", [Tier.screen, Tier.final])
@pytest.mark.parametrize("noise", ["quiet", "bursts", "slow wander", "all"])
def test_verdicts_are_rarely_wrong_and_easy_ones_are_given(make: Callable[..., Tier], noise: str) -> None:
    shares = (0.1, 0.8, 0.99, 1.0, 1.2, 4.0)
    found = {each.share: each for each in measured(NOISES[noise], make(HOW, MODEL_MS), RUNS, 3, shares)}
    for each in found.values():
        assert max(each.wrong_pass, each.wrong_fail) <= 9 / RUNS, each
    assert found[0.1].unstable == found[4.0].unstable == 0, "an easy question is answered whatever the noise"
    assert max(found[0.1].sampled_s, found[4.0].sampled_s) < 0.5
    if noise == "quiet":
        assert found[0.8].unstable == found[1.2].unstable == 0


def test_who_looks_again_and_again_at_one_level_is_wrong_more_often() -> None:
    """What the looks' shares of the error are for: the simulation shows it."""
    tier = Tier.final(HOW, MODEL_MS)  # type: ignore[arg-type]
    wrong = {"shared": 0, "each its own": 0}
    for number in range(150):
        board = Board(NOISES["jitter"], [5, number])
        samples: list[list[int]] = []
        seen = dict.fromkeys(wrong, False)
        for done in range(1, len(tier.rounds) + 1):
            samples += board.process(MODEL_MS, 5, 100.0, 0.0)
            for how, alpha in (("shared", tier.alpha(done)), ("each its own", ALPHA)):
                seen[how] |= summarise(samples, alpha=alpha).verdict(MODEL_MS) != "UNSTABLE"
        for how in wrong:
            wrong[how] += seen[how]
    assert wrong["each its own"] > 2 * wrong["shared"]
