"""From a torch module to a graph, in one run of its `forward` under torch.fx's tracer.

What depends on the input is a proxy that knows its shape, and every call on one appends operations to the graph at
once; no torch.fx graph is built and the network is not run. What does not depend on the input is computed by torch
itself on the way, so constants fold exactly: a convolution of zeros, for instance, becomes what its batch norm adds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgenas.errors import EdgeNASError, ExportError
from edgenas.lower.builder import Builder
from edgenas.lower.graph import Array, Graph, Value
from edgenas.lower.operators import FUNCTIONS, constant_graph
from edgenas.lower.passes import simplify

_ONE_AT_A_TIME = threading.Lock()  # torch.fx puts its own in place of what all modules share while it traces


def trace(module: nn.Module, example: Tensor) -> Graph:
    """The simplified graph of `module`; see edgenas.lower.lower."""
    if not isinstance(module, nn.Module) or not isinstance(example, Tensor):
        raise ExportError("only a torch module with an example tensor can be exported; give both")
    if example.dim() != 4 or 0 in example.shape:
        raise ExportError(f"the example has shape {list(example.shape)}; give one image batch [batch, channels, h, w]")
    training = [name for name, part in module.named_modules() if part.training]
    if training:
        raise ExportError(
            f"'{training[0] or 'the network'}' is in training mode; call module.eval() before exporting it"
        )
    tracer = _Tracer(Builder(tuple(example.shape)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what torch computes here is too small to share, and waking threads costs more
    try:
        with torch.no_grad(), _ONE_AT_A_TIME:
            tracer.trace(module)
    except EdgeNASError:
        raise
    except Exception as error:  # whatever a stranger's forward makes of a proxy
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ExportError(
            f"the module cannot be traced by torch.fx at '{tracer.failed_at or 'the network itself'}' ({reason});"
            " remove what depends on the data there"
        ) from error
    finally:
        torch.set_num_threads(threads)
    return simplify(tracer.result())


def torch_logits(module: nn.Module, images: Array, batch: int = 64) -> Array:
    """What `module` itself makes of `images` float32 [n, channels, h, w], on the CPU: float32 [n, classes]."""
    with torch.inference_mode():
        parts = [module(torch.from_numpy(images[i : i + batch])).numpy() for i in range(0, len(images), batch)]
    return np.concatenate(parts)


class _Traced(fx.Proxy):
    """A tensor that depends on the input; its shape is as good as a real one's, so code may branch on it."""

    def __init__(self, value: Value, tracer: _Tracer) -> None:
        self.value = value
        self.tracer = tracer
        self.node = value  # type: ignore[assignment]  # fx wants something with a name

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return len(self.value.shape)

    def numel(self) -> int:
        return int(self.shape.numel())

    ndim = property(dim)
    shape = property(lambda self: torch.Size(self.value.shape))
    dtype = property(lambda self: torch.float32)
    device = property(lambda self: torch.device("cpu"))
    is_cuda = requires_grad = property(lambda self: False)


