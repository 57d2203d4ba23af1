"""The files of a run as types, for pydantic: what each must hold, and in what bounds.

Numbers are finite. Keys that are not named are left out, but of costs and epochs, where they are wrong, and of an
export's record, where they are kept.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from annotated_types import Ge, Gt, Le, Len
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    InstanceOf,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from typing_extensions import TypedDict  # pydantic cannot read that of typing before Python 3.12

from edgenas.text import is_name, printable
from edgenas.units import COUNTED, METRICS, cost_name, device_of

STRICT = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
CLOSED = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
OPEN = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

Text = InstanceOf[str]  # pydantic's own str refuses the lone surrogates by which Python holds bytes that are no UTF-8
Word = Annotated[Text, Len(0, 4096)]  # what a person set: a name, a path or a few
# JSON has no tuples.
Words = Annotated[tuple[Word, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]
MAX_COUNT = 10**15
Count = Annotated[int, Ge(0), Le(MAX_COUNT)]
Positive = Annotated[int, Ge(1), Le(MAX_COUNT)]
Percent = Annotated[float, Ge(0), Le(100)]
Amount = Annotated[float, Ge(0)]
Genes = Annotated[list[Count], Len(1, 10_000)]
Metric = Literal["latency", "energy", "macs", "params"]


class _CostEntry(TypedDict):
    value: Amount
    source: Text
    upper: NotRequired[Amount]
    raw: NotRequired[Amount]
    interval: NotRequired[Annotated[list[Amount], Len(2, 2)]]
    chance_over_limit: NotRequired[Annotated[float, Ge(0), Le(1)] | None]


class _Milliseconds(_CostEntry):
    unit: Literal["ms"]


class _Millijoules(_CostEntry):
    unit: Literal["mJ"]


class _Millions(_CostEntry):
    unit: Literal["M"]


class Costs(TypedDict, total=False):
    """On one device."""

    __pydantic_config__ = CLOSED  # type: ignore[misc]
    latency: _Milliseconds
    energy: _Millijoules
    macs: _Millions
    params: _Millions


def _by_device(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Costs on several devices are those on each, by the names that they have beside each other."""
    names = [each for each in value if isinstance(each, str)] if isinstance(value, dict) else []
    devices = {device_of(each) for each in names}
    if devices <= {None}:
        return check(value)
    found: dict[str, Any] = {}
    for device in devices:
        there = check({_metric(each): value[each] for each in names if device_of(each) == device})
        found |= {cost_name(metric, device): cost for metric, cost in there.items()}
    return {each: found[each] for each in value}


def _metric(cost: str) -> str:
    """The metric of a cost that is called so. Raises ValueError for what calls none."""
    device, metric = device_of(cost), cost.partition("@")[0]
    if metric not in METRICS or (device and (metric in COUNTED or not is_name(device))) or cost.endswith("@"):
        raise ValueError(f"{printable(cost, 40)} is no cost")
    return metric


AllCosts = Annotated[Costs, WrapValidator(_by_device)]


def _called(cost: str) -> str:
    _metric(cost)
    return cost


CostName = Annotated[Text, AfterValidator(_called)]


class Header(TypedDict):
    """run.json; `request` is checked apart."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    schema_version: int
    kind: Literal["search", "pick"]
    created: Text
    request: dict[Text, Any]
    search_settings: dict[Text, Any]
    fitness_settings: dict[Text, Any]
    device_profile_sha256: Text
    cost_fingerprint: Text
    fitness_fingerprint: Text
    fitness_source: Text
    versions: dict[Text, Text]
    refine_settings: NotRequired[dict[Text, Any] | None]
    refine_fingerprint: NotRequired[Text | None]
    picked_from: NotRequired[Text]


class TrialRecord(TypedDict):
    """A line of trials.jsonl."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    trial: Count
    generation: Count
    space: Text
    genes: Genes
    score: float | None
    phi: float | None
    loss: float | None
    fitness: float | None
    feasible: bool
    scored: bool
    costs: AllCosts
    score_error: Text | None
    cost_error: Text | None


class MeasuredRecord(TypedDict):
    """A line of measured.jsonl."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    space: Text
    genes: Genes
    costs: AllCosts
    cost_error: Text | None


class RefinedRecord(TypedDict):
    """A line of refined.jsonl; `right` is base64."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    space: Text
    genes: Genes
    images_seen: Positive
    val_images: Positive
    val_loss: float | None
    seconds: Amount
    error: Text | None
    right: Text


