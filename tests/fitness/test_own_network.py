"""A reference network of the user's own: what its maps are, and which files, taps and shapes are refused."""

from __future__ import annotations

import io
import json
import pickle
import random
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.data.torch_program import TorchProgram, is_program, read_program
from edgenas.errors import DataError, UsageError
from edgenas.fitness.loaded_network import MEAN, STD, LoadedNetwork
from edgenas.fitness.own_network import OwnNetwork
from tests.fitness.own_networks import FIVE, TAPS, Net, hooked, network, write
from tests.spaces.checkpoints import Evil

KINDS = {"script": "net.pt", "trace": "net.pt", "any": "net.pt2", "fixed": "net.pt2"}
every_kind = pytest.mark.parametrize("kind", KINDS)


def loaded(path: Path, taps: Sequence[str]) -> LoadedNetwork:
    """In this process."""
    return LoadedNetwork(read_program(path), str(path), taps)


def scaled(count: int = 5, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def normalised(images: Tensor) -> Tensor:
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@every_kind
def test_maps_are_those_that_hooks_see(kind: str, tmp_path: Path) -> None:
    made = network()
    own = loaded(write(made, tmp_path / KINDS[kind], kind), TAPS)
    images = scaled()
    for found, wanted in zip(own.maps(images), hooked(made, normalised(images), TAPS), strict=True):
        assert torch.allclose(found, wanted, atol=1e-5)
    assert all(torch.equal(*pair) for pair in zip(own.maps(images), own.maps(images), strict=True)), "and again"


def test_one_for_a_fixed_shape_gets_its_resolution_and_its_batch_size(tmp_path: Path) -> None:
    made = network()
    own = loaded(write(made, tmp_path / "net.pt2", "fixed", (2, 3, 24, 24)), FIVE)
    images = scaled(5, 40)
    small = F.interpolate(images, (24, 24), mode="bilinear", antialias=True, align_corners=False)
    for found, wanted in zip(own.maps(images), hooked(made, normalised(small), FIVE), strict=True):
        assert found.shape == wanted.shape
        assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["script", "trace", "any"])
def test_others_see_images_as_they_come(kind: str, tmp_path: Path) -> None:
    own = loaded(write(network(), tmp_path / KINDS[kind], kind), FIVE)
    assert [list(each.shape[2:]) for each in own.maps(scaled(3, 64))] == [[32, 32]] * 3 + [[16, 16]] * 2


def test_values_of_an_exported_graph_are_taps_too(tmp_path: Path) -> None:
    path = write(network(), tmp_path / "net.pt2", "any")
    by_module, by_value = loaded(path, ["more.1"]), loaded(path, ["relu__5"])
    assert torch.equal(by_module.maps(scaled())[0], by_value.maps(scaled())[0])


