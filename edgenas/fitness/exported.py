"""Networks that torch.export wrote, computed up to where feature maps are taken.

The graph in such a file is a list of torch's operators with their arguments, so it is gone through here, one operator
after another: what torch.export.load would do besides (edgenas.data.torch_program) is not needed for that.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from edgenas.data.torch_program import MAX_PROGRAM_BYTES
from edgenas.text import parse_json

_SCHEMA = 8  # of the format, as torch 2.5 to 2.13 write it
_DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
_MEMORY = {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}
_READING = {"save", "from_file"}  # files
_ARITHMETIC = (
    *("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pow", "getitem"),
    *("eq", "ne", "lt", "gt", "le", "ge", "and_", "or_", "not_"),
)
_PYTHON = {
    "_operator": (operator, _ARITHMETIC),
    "math": (math, ("ceil", "floor", "trunc", "sqrt")),
    "torch": (torch, ("sym_int", "sym_float", "sym_max", "sym_min", "sym_not", "sym_ite")),
}


class Exported:
    """`parts`: those of the archive. `names`: where maps can be taken, modules and values of the graph; `batch` and
    `size` (height, width): those that it was exported for, None where any will do.

    Raises ValueError where it is not what torch.export writes, takes anything but one batch of images or uses anything
    but torch's operators.
    """

    def __init__(self, parts: Mapping[str, bytes]) -> None:
        try:
            self._read(parts)
        except (KeyError, TypeError, AttributeError, IndexError, StopIteration, RuntimeError) as error:
            raise ValueError("it is not as torch.export writes networks") from error

    def _read(self, parts: Mapping[str, bytes]) -> None:
        program = parse_json(parts["models/model.json"])
        if program["schema_version"]["major"] != _SCHEMA:
            raise ValueError(f"torch {program.get('torch_version', '')} wrote it in a format that is not read here")
        graph = program["graph_module"]["graph"]
        self._values: dict[str, Tensor] = {}
        weights, constants = _tensors(parts, "weights"), _tensors(parts, "constants")
        inputs = []
        for spec in program["graph_module"]["signature"]["input_specs"]:
            kind, what = next(iter(spec.items()))
            if kind == "user_input":
                inputs.append(what["arg"]["as_tensor"]["name"])
            elif kind == "parameter":
                self._values[what["arg"]["name"]] = weights[what["parameter_name"]]
            elif kind == "buffer":
                held = weights if what["buffer_name"] in weights else constants
                self._values[what["arg"]["name"]] = held[what["buffer_name"]]
            elif kind == "tensor_constant":
                self._values[what["arg"]["name"]] = constants[what["tensor_constant_name"]]
            else:
                raise ValueError(f"it has an input of the kind {kind}")
        if len(inputs) != 1:
            raise ValueError(f"it has {len(inputs)} inputs, and images are one")
        (self._input,) = inputs
        sizes = [each.get("as_int") for each in graph["tensor_values"][self._input]["sizes"]]
        if len(sizes) != 4 or sizes[1] not in (3, None):
            raise ValueError("its input is no batch of images [batch, 3, height, width]")
        self.batch: int | None = sizes[0]
        self.size: tuple[int, int] | None = None if None in sizes[2:] else (sizes[2], sizes[3])
        self._nodes = [_Node(each) for each in graph["nodes"]]
        self._taps = self._found_taps([each["as_tensor"]["name"] for each in graph["outputs"] if "as_tensor" in each])
        self.names: Sequence[str] = tuple(self._taps)

    def _found_taps(self, outputs: Sequence[str]) -> dict[str, str]:
        """Modules, first those that come first, and values -> the value that is taken there. A module's is the last
        that is used outside it."""
        made_in = {name: node.modules for node in self._nodes for name in node.outputs}
        users: dict[str, list[Sequence[str]]] = {name: [] for name in made_in}
        for node in self._nodes:
            for name in node.inputs:
                users.get(name, []).append(node.modules)
        for name in outputs:
            users.get(name, []).append(())
        modules: dict[str, str] = {}
        for name, path in made_in.items():
            for module in path:
                if any(module not in user for user in users[name]):
                    modules[module] = name
        return {name: name for name in made_in} | modules

    def maps(self, images: Tensor, taps: Sequence[str]) -> list[Tensor]:
        """What there is at `taps`, of `names`. Raises ValueError where an operator cannot be computed, RuntimeError
        what torch raises."""
        wanted = [self._taps[tap] for tap in taps]
        last = max(number for number, node in enumerate(self._nodes) if set(node.outputs) & set(wanted))
        nodes = self._nodes[: last + 1]
        until = {name: number for number, node in enumerate(nodes) for name in node.inputs}
        values: dict[str, Any] = {**self._values, self._input: images}
        found: dict[str, Tensor] = {}
        for number, node in enumerate(nodes):
            for name, value in node(values):
                values[name] = value
                if name in wanted:
                    # What follows may work in place.
                    found[name] = value.clone() if isinstance(value, Tensor) else value
            for name in node.inputs:
                if until[name] == number:
                    values.pop(name, None)
        return [found[name] for name in wanted]


class _Node:
    """One operator: the modules that it is in, the values that it reads and those that it makes."""

    def __init__(self, node: Mapping[str, Any]) -> None:
        self._target = node["target"]
        self._call = _operator_of(self._target)
        self._arguments = [(each["name"], each["arg"]) for each in node["inputs"]]
        self._made = node["outputs"]
        self.inputs = [name for _, argument in self._arguments for name in _names(argument)]
        self.outputs = [name for each in self._made for name in _names(each)]
        if any(name in ("train", "training") and argument.get("as_bool") for name, argument in self._arguments):
            raise ValueError("it was exported in training mode")
        stack = node["metadata"].get("nn_module_stack", "")
        self.modules = [each.split(",")[1] for each in stack.split(";") if each.count(",") and each.split(",")[1]]

    def __call__(self, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """The names and values of what it makes."""
        unnamed = [_argument(argument, values) for name, argument in self._arguments if not name]
        named = {name: _argument(argument, values) for name, argument in self._arguments if name}
        made = self._call(*unnamed, **named)
        for output, value in zip(self._made, (made,) if len(self._made) == 1 else made, strict=True):
            kind, what = next(iter(output.items()))
            if kind == "as_none":
                continue
            names = list(_names(output))
            yield from zip(names, value if isinstance(what, list) else (value,), strict=True)


def _operator_of(target: str) -> Any:
    """The function called `target`. Raises ValueError for one that a network does not need."""
    room, *path = target.split(".")
    if room == "torch" and path[:2] == ["ops", "aten"] and len(path) == 4 and path[2] not in _READING:
        if re.fullmatch(r"[a-z]\w*|_[a-z]\w*", path[2]) and re.fullmatch(r"[A-Za-z]\w*", path[3]):
            return getattr(getattr(torch.ops.aten, path[2]), path[3])
    elif room in _PYTHON and len(path) == 1 and path[0] in _PYTHON[room][1]:
        return getattr(_PYTHON[room][0], path[0])
    raise ValueError(f"it uses {target}, which is none of torch's own operators on tensors")


def _names(argument: Mapping[str, Any]) -> Iterator[str]:
    """Of the values that `argument` is made of."""
    for each in argument.values():
        for part in each if isinstance(each, list) else [each]:
            if isinstance(part, dict):
                name = part.get("name") or part.get("as_name")
                if isinstance(name, str):
                    yield name
                else:
                    yield from _names(part)


def _argument(argument: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """The value of `argument`, which names its kind. Raises ValueError for a kind that is not known."""
    kind, what = next(iter(argument.items()))
    if kind == "as_none":
        return None
    if kind in ("as_int", "as_bool", "as_string", "as_ints", "as_bools", "as_strings"):
        return what
    if kind in ("as_float", "as_floats"):
        return [float(each) for each in what] if isinstance(what, list) else float(what)
    if kind in ("as_tensor", "as_tensors"):
        return [values[each["name"]] for each in what] if isinstance(what, list) else values[what["name"]]
    if kind == "as_name":
        return values[what]
    if kind in ("as_optional_tensor", "as_sym_int", "as_sym_bool", "as_sym_float"):
        return _argument(what, values)
    if kind in ("as_optional_tensors", "as_sym_ints", "as_sym_bools", "as_sym_floats"):
        return [_argument(each, values) for each in what]
    if kind == "as_scalar_type":
        return _DTYPES[what]
    if kind == "as_memory_format":
        return _MEMORY[what]
    if kind == "as_layout":
        return torch.strided
    if kind == "as_device":
        return torch.device("cpu")
    raise ValueError(f"it has an argument of the kind {kind}")


def _tensors(parts: Mapping[str, bytes], kind: str) -> dict[str, Tensor]:
    """The `kind`, weights or constants, by their names in the network. Raises ValueError for what is no tensor."""
    config = parts.get(f"data/{kind}/model_{kind}_config.json")
    found = {}
    for name, each in ({} if config is None else parse_json(config)["config"]).items():
        content, like = parts.get(f"data/{kind}/{each['path_name']}"), each["tensor_meta"]
        if each["use_pickle"] or like is None or content is None:
            raise ValueError(f"it holds pickles among its {kind}, and nothing of it was run")
        dtype = _DTYPES[like["dtype"]]
        sizes, strides = ([part["as_int"] for part in like[of]] for of in ("sizes", "strides"))
        if min([0, *sizes, *strides]) < 0 or math.prod(sizes) > MAX_PROGRAM_BYTES:
            raise ValueError(f"its {kind} have no valid shape")
        raw = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)
        found[name] = raw.as_strided(sizes, strides, like["storage_offset"]["as_int"])
    return found
