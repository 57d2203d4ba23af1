"""Every form in which HW-NAS-Bench reaches a user, and what else may be in a file of that name."""

import json
import lzma
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.benchmarks.nasbench201.hwnasbench import SIZE, read_hwnasbench
from edgenas.data import files
from edgenas.errors import DataError

METRICS = ("edgegpu_latency", "edgegpu_energy", "raspi4_latency", "edgetpu_latency", "fpga_energy")
DATASETS = {"cifar10": "cifar10", "cifar100": "cifar100", "ImageNet16-120": "imagenet16-120"}


def column(dataset: str, metric: str) -> list[float]:
    """Made-up costs, different in every column."""
    start = 100 * list(DATASETS).index(dataset) + METRICS.index(metric)
    return [start + i / SIZE for i in range(SIZE)]


def official() -> dict[str, Any]:
    """The layout of HW-NAS-Bench-v1_0.pickle, with what else is in there."""
    table = {
        dataset: {
            **{metric: column(dataset, metric) for metric in METRICS},
            "average_hw_metric": [1.0] * SIZE,
            "config": [{"name": "infer.tiny"}] * SIZE,
        }
        for dataset in DATASETS
    }
    return {"nasbench201": table, "fbnet": {"cifar100": {}}}


def store(path: Path, content: Any) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


def test_official_pickle_with_all_data_sets(tmp_path: Path) -> None:
    tables = read_hwnasbench(store(tmp_path / "HW-NAS-Bench-v1_0.pickle", official()))
    assert set(tables) == set(DATASETS.values())
    for theirs, ours in DATASETS.items():
        assert set(tables[ours]) == set(METRICS)
        for metric in METRICS:
            assert tables[ours][metric].tolist() == column(theirs, metric)


def test_pickle_with_arrays_and_numpy_numbers(tmp_path: Path) -> None:
    content = official()
    content["nasbench201"]["cifar10"]["raspi4_latency"] = np.arange(SIZE)
    content["nasbench201"]["cifar10"]["edgetpu_latency"] = [np.float64(-1)] * SIZE
    table = read_hwnasbench(store(tmp_path / "a.pickle", content))["cifar10"]
    assert table["raspi4_latency"].dtype == np.float64
    assert table["raspi4_latency"][-1] == SIZE - 1
    assert set(table["edgetpu_latency"]) == {-1.0}


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    path = store(tmp_path / "a.pickle", official())
    assert {d: set(t) for d, t in read_hwnasbench(path, {"fpga_energy", "no_latency"}).items()} == {
        dataset: {"fpga_energy"} for dataset in DATASETS.values()
    }


def csv(rows: int = SIZE, first: str = "arch_idx,arch_str,raspi4_latency,edgetpu_latency") -> str:
    return "\n".join([first, *(f"{i},|none~0|,{i}.5,-1" for i in range(rows))]) + "\n"


