"""What a module computes of what: the tensors of one run, each with those that it came from.

Operators are seen as torch's functions, and norms as one step each. Nothing is computed where it
can be helped: parameters and inputs are on the meta device, which knows shapes and no numbers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from bnet_mm.kernels.versions import functional_call
from bnet_mm.layers import is_norm

# Kinds of steps. What is none of the others has one tensor in and one of its shape out ('unary'),
# or is 'other'.
INPUT, CONV, NORM, ADD, GATE, SPLIT, JOIN = 'input', 'conv', 'norm', 'add', 'gate', 'split', 'join'
RESIZE, UNARY, OTHER = 'resize', 'unary', 'other'
_BY_NAME = {
    **dict.fromkeys(('conv2d', 'conv_transpose2d', 'linear'), CONV),
    **dict.fromkeys(('add', 'add_', '__add__', '__iadd__', '__radd__'), ADD),
    **dict.fromkeys(('mul', 'mul_', '__mul__', '__imul__', '__rmul__', 'multiply'), GATE),
    **dict.fromkeys(('cat', 'concat', 'concatenate'), JOIN),
    **dict.fromkeys(('interpolate', 'pad', 'max_pool2d', 'avg_pool2d', 'pixel_shuffle'), RESIZE),
}
# They make tensors without reading those that they are called on.
_CREATING = ('new_', 'empty', 'zeros', 'ones', 'full', 'rand', 'arange')


@dataclass(eq=False)
class Step:
    """A tensor of a run.

    Attributes:
        kind: one of the above.
        parents: the steps that it was computed from.
        shape: of the tensor.
        module: name of the norm, or of the module in which a convolution was called.
        depthwise: whether a convolution has one input channel for each output.
    """

    kind: str
    parents: list[Step]
    shape: tuple[int, ...]
    module: str = ''
    depthwise: bool = False

    def __iter__(self) -> Iterator[Step]:
        """Yields this step and all that it was computed from, each once."""
        seen, waiting = set(), [self]
        while waiting:
            step = waiting.pop()
            if step not in seen:
                seen.add(step)
                yield step
                waiting += step.parents


@dataclass
class Run:
    """One call of a module.

    Attributes:
        input: the map that it was called with.
        outputs: all tensors that it gave and computed from the input.
    """

    input: Step
    outputs: list[Step]


def record(module: nn.Module, input: Tensor, meta: bool = True) -> Run:
    """Runs `module(input)`, in evaluation mode and without gradients, and returns what it computed.

    Parameters, statistics, hooks and modes of the module stay as they are.

    Args:
        module: any module.
        input: `(N, C, H, W)`.
        meta: whether to run without numbers; a module with operators of its own may need them.

    Raises:
        Exception: of any kind, from the module: it does not take one map.
    """
    recorder = _Recorder(module)
    tensors = {
        name: tensor.detach().to('meta') if meta else tensor.detach().to('cpu', copy=True)
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }
    types = [t.dtype for t in tensors.values() if t.is_floating_point()]
    input = input.to('meta' if meta else 'cpu', types[0] if types else None)
    start = recorder.keep(input, Step(INPUT, [], tuple(input.shape)))
    with _evaluating(module), torch.no_grad(), recorder.hooks(), recorder:
        output = functional_call(module, tensors, (input,))
    found = [recorder.step(t) for t in _tensors(output)]
    return Run(start, [step for step in found if step is not None])


class _Recorder(TorchFunctionMode):
    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        self.steps: dict[int, Step] = {}
        self.kept: list[Tensor] = []  # no other tensor takes their place in memory
        self.stack: list[str] = ['']
        self.inside = 0  # of how many norms the run is

    def keep(self, tensor: Tensor, step: Step) -> Step:
        self.kept.append(tensor)
        self.steps[id(tensor)] = step
        return step

    def step(self, tensor: Tensor) -> Step | None:
        return self.steps.get(id(tensor))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        name = getattr(func, '__name__', '')
        if self.inside or name.startswith(_CREATING):
            return output
        read = [step for t in _tensors((args, kwargs)) if (step := self.step(t)) is not None]
        if name == '__setitem__' and read:
            self.keep(args[0], Step(OTHER, read, tuple(args[0].shape)))
        elif read:
            for tensor in _tensors(output):
                self.keep(tensor, self._step(name, tensor, read, args, kwargs))
        return output

    def _step(self, name: str, tensor: Tensor, read: list[Step], args: Any, kwargs: Any) -> Step:
        kind, shape = _BY_NAME.get(name), tuple(tensor.shape)
        if kind == CONV:
            weight = args[1] if len(args) > 1 else kwargs['weight']
            return Step(CONV, read[:1], shape, self.stack[-1], _is_depthwise(weight))
        if kind in (ADD, GATE):
            # Before torch 2.1 nothing is wrong with shapes in place, where there are no numbers.
            torch.broadcast_shapes(*(step.shape for step in read))
            if len(read) == 1:
                kind = UNARY  # with a number, or a parameter
        if kind is None:
            before = read[0].shape
            narrower = len(shape) == len(before) == 4 and shape[1] < before[1]
            kind = OTHER
            if len(read) == 1 and shape == before:
                kind = UNARY
            elif len(read) == 1 and narrower:
                kind = SPLIT
            elif len(read) == 1 and len(shape) == len(before) == 4 and shape[1] == before[1]:
                kind = RESIZE
        return Step(kind, read, shape)

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Follows the calls of modules while it lasts; other hooks are not called."""
        handles, theirs = [], []
        for name, module in self.module.named_modules():
            theirs.append((module, module._forward_pre_hooks, module._forward_hooks))
            module._forward_pre_hooks, module._forward_hooks = OrderedDict(), OrderedDict()
            enter, leave = self._hooks_of(name, is_norm_like(module))
            handles += [
                module.register_forward_pre_hook(enter),
                module.register_forward_hook(leave),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for module, before, after in theirs:
                module._forward_pre_hooks, module._forward_hooks = before, after

    def _hooks_of(self, name: str, norm: bool) -> tuple[Any, Any]:
        def enter(module: nn.Module, args: Any) -> None:
            self.stack.append(name)
            self.inside += norm

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self.stack.pop()
            self.inside -= norm
            if self.inside:
                return
            read = [step for t in _tensors(args) if (step := self.step(t)) is not None]
            for tensor in _tensors(output):
                if norm and read:
                    self.keep(tensor, Step(NORM, read[:1], tuple(tensor.shape), name))
                elif read and self.step(tensor) is None:
                    # An operator that is no function of torch's, a deformable convolution say.
                    weight = getattr(module, 'weight', None)
                    conv = isinstance(weight, Tensor) and weight.dim() == 4
                    depthwise = conv and _is_depthwise(cast(Tensor, weight))
                    kind, shape = CONV if conv else OTHER, tuple(tensor.shape)
                    self.keep(tensor, Step(kind, read, shape, name, depthwise))

        return enter, leave


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def is_norm_like(module: nn.Module) -> bool:
    """Tells whether a module is a norm, of the kinds that BNET replaces or of another one."""
    if is_norm(module):
        return True
    # By name: layer norms of libraries, frozen batch norms. Not a ConvNormActivation.
    return 'norm' in type(module).__name__.lower() and all(
        parameter.dim() <= 3 for parameter in module.parameters()
    )


def _is_depthwise(weight: Tensor) -> bool:
    return weight.dim() == 4 and weight.shape[1] == 1 and weight.shape[0] > 1


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]