class _Tracer(fx.Tracer):
    """torch.fx's tracer, whose hooks build our graph instead of its own."""

    def __init__(self, builder: Builder) -> None:
        super().__init__()
        self.builder = builder
        self.returned: object = None
        self.failed_at: str | None = None  # the innermost module that an exception has left
        self._has_input = False
        self._thread = threading.get_ident()

    def result(self) -> Graph:
        if isinstance(self.returned, _Traced):
            if self.returned.value is self.builder.input:
                raise ExportError("the module returns its input as it is; there is nothing to export")
            return self.builder.graph(self.returned.value)
        if isinstance(self.returned, Tensor):
            return constant_graph(self.builder, self._array(self.returned))
        raise ExportError(f"the module returns a {type(self.returned).__name__}; make it return one tensor")

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val

    def create_arg(self, a: Any) -> Any:
        return a

    def create_node(self, kind: str, target: Any, args: Any, *rest: Any, **options: Any) -> Any:  # the output only
        self.returned = args[0]

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **options: Any) -> Any:
        if kind == "placeholder":
            return self._argument(target, args)
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        home = str(getattr(target, "__module__", None) or "torch").split(".")[0]
        function = FUNCTIONS.get(name) if kind == "call_method" or home in ("torch", "_operator") else None
        if function is None:
            raise self.builder.refuse(f"the operation '{name}'")
        return self._apply(function, name, args, kwargs)

    def _argument(self, name: str, default: tuple[Any, ...]) -> Any:
        if not self._has_input:
            self._has_input = True
            return _Traced(self.builder.input, self)
        if default:
            return default[0]
        raise ExportError(f"the module takes a second input '{name}'; wrap it in a module of one input")

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self._thread:  # what other threads run is called through here too
            return forward(*args, **kwargs)
        outer = self.builder.place
        self.builder.place = self.path_of_module(m)
        try:
            traced = any(isinstance(a, _Traced) for a in (*args, *kwargs.values()))
            lowering = _lowering(m) if traced else None
            if lowering is None:
                if traced and m.__module__.startswith("torch.nn") and not isinstance(m, nn.Sequential):
                    raise self.builder.refuse(f"the module {type(m).__name__}")
                return forward(*args, **kwargs)
            if m._forward_hooks or m._forward_pre_hooks:
                raise self.builder.refuse(f"the module {type(m).__name__} with forward hooks")
            name, arguments = lowering(m)
            return self._apply(FUNCTIONS[name], type(m).__name__, (*args, *arguments), kwargs)
        except Exception:
            self.failed_at = self.failed_at or self.builder.place
            raise
        finally:
            self.builder.place = outer

    def _apply(self, function: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
        plain, options = self._unwrap(args), self._unwrap(kwargs)
        try:
            result = function(self.builder, *plain, **options)
        except (TypeError, ValueError, IndexError, AttributeError) as error:  # arguments it does not know
            raise self.builder.refuse(f"'{name}' with such arguments ({error})") from error
        if isinstance(result, Value):
            return _Traced(result, self)
        return torch.from_numpy(result) if isinstance(result, np.ndarray) else result

    def _unwrap(self, argument: Any) -> Any:
        if isinstance(argument, _Traced):
            return argument.value
        if isinstance(argument, Tensor):
            return self._array(argument)
        if isinstance(argument, dict):
            return {key: self._unwrap(part) for key, part in argument.items()}
        if type(argument) in (tuple, list) and any(type(part) is not int for part in argument):
            return type(argument)([self._unwrap(part) for part in argument])
        return argument

    def _array(self, tensor: Tensor) -> Array:
        if tensor.dtype != torch.float32:
            raise self.builder.refuse(f"a weight of type {tensor.dtype} (call module.float())")
        array: Array = tensor.detach().cpu().numpy()
        if not np.isfinite(array).all():
            raise self.builder.refuse("a weight that is NaN or infinite")
        return array


Arguments = tuple[str, tuple[Any, ...]]  # a name in FUNCTIONS, and what follows the input


def _conv(m: nn.Conv2d) -> Arguments:
    return "conv2d", (m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups, m.padding_mode)


def _norm(m: nn.BatchNorm2d) -> Arguments:
    return "batch_norm", (m.running_mean, m.running_var, m.weight, m.bias, False, 0.1, m.eps)


def _average(m: nn.AvgPool2d) -> Arguments:
    return "avg_pool2d", (m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override)


def _max(m: nn.MaxPool2d) -> Arguments:
    return "max_pool2d", (m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices)


def _plain(name: str) -> Callable[[Any], Arguments]:
    return lambda m: (name, ())


_MODULES: dict[type[nn.Module], Callable[[Any], Arguments]] = {
    nn.Conv2d: _conv,
    nn.BatchNorm1d: _norm,
    nn.BatchNorm2d: _norm,
    nn.Linear: lambda m: ("linear", (m.weight, m.bias)),
    nn.ReLU: _plain("relu"),
    nn.ReLU6: _plain("relu6"),
    nn.Hardswish: _plain("hardswish"),
    nn.Hardsigmoid: _plain("hardsigmoid"),
    nn.Sigmoid: _plain("sigmoid"),
    nn.SiLU: _plain("silu"),
    nn.Softmax: lambda m: ("softmax", (m.dim,)),
    nn.AvgPool2d: _average,
    nn.MaxPool2d: _max,
    nn.AdaptiveAvgPool2d: lambda m: ("adaptive_avg_pool2d", (m.output_size,)),
    nn.AdaptiveMaxPool2d: lambda m: ("adaptive_max_pool2d", (m.output_size, m.return_indices)),
    nn.ZeroPad2d: lambda m: ("pad", (m.padding,)),
    nn.ConstantPad2d: lambda m: ("pad", (m.padding, "constant", m.value)),
    nn.Flatten: lambda m: ("flatten", (m.start_dim, m.end_dim)),
    nn.Identity: _plain("clone"),
    nn.Dropout: _plain("clone"),
    nn.Dropout2d: _plain("clone"),
}


def _lowering(m: nn.Module) -> Callable[[Any], Arguments] | None:
    """How to lower `m`: by its class, or by one it inherits `forward` from unchanged."""
    found = _MODULES.get(type(m))
    if found is not None:
        return found
    for kind in type(m).__mro__[1:]:
        if kind in _MODULES and type(m).forward is kind.forward:
            return _MODULES[kind]
    return None
