from pathlib import Path

import numpy as np
import pytest

from edgenas.data import files
from edgenas.spaces.nasbench201 import NASBench201

SIZE = 15_625


@pytest.fixture(scope="session")
def space() -> NASBench201:
    return NASBench201()


@pytest.fixture
def hw_nas_bench() -> Path:
    """The real table; only for tests marked real_data."""
    path = files.locate("hw-nas-bench")
    if path is None or path.parent == files.SHIPPED:
        pytest.skip("HW-NAS-Bench is not on this machine; get it: edgenas data fetch hw-nas-bench")
    return path


@pytest.fixture
def small_table() -> dict[str, np.ndarray]:
    """A table in the cache with costs of two devices on two data sets: cell i costs i + 1, and 2 (i + 1) for
    cifar100; cells 7, 8 and 9 are not measurable on the Edge TPU."""
    rising = np.arange(SIZE) + 1.0
    edgetpu = rising.copy()
    edgetpu[7:10] = -1, np.nan, 0
    arrays = {
        "cifar10/raspi4_latency": rising,
        "cifar100/raspi4_latency": 2 * rising,
        "cifar10/edgetpu_latency": edgetpu,
    }
    np.savez(files.cache_dir() / "hw-nas-bench.npz", allow_pickle=False, **arrays)
    return arrays