class _Limit(TypedDict):
    metric: Metric
    limit: Annotated[float, Gt(0)]
    unit: Text
    device: NotRequired[Text]


class _RunnerUp(TypedDict):
    genes: Genes
    arch_str: Text
    images_seen: Positive
    ahead: float
    ahead_standard_error: Amount


class _Refined(TypedDict):
    images_seen: Positive
    val_loss: float
    val_accuracy: Percent
    standard_error: Amount
    val_images: Positive
    deployed: NotRequired[Literal["int8"]]
    runner_up: _RunnerUp | None


class _Point(TypedDict):
    genes: Genes
    arch_str: Text
    arch_idx: Count | None
    score: float
    phi: float | None
    costs: AllCosts
    test_accuracy: Percent | None
    refined: NotRequired[_Refined | None]


class _Confirmed(TypedDict):
    verdict: Literal["PASS", "FAIL", "UNSTABLE"]
    values: dict[CostName, Amount]
    source: Text
    reference_ms: NotRequired[dict[CostName, Annotated[float, Gt(0)]]]


class _Confirmation(_Confirmed):
    arch_str: Text


class _Winner(_Point):
    fitness: float
    measured_again: NotRequired[_Confirmed | None]


class _Rung(TypedDict):
    images_seen: Positive
    val_loss: float | None
    val_accuracy: Percent | None
    standard_error: Amount | None
    val_images: Positive
    seconds: Amount


class _RefinedArchitecture(TypedDict):
    genes: Genes
    arch_str: Text
    selection_score: float | None
    rungs: list[_Rung]
    error: Text | None


class _Refinement(TypedDict):
    asked: Positive
    skipped: Text | None
    source: Text
    hardware: Text
    seconds: Amount
    images_seen: Count
    architectures: list[_RefinedArchitecture]


class _Alone(TypedDict):
    device: Text
    genes: Genes | None
    arch_str: Text | None
    score: float | None
    test_accuracy: Percent | None
    best_possible_accuracy: Percent | None
    searched: bool
    command: Text


class _Compromise(TypedDict):
    genes: Genes
    arch_str: Text
    score: float
    test_accuracy: Percent | None
    best_possible_accuracy: Percent | None
    alone: list[_Alone]


class _Evaluations(TypedDict):
    requested: NotRequired[Count]
    distinct: Count
    scored: Count


class Spent(TypedDict):
    """time.json."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    spent_s: Amount


class _Time(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    limit_s: Amount
    spent_s: Amount
    cut: list[Literal["search", "refinement"]]


class Result(TypedDict):
    """result.json."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    schema_version: int
    device: Text
    space: Text
    dataset: Text
    constraints: list[_Limit]
    feasible: bool
    winner: _Winner | None
    pareto: NotRequired[Metric | None]
    front: NotRequired[list[_Point] | None]
    best_possible_accuracy: Percent | None
    confirmations: NotRequired[list[_Confirmation]]
    refinement: NotRequired[_Refinement | None]
    compromise: NotRequired[_Compromise]
    time: NotRequired[_Time]
    evaluations: _Evaluations
    seconds: Amount
    run: Text


class TrainingIdentity(TypedDict):
    """What a training is of, in train/checkpoint.pt."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    space: Text
    genes: Genes
    arch_str: Text
    dataset: Text
    dataset_fingerprint: Text
    teacher: Text | None
    settings: dict[Text, Any]


ClassResult = TypedDict("ClassResult", {"class": Text, "images": Count, "right": Count})


class TrainingResult(TrainingIdentity):
    """train/result.json."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    schema_version: Literal[1]
    images: Text
    train_images: Positive
    val_images: Count
    val_accuracy: Percent | None
    test_accuracy: Percent
    test_images: Positive
    epochs: Positive
    seconds: Amount
    classes: NotRequired[list[ClassResult]]
    confusion: NotRequired[list[list[Count]] | None]  # [class][class that images of it were put into]


class Epoch(TypedDict):
    """A line of train/metrics.jsonl, and what the checkpoint holds of it."""

    __pydantic_config__ = CLOSED  # type: ignore[misc]
    epoch: Positive
    train_loss: float
    val_accuracy: Percent | None
    learning_rate: Amount
    seconds: Amount