def test_csv_plain_and_compressed_and_npz(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(csv(), encoding="utf-8")
    (tmp_path / "a.csv.xz").write_bytes(lzma.compress(csv().encode()))
    table = read_hwnasbench(tmp_path / "a.csv")["cifar10"]
    np.savez(tmp_path / "a.npz", provenance="{}", allow_pickle=False, **{f"cifar10/{key}": table[key] for key in table})
    for name in ("a.csv", "a.csv.xz", "a.npz"):
        read = read_hwnasbench(tmp_path / name)
        assert list(read) == ["cifar10"]
        assert set(read["cifar10"]) == {"raspi4_latency", "edgetpu_latency"}
        assert read["cifar10"]["raspi4_latency"].tolist() == [i + 0.5 for i in range(SIZE)]
        assert set(read["cifar10"]["edgetpu_latency"]) == {-1.0}
        assert set(read_hwnasbench(tmp_path / name, {"raspi4_latency"})["cifar10"]) == {"raspi4_latency"}


class Evil:
    """What a pickle must not be able to do."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, exec, os.remove])
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, function: Any) -> None:
    trace = tmp_path / "trace"
    argument = {os.system: f"touch {trace}", os.remove: str(trace)}.get(function, f"open({str(trace)!r}, 'w')")
    if function is os.remove:
        trace.touch()
    content = official()
    content["nasbench201"]["cifar10"]["raspi4_latency"] = Evil(function, argument)
    with pytest.raises(DataError, match=r"do not trust|official source"):
        read_hwnasbench(store(tmp_path / "evil.pickle", content))
    assert trace.exists() == (function is os.remove)


def wrong() -> Iterator[tuple[str, Any, str]]:
    yield "list", [1, 2], "is a pickle, but not HW-NAS-Bench v1.0"
    yield "other search space", {"fbnet": {}}, "is a pickle, but not HW-NAS-Bench v1.0"
    yield "no data sets", {"nasbench201": {"svhn": {}}}, "is a pickle, but not HW-NAS-Bench v1.0"
    yield "no metrics", {"nasbench201": {"cifar10": {"config": []}}}, "holds no cost of NAS-Bench-201"
    short = {"raspi4_latency": column("cifar10", "raspi4_latency")[:-1]}
    yield "short", {"nasbench201": {"cifar10": short}}, "cifar10 raspi4_latency does not have one number for each"
    words = {"raspi4_latency": ["fast"] * SIZE}
    yield "words", {"nasbench201": {"cifar10": words}}, "cifar10 raspi4_latency is not made of numbers"
    ragged = {"raspi4_latency": [[1.0], [1.0, 2.0]] * 10}
    yield "ragged", {"nasbench201": {"cifar10": ragged}}, "is not made of numbers"
    yield "one number", {"nasbench201": {"cifar10": {"raspi4_latency": 3.0}}}, "does not have one number for each"


@pytest.mark.parametrize(("content", "said"), [case[1:] for case in wrong()], ids=[case[0] for case in wrong()])
def test_a_pickle_of_another_layout_is_said(tmp_path: Path, content: Any, said: str) -> None:
    path = store(tmp_path / "wrong.pickle", content)
    with pytest.raises(DataError, match=said) as caught:
        read_hwnasbench(path)
    assert str(path) in str(caught.value)
    assert "edgenas data import hw-nas-bench" in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("name", ["a.pickle", "a.csv", "a.csv.xz", "a.npz"])
def test_a_file_cut_short_is_said(tmp_path: Path, name: str, share: float) -> None:
    path = store(tmp_path / "a.pickle", official())
    (tmp_path / "a.csv").write_text(csv(), encoding="utf-8")
    (tmp_path / "a.csv.xz").write_bytes(lzma.compress(csv().encode()))
    np.savez(tmp_path / "a.npz", allow_pickle=False, **{"cifar10/raspi4_latency": np.ones(SIZE)})
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError) as caught:
        read_hwnasbench(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (csv(first="a,b,c,d"), "lacks the columns arch_idx"),
        (csv(first="arch_idx,arch_str,x,y"), "lacks the columns arch_idx and DEVICE_latency"),
        (csv(100), "does not list the 15,625 cells in order"),
        (csv().replace("\n7,", "\n8,"), "does not list the 15,625 cells in order"),
        (csv().replace(",7.5,", ",fast,"), "damaged"),
        ("arch_idx,raspi4_latency\n", "does not list the 15,625 cells"),
    ],
)
def test_a_wrong_csv_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_hwnasbench(path)


def test_bombs_pickled_arrays_and_strange_keys_are_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "a.csv.xz"
    bomb.write_bytes(lzma.compress(bytes(70 << 20), preset=0))
    with pytest.raises(DataError, match="far larger"):
        read_hwnasbench(bomb)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, allow_pickle=False, **{"cifar10/raspi4_latency": np.zeros(9 << 20)})
    with pytest.raises(DataError, match="far larger"):
        read_hwnasbench(path)
    np.savez(path, allow_pickle=True, **{"cifar10/raspi4_latency": np.array([Evil(os.getcwd)] * SIZE)})
    with pytest.raises(DataError, match="damaged"):
        read_hwnasbench(path)
    np.savez(path, allow_pickle=False, **{"svhn/raspi4_latency": np.ones(SIZE)})
    with pytest.raises(DataError, match="holds 'svhn/raspi4_latency'"):
        read_hwnasbench(path)


def test_missing_and_foreign_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_hwnasbench(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is no file of HW-NAS-Bench"):
        read_hwnasbench(tmp_path / "a.txt")


@pytest.mark.real_data
def test_known_points_survive_the_official_layout(tmp_path: Path) -> None:
    """The costs that HW-NAS-Bench's authors print, on all data sets, through a pickle in their layout; and, where
    the real CSV is here, the same numbers in it."""
    folder = files.data_dir()
    known = folder / "hwnasbench_known_points_idx0-2_all_datasets.json" if folder else None
    if known is None or not known.exists():
        pytest.skip("needs hwnasbench_known_points_idx0-2_all_datasets.json in the folder EDGENAS_DATA_DIR names")
    points = json.loads(known.read_text(encoding="utf-8"))
    content: dict[str, Any] = {"nasbench201": {}}
    for index, dataset, costs in points:
        for metric, value in costs.items():
            content["nasbench201"].setdefault(dataset, {}).setdefault(metric, [-1.0] * SIZE)[index] = value
    tables = read_hwnasbench(store(tmp_path / "HW-NAS-Bench-v1_0.pickle", content))
    real = files.locate("hw-nas-bench")
    truth = read_hwnasbench(real)["cifar10"] if real else tables["cifar10"]
    compared = 0
    for index, dataset, costs in points:
        for metric, value in costs.items():
            if metric.endswith(("_latency", "_energy")):
                assert tables[DATASETS[dataset]][metric][index] == value
                compared += 1
                if dataset == "cifar10":
                    assert truth[metric][index] == pytest.approx(value, rel=1e-12)
    assert compared == 3 * 3 * 9