@pytest.mark.parametrize("kind", ["script", "any"])
def test_it_is_a_reference_computed_in_a_process_of_its_own(kind: str, tmp_path: Path) -> None:
    made = network()
    path = write(made, tmp_path / KINDS[kind], kind)
    own = OwnNetwork(path, FIVE)
    assert (own.taps, own.source) == (5, f"{path} at stem, features.0, features.1, features, more.1")
    for one, other in zip(own.maps(scaled()), loaded(path, FIVE).maps(scaled()), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    with pytest.raises(UsageError, match="has no layer 'feature' for --taps; the nearest are features"):
        OwnNetwork(path, ["feature"])


def test_the_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    made, path = network(), tmp_path / "net.pt2"
    own = OwnNetwork(write(made, path, "any"), FIVE)
    path = path.rename(tmp_path / "other.pt2")
    assert OwnNetwork(path, FIVE).fingerprint() == own.fingerprint()
    assert OwnNetwork(path, FIVE[:4]).fingerprint() != own.fingerprint()
    with torch.no_grad():
        made.fc.bias += 1
    assert OwnNetwork(write(made, path, "any"), FIVE).fingerprint() != own.fingerprint()
    with pytest.raises(UsageError, match="which is no map"):
        OwnNetwork(path, ["fc"]).maps(scaled())


def test_a_file_that_crashes_torch_ends_that_process_alone(tmp_path: Path) -> None:
    path = write(network(), tmp_path / "net.pt", "script")
    rewritten(path, lambda name, part: part[:32] if re.fullmatch(r"data/\d+", name) else part)
    with pytest.raises((DataError, UsageError), match=r"net\.pt") as error:
        OwnNetwork(path, FIVE).maps(scaled())
    assert "\n" not in str(error.value)


@every_kind
def test_taps_that_do_not_exist_are_told_with_near_ones(kind: str, tmp_path: Path) -> None:
    path = write(network(), tmp_path / KINDS[kind], kind)
    with pytest.raises(UsageError, match=r"has no layer 'feature' for --taps; the nearest are features") as error:
        loaded(path, ["stem", "feature"])
    assert error.value.exit_code == 2
    with pytest.raises(UsageError, match=r"no layer 'zz\\u202e' for --taps"):
        loaded(path, ["zz\u202e"])


class Odd(Net):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.more[0](self.stem(x).repeat(2, 2, 1, 1)) / 0.0
        return out


@every_kind
def test_what_is_no_map_is_refused(kind: str, tmp_path: Path) -> None:
    path = write(network(), tmp_path / KINDS[kind], kind)
    with pytest.raises(UsageError, match=r"gives \[\d+, 10\] at 'fc', which is no map .* by --taps"):
        loaded(path, ["stem", "fc"]).maps(scaled())


@pytest.mark.parametrize("kind", ["script", "any"])
def test_another_batch_size_than_that_of_the_images_is_refused(kind: str, tmp_path: Path) -> None:
    path = write(network(Odd), tmp_path / KINDS[kind], kind)
    with pytest.raises(UsageError, match=r"gives 10 maps for 5 images at 'more\.0'; export it for any batch size"):
        loaded(path, ["more.0"]).maps(scaled())


class Viewed(nn.Module):
    """A trace of it keeps the batch size that it was made with."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        out: Tensor = self.last(torch.flip(y, [1]).reshape(int(x.shape[0]), 4, 30, 30) + 0)
        return out


def test_a_network_that_cannot_compute_the_images_is_told(tmp_path: Path) -> None:
    own = loaded(write(Viewed(), tmp_path / "net.pt", "trace"), ["last"])
    assert own.maps(scaled(2))[0].shape == (2, 4, 30, 30)
    with pytest.raises(
        UsageError, match=r"cannot compute 5 images of 64 x 64 pixels \(.*\); export it for any"
    ) as error:
        own.maps(scaled(5, 64))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["script", "any"])
def test_numbers_that_are_not_finite_are_told(kind: str, tmp_path: Path) -> None:
    made = network()
    made.stem[0].weight.data.fill_(torch.nan)
    with pytest.raises(UsageError, match="numbers that are not finite at 'stem'"):
        loaded(write(made, tmp_path / KINDS[kind], kind), FIVE).maps(scaled())


class Conditional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.unused = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] > 3:
            x = self.conv(x)
        return x


@pytest.mark.parametrize(("tap", "says"), [("conv", "under a condition only"), ("unused", "is not called")])
def test_a_module_that_is_not_always_called_is_told(tap: str, says: str, tmp_path: Path) -> None:
    own = loaded(write(Conditional(), tmp_path / "net.pt", "script"), [tap])
    with pytest.raises(UsageError, match=says):
        own.maps(scaled())


@every_kind
def test_batches_that_do_not_fit_are_halved(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = loaded(write(network(), tmp_path / KINDS[kind], kind), FIVE)
    images, inner, counts = scaled(7), own._network.maps, []
    whole = own.maps(images)

    def short(images: Tensor, taps: Any) -> list[Tensor]:
        counts.append(len(images))
        if len(images) > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 1 bytes")
        return inner(images, taps)

    monkeypatch.setattr(own._network, "maps", short)
    for one, other in zip(own.maps(images), whole, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert counts == ([2, 2, 2, 2] if kind == "fixed" else [7, 4, 2, 2, 3, 2, 1])

    def never(images: Tensor, taps: Any) -> list[Tensor]:
        raise MemoryError

    monkeypatch.setattr(own._network, "maps", never)
    with pytest.raises(UsageError, match=r"too little memory to compute [12] images? by the reference"):
        own.maps(images)


# Files that are not to be trusted.


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            changed = change(name.partition("/")[2], part)
            if changed is not None:
                archive.writestr(name, changed)


def pickled(evil: Any) -> bytes:
    content = io.BytesIO()
    torch.save(evil, content)
    return content.getvalue()


def test_pickles_in_an_exported_network_are_not_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(network(), tmp_path / "net.pt2", "any")
    before = loaded(path, FIVE).maps(scaled())
    rewritten(path, lambda name, part: pickled(Evil()) if "sample_inputs" in name else part)
    for one, other in zip(loaded(path, FIVE).maps(scaled()), before, strict=True):
        assert torch.equal(one, other), "they are not needed"

    def as_pickle(name: str, part: bytes) -> bytes:
        if name.endswith("weights_config.json"):
            config = json.loads(part)
            for each in config["config"].values():
                each["use_pickle"] = True
            return json.dumps(config).encode()
        return pickled(Evil()) if re.search(r"weight_\d+$", name) else part

    rewritten(path, as_pickle)
    with pytest.raises(DataError, match="pickles among its weights, and nothing of it was run") as error:
        loaded(path, FIVE)
    assert error.value.exit_code == 7
    assert "it ran" not in "".join(capfd.readouterr())


def in_model(change: Callable[[dict[str, Any]], None]) -> Callable[[str, bytes], bytes]:
    def changed(name: str, part: bytes) -> bytes:
        if name != "models/model.json":
            return part
        model = json.loads(part)
        change(model)
        return json.dumps(model).encode()

    return changed


def target(text: str) -> Callable[[dict[str, Any]], None]:
    return lambda model: model["graph_module"]["graph"]["nodes"][0].update(target=text)


@pytest.mark.parametrize(
    "text",
    [
        *("torch.ops.aten.from_file.default", "torch.ops.aten.save.default", "torch.load", "torch.hub.load"),
        *("torch.ops.aten.__class__.mro", "torch.ops.aten.conv2d.__init__", "torch.ops.load_library", "_operator.call"),
        *("_operator.attrgetter", "math.__loader__.exec_module", "torch.ops.higher_order.cond", "os.system", "#x", ""),
        *("torch.ops.mine.tensors.default", "torch.ops.aten.no_such_operator.default"),
    ],
)
def test_an_exported_network_calls_operators_alone(text: str, tmp_path: Path) -> None:
    path = write(network(), tmp_path / "net.pt2", "any")
    rewritten(path, in_model(target(text)))
    with pytest.raises(DataError, match=r"cannot be a reference \(it "):
        loaded(path, FIVE)


def test_conditions_in_an_exported_network_are_not_run(tmp_path: Path) -> None:
    path, ran = write(network(), tmp_path / "net.pt2", "any"), tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(ran)!r}).touch() or True"

    def everywhere(model: dict[str, Any]) -> None:
        model["guards_code"] = [code]
        for each in model["graph_module"]["graph"]["tensor_values"].values():
            each["sizes"][:1] = [{"as_expr": {"expr_str": code, "hint": {"as_int": 2}}}]

    rewritten(path, in_model(everywhere))
    loaded(path, FIVE).maps(scaled())
    assert not ran.exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda model: model["schema_version"].update(major=99), "in a format that is not read here"),
        (lambda model: model.pop("graph_module"), "not as torch.export writes networks"),
        (lambda model: model["graph_module"]["graph"].update(nodes=7), "not as torch.export writes networks"),
        (lambda model: model["graph_module"]["signature"].update(input_specs=[]), "it has 0 inputs"),
        (lambda model: model["graph_module"]["graph"]["tensor_values"]["x"].update(sizes=[]), "no batch of images"),
        (lambda model: model["graph_module"]["graph"]["nodes"][0]["inputs"].pop(0), "cannot compute"),
        (
            lambda model: model["graph_module"]["graph"]["nodes"][0]["inputs"][0].update(arg={"as_graph": {}}),
            "an argument of the kind as_graph",
        ),
    ],
)
def test_a_graph_of_another_kind_is_told(change: Any, says: str, tmp_path: Path) -> None:
    path = write(network(), tmp_path / "net.pt2", "any")
    rewritten(path, in_model(change))
    with pytest.raises((DataError, UsageError), match=says):
        loaded(path, FIVE).maps(scaled())


def test_a_network_in_training_mode_is_told(tmp_path: Path) -> None:
    path = write(network().train(), tmp_path / "net.pt2", "any")
    with pytest.raises(DataError, match="it was exported in training mode"):
        loaded(path, FIVE)


class Saving(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "ran")
        out: Tensor = self.conv(x)
        return out


class Restoring(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.training = nn.Conv2d(3, 3, 3), False

    @torch.jit.export
    def __getstate__(self) -> tuple[bool, bool]:
        return self.training, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[bool, bool]) -> None:
        self.training = state[0]

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(("kind", "what"), [(Saving, "save"), (Restoring, "__[gs]etstate__")])
def test_code_that_writes_files_or_runs_while_loading_is_refused(
    kind: type[nn.Module], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(kind(), tmp_path / "net.pt", "script")
    with pytest.raises(DataError, match=rf"its code has {what}, which a network does not need, and was not run"):
        loaded(path, ["conv"])
    assert not Path("ran").exists()


def test_operators_of_other_libraries_are_refused(tmp_path: Path) -> None:
    path = write(network(), tmp_path / "net.pt", "script")
    rewritten(path, lambda name, part: part.replace(b"torch.relu_", b"ops.theirs.relu_"))
    with pytest.raises(DataError, match="operators of theirs, which a network does not need"):
        loaded(path, FIVE)


def computed_or_told(path: Path) -> None:
    said = str(path)
    try:
        loaded(path, FIVE).maps(scaled(2))
    except (DataError, UsageError) as error:
        said = str(error)
    assert str(path) in said
    assert "\n" not in said


@every_kind
def test_damage_is_told(kind: str, tmp_path: Path) -> None:
    path = write(network(), tmp_path / KINDS[kind], kind)
    content, rng = path.read_bytes(), random.Random(0)
    for count in range(24):
        damaged = bytearray(content)
        if count % 3:
            for _ in range(rng.choice((1, 3, 30))):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        else:
            damaged = damaged[: rng.randrange(len(damaged))]
        path.write_bytes(damaged)
        computed_or_told(path)
    for empty in (b"", b"PK\3\4", pickle.dumps(Evil())):
        path.write_bytes(empty)
        assert not is_program(path)
        with pytest.raises(DataError, match="is no network that can be read"):
            read_program(path)


@pytest.mark.parametrize("kind", ["script", "any"])
def test_parts_changed_one_by_one_are_told(kind: str, tmp_path: Path) -> None:
    """Checksums agree, as in a file that somebody made on purpose."""
    path = write(network(), tmp_path / KINDS[kind], kind)
    content, rng = path.read_bytes(), random.Random(1)
    names = zipfile.ZipFile(path).namelist()
    for name in names:
        if kind == "script" and not name.endswith(".py"):
            continue  # they can crash torch
        for how in ("gone", "empty", "cut", "changed"):
            path.write_bytes(content)

            def change(part: str, data: bytes, name: str = name, how: str = how) -> bytes | None:
                if part != name.partition("/")[2]:
                    return data
                if how == "changed" and data:
                    where = rng.randrange(len(data))
                    return data[:where] + bytes([data[where] ^ 0x15]) + data[where + 1 :]
                return {"gone": None, "empty": b"", "cut": data[: len(data) // 2], "changed": data}[how]

            rewritten(path, change)
            computed_or_told(path)


def test_archives_that_are_too_large_or_have_parts_twice_are_refused(tmp_path: Path) -> None:
    path = write(network(), tmp_path / "net.pt2", "any")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(next(name for name in archive.namelist() if name.endswith("model.json")), b"{}")
    with pytest.raises(DataError, match="not named as torch names them"):
        read_program(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/models/model.json", b"0" * (1 << 20))
    with pytest.raises(DataError, match="what it holds is too large"):
        read_program(path, max_bytes=1 << 19)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("serialized_exported_program.json", b"{}")
    assert is_program(path)
    with pytest.raises(DataError, match="an old version of torch wrote it"):
        read_program(path)


def test_a_network_larger_than_any_is_refused(tmp_path: Path) -> None:
    path = write(network(), tmp_path / "net.pt2", "any")
    with pytest.raises(DataError, match=r"net\.pt2 is larger than the 4,096 bytes that such a file may have; give a"):
        read_program(path, max_bytes=1 << 12)


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in JSON, from the outside in."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*above, key)
        yield from places(each, (*above, key))


ODD_VALUES: tuple[Any, ...] = (
    None,
    0,
    -1,
    10**9,
    2**63 - 1,
    1.5,
    "",
    [],
    {},
    "x",
    True,
    [1],
    {"name": "conv2d"},
    {"as_int": -5},
)


def test_graphs_with_anything_anywhere_are_computed_or_told(tmp_path: Path) -> None:
    program = read_program(write(network(), tmp_path / "net.pt2", "any"))
    files = ("models/model.json", "data/weights/model_weights_config.json")
    known = {name: list(places(json.loads(program.parts[name]))) for name in files}
    rng, refused = random.Random(0), 0
    for _ in range(120):
        name = rng.choice(files)
        content = json.loads(program.parts[name])
        *above, last = rng.choice(known[name])
        holder = content
        for key in above:
            holder = holder[key]
        holder[last] = rng.choice(ODD_VALUES)
        changed = TorchProgram("export", {**program.parts, name: json.dumps(content).encode()})
        try:
            LoadedNetwork(changed, "a network", FIVE).maps(scaled(2))
        except (DataError, UsageError):
            refused += 1
    assert 20 < refused < 120