class Best(TypedDict):
    """Of the epochs so far, in the checkpoint; `network` is to be checked apart."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    accuracy: Percent
    epoch: Positive
    network: Any


class _Process(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    repeats: Positive
    first_ns: NotRequired[Amount | None]
    init_ns: NotRequired[Amount | None]
    peak_memory_kb: NotRequired[Amount | None]


class _StoredAttempt(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    samples_ns: Annotated[list[Annotated[list[Annotated[float, Gt(0)]], Len(1)]], Len(1)]
    inner: Positive
    energy_mj: Amount | None
    problems: list[Text]
    processes: Annotated[list[_Process], Len(1)]
    alpha: Annotated[float, Gt(0), Le(1)]
    unseen: Annotated[list[Amount], Len(2, 2)]
    drift: Amount
    reference_ms: NotRequired[Annotated[list[Annotated[float, Gt(0)]], Len(2, 2)] | None]


class StoredMeasurement(TypedDict):
    """What the store keeps of a measurement, its raw samples and all."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    board: Text
    measured_at: Text
    checked: bool
    note: Text
    fingerprint: dict[Text, Any]
    attempts: Annotated[list[_StoredAttempt], Len(1)]


class _Tensor(TypedDict):
    name: Text
    layout: Literal["NCHW", "NHWC", "NC"]
    shape: Annotated[list[Positive], Len(1, 8)]
    dtype: Text


class _Checked(TypedDict):
    images: Positive
    relative_error: Amount
    top1_agreement: Annotated[float, Ge(0), Le(1)]
    accuracy: Annotated[float, Ge(0), Le(1)]
    torch_accuracy: Annotated[float, Ge(0), Le(1)]
    accuracy_drop: Annotated[float, Ge(-1), Le(1)]


class _Model(TypedDict):
    file: Text
    format: Text
    runtimes: list[Text]
    bytes: Positive
    sha256: Text
    input: _Tensor
    output: _Tensor
    checked: _Checked
    golden_tolerance: Amount


class _Compilation(TypedDict):
    on_tpu: Count
    on_cpu: Count
    on_chip_bytes: Count
    streamed_bytes: Count
    subgraphs: Count
    cpu_operators: dict[Text, Text]


class _EdgeTpu(TypedDict):
    operators: dict[Text, Count]
    problems: list[Text]
    note: Text
    compilation: _Compilation | None


class _Images(TypedDict):
    name: Text
    test_sha256: Text


class _Golden(TypedDict):
    input: Text
    output: Text
    labels: Annotated[list[Count], Len(1, 1000)]
    top1: Annotated[list[Count], Len(1, 1000)]


class _Try(TypedDict):
    remedy: Literal["none", "calibration", "clipping", "biases", "training"]
    detail: Text
    accuracy: Annotated[float, Ge(0), Le(1)]
    accuracy_drop: Annotated[float, Ge(-1), Le(1)]
    top1_agreement: Annotated[float, Ge(0), Le(1)]
    seconds: Amount


class _Int8(TypedDict):
    asked: Text
    held_out_images: Count
    float_accuracy: Annotated[float, Ge(0), Le(1)] | None
    max_drop: Annotated[float, Ge(0), Le(1)]
    tries: Annotated[list[_Try], Len(0, 100)]
    chosen: Count | None
    weights: Text
    note: Text | None


class _LeftOut(TypedDict):
    file: Text
    format: Text
    problem: Text


class Export(TypedDict):
    """export/export.json. `files`: the sha256 of each file that belongs to the export."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    weights_sha256: Text
    lowering_version: int
    calibration_images: Positive
    dataset: _Images
    models: Annotated[list[_Model], Len(1, 100)]
    left_out: NotRequired[Annotated[list[_LeftOut], Len(0, 100)]]
    int8: NotRequired[_Int8 | None]
    edgetpu: _EdgeTpu | None
    golden: _Golden
    versions: dict[Text, Text]
    files: dict[Text, Text]


class _ImageCounts(TypedDict):
    train: Positive
    validation: Count
    test: Positive


class _Photos(TypedDict):
    """Of edgenas.data.split.Split.record."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    classes: Annotated[list[dict[Text, Any]], Len(2, 100_000)]
    images: _ImageCounts


class AutoRecord(TypedDict):
    """auto.json; `request` is checked apart."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    schema_version: int
    created: Text
    request: dict[Text, Any]
    output: Word
    photos: _Photos
    teacher_s: NotRequired[Amount]
    done: dict[Literal["stock", "search", "teacher", "train", "baseline", "package"], dict[Text, Any]]
    epochs: dict[Literal["stock", "train", "baseline"], Positive]
    notes: list[Text]
