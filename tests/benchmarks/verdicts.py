"""How often a verdict is wrong: simulated noisy boards, limits around the true median.

    python -m tests.benchmarks.verdicts [--runs 1000] [--seed 1] [--tier final] [--noise jitter,bursts]

The settings of edgenas/board/tier.py were chosen by seed 0; figures are of seed 1. A run samples as Bench does, round
by round, and by the functions that give Bench its verdicts. The truth is the median over all times and processes. PASS
is wrong where the limit is below the truth, FAIL where it is not; UNSTABLE is never wrong, but answers nothing.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgenas import device as devices
from edgenas.board.statistics import Summary, moved, summarise
from edgenas.board.tier import Tier

SHARES = (0.8, 0.9, 0.95, 0.98, 0.99, 1.0, 1.01, 1.02, 1.05, 1.1, 1.2)  # of the truth: the limits
MODEL_MS, REFERENCE_MS = 5.0, 2.0
STARTING_S = 0.6  # a process, until it samples
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Noise:
    """What keeps samples from being the median.

    `jitter`: log-normal, of each sample; `process`: likewise, of each process. `burst`: the factor while another
    program runs, for `burst_s` on average, every `idle_s`. `wander`: a drift that comes and goes, its deviation, over
    `wander_s`; `ramp`: one that goes on, by so much at most over a minute, in either direction. `preempted`: how often
    a ms of computing is interrupted, for 4 to 12 ms.
    """

    jitter: float = 0.01
    process: float = 0.005
    burst: float = 1.0
    burst_s: float = 0.7
    idle_s: float = 3.0
    wander: float = 0.0
    wander_s: float = 5.0
    ramp: float = 0.0
    preempted: float = 0.0


NOISES = {
    "quiet": Noise(),
    "jitter": Noise(jitter=0.2, process=0.01),
    "processes": Noise(process=0.03),
    "bursts": Noise(burst=1.6),
    "wander": Noise(wander=0.03),
    "slow wander": Noise(wander=0.02, wander_s=30.0),
    "ramp": Noise(ramp=0.05),
    "pre-emption": Noise(preempted=0.05),
    "all": Noise(0.1, 0.01, burst=1.3, wander=0.02, ramp=0.03, preempted=0.01),
}


class Board:
    """A board whose `noise` follows from `seed`, for `lasts_s`."""

    def __init__(self, noise: Noise, seed: Sequence[int], lasts_s: float = 120.0) -> None:
        self._noise, self._random = noise, np.random.default_rng(seed)
        self.now_s = 0.0
        self._step_s = 0.05
        times = np.arange(0.0, lasts_s, self._step_s)
        level = np.zeros(len(times))
        if noise.wander:
            keep = math.exp(-self._step_s / noise.wander_s)
            pushes = self._random.standard_normal(len(times)) * noise.wander * math.sqrt(1 - keep**2)
            level[0] = self._random.standard_normal() * noise.wander
            for index in range(1, len(times)):
                level[index] = keep * level[index - 1] + pushes[index]
        if noise.ramp:
            level += self._random.uniform(-noise.ramp, noise.ramp) * (times / 60.0 - 0.5)
        if noise.burst != 1.0:
            busy = self._random.random() < noise.burst_s / (noise.burst_s + noise.idle_s)
            at_s = 0.0
            while at_s < lasts_s:
                for_s = self._random.exponential(noise.burst_s if busy else noise.idle_s)
                if busy:
                    level[(times >= at_s) & (times < at_s + for_s)] += math.log(noise.burst)
                at_s, busy = at_s + for_s, not busy
        self._level = level

    def process(self, model_ms: float, repeats: int, min_repeat_ms: float, pause_s: float) -> list[list[int]]:
        """The samples of a new process, ns."""
        noise, random = self._noise, self._random
        self.now_s += STARTING_S
        own = random.standard_normal() * noise.process
        found = []
        for _ in range(repeats):
            count = max(1, round(min_repeat_ms / model_ms))
            at = ((self.now_s + np.arange(count) * model_ms / 1e3) / self._step_s).astype(int)
            logs = own + self._level[np.minimum(at, len(self._level) - 1)]
            samples = model_ms * np.exp(logs + noise.jitter * random.standard_normal(count))
            if noise.preempted:
                hits = random.poisson(noise.preempted * samples)
                samples = samples + hits * random.uniform(4.0, 12.0, count)
            self.now_s += float(samples.sum()) / 1e3 + pause_s
            found.append([int(each) for each in samples * 1e6])
        return found


def truth_ms(noise: Noise, tier: Tier) -> float:
    """The median over many boards and all of the time that the tier may take."""
    found = []
    for number in range(400):
        board = Board(noise, [2**32, number])
        for each in tier.rounds:
            found += [
                sample for repeat in board.process(MODEL_MS, each.repeats, each.min_repeat_ms, 0.0) for sample in repeat
            ]
    return float(np.median(found)) / 1e6


def looks(noise: Noise, tier: Tier, seed: Sequence[int]) -> list[Summary]:
    """What a run sees, after each round."""
    board = Board(noise, seed)
    samples: list[list[int]] = []
    processes: list[int] = []
    found = []
    before: Summary | None = None
    for done, each in enumerate(tier.rounds, 1):
        if done == 2:
            before = summarise(board.process(REFERENCE_MS, 3, 60.0, 0.02))
        samples += board.process(MODEL_MS, each.repeats, each.min_repeat_ms, each.pause_s)
        processes.append(each.repeats)
        drift = 0.0
        if before is not None:
            clock_s = board.now_s
            drift = moved(before, summarise(board.process(REFERENCE_MS, 3, 60.0, 0.02)))
            if done < len(tier.rounds):
                board.now_s = clock_s  # it is timed only where this look answers
        alpha, unseen = tier.alpha(done), tier.unseen(done)
        found.append(summarise(samples, processes=processes, alpha=alpha, unseen=unseen, drift=drift))
    return found


def verdicts(seen: Sequence[Summary], limit_ms: float) -> tuple[str, int]:
    """The first that answers, else UNSTABLE; and after how many rounds."""
    for done, summary in enumerate(seen, 1):
        verdict = summary.verdict(limit_ms)
        if verdict != "UNSTABLE":
            return verdict, done
    return "UNSTABLE", len(seen)


@dataclass(frozen=True)
class Shares:
    """Of a limit that is `share` of the truth."""

    share: float
    wrong_pass: float
    wrong_fail: float
    unstable: float
    sampled_s: float


def measured(noise: Noise, tier: Tier, runs: int, seed: int, shares: Sequence[float] = SHARES) -> list[Shares]:
    """One a limit; `tier` is one with a limit, whichever, for its rounds."""
    assert tier.limit_ms is not None
    truth = truth_ms(noise, tier)
    lengths_s = np.cumsum([each.lasts_ms / 1e3 for each in tier.rounds])
    seen = [looks(noise, tier, [seed, number]) for number in range(runs)]
    found = []
    for share in shares:
        said = [verdicts(each, share * truth) for each in seen]
        wrong_pass = sum(verdict == "PASS" for verdict, _ in said) if share < 1 else 0
        wrong_fail = sum(verdict == "FAIL" for verdict, _ in said) if share >= 1 else 0
        unstable = sum(verdict == "UNSTABLE" for verdict, _ in said)
        sampled_s = float(np.mean([lengths_s[done - 1] for _, done in said]))
        found.append(Shares(share, wrong_pass / runs, wrong_fail / runs, unstable / runs, sampled_s))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tier", default="screen,final")
    parser.add_argument("--noise", default=",".join(NOISES))
    asked = parser.parse_args()
    how = devices.load("host").measurement
    assert how is not None
    tiers: dict[str, Callable[..., Tier]] = {"screen": Tier.screen, "final": Tier.final}
    worst_pass = worst_fail = 0.0
    print(f"{asked.runs} runs of each noise, seed {asked.seed}; limits as shares of the true median; in %")
    print(f"{'':22}" + "".join(f"{share:>7.2f}" for share in SHARES))
    for name in asked.tier.split(","):
        for noise in asked.noise.split(","):
            found = measured(NOISES[noise], tiers[name](how, MODEL_MS), asked.runs, asked.seed)
            worst_pass = max(worst_pass, *(each.wrong_pass for each in found))
            worst_fail = max(worst_fail, *(each.wrong_fail for each in found))
            print(f"{name}, {noise}")
            wrong = [each.wrong_pass or each.wrong_fail for each in found]
            print(f"{'  wrong PASS or FAIL':22}" + "".join(f"{100 * each:>7.1f}" for each in wrong))
            print(f"{'  UNSTABLE':22}" + "".join(f"{100 * each.unstable:>7.1f}" for each in found))
            print(f"{'  sampled, s':22}" + "".join(f"{each.sampled_s:>7.1f}" for each in found), flush=True)
    print(f"worst wrong PASS {worst_pass:.1%}, worst wrong FAIL {worst_fail:.1%} (at most 5 % each)")


if __name__ == "__main__":
    main()
