"""Runs a model and records which convolution's output goes into which norm, and where else.

The order of a module's children says nothing certain about that: a network that normalizes before
it convolves, or shares a convolution between norms, has the same children. Here every operator of a
real run is seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Callable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from bnet_mm.deploy.choices import Choices
from bnet_mm.deploy.structure import is_watched, norms_of, unfit
from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import EVEN_ON_ERROR, storage_of
from bnet_mm.models.residual_blocks import is_known
from bnet_mm.openmmlab.running import (
    example_input,
    is_whole_model,
    run_model,
    tensors_in,
    weight_of,
)

Run = Callable[[nn.Module], object]
# Small, not square, and a multiple of every usual stride.
SHAPE = (64, 96)
BOXES = 8
FRAMES = 2  # of a clip for a network that looks at each frame by itself


@dataclass
class Recording:
    """What runs of a model have shown.

    Attributes:
        sources: name of a norm -> names of the convolutions that it can be folded into.
        left: name of a norm -> why it cannot be folded.
        inputs: name of a convolution or a residual block -> what it was first called with.
        outputs: all tensors that the runs gave, in order.
        choices: what was chosen in them by comparing values.
    """

    sources: dict[str, list[str]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: list[Tensor] = field(default_factory=list)
    choices: Choices = field(default_factory=Choices)


@dataclass
class _Call:
    """One convolution: its module and output, and who read that."""

    conv: nn.Conv2d
    output: Tensor
    norms: list[nn.Module] = field(default_factory=list)
    others: bool = False


def record(model: nn.Module, runs: list[Run]) -> Recording:
    """Records `runs` of `model`, which is in evaluation mode, without gradients.

    All maps that convolutions gave are kept until the end of the runs: memory once given back
    could come again as another map.
    """
    recorder = _Recorder(model)
    recording = Recording(inputs=recorder.inputs)
    with torch.no_grad(), recorder.hooks():
        for run in runs:
            with recording.choices, recorder:
                outputs = run(model)
            recording.outputs += list(tensors_in(outputs))
    recorder.take_out(recording.outputs)
    for name, norm in recorder.norms.items():
        found = recorder.sources(norm)
        if isinstance(found, str):
            recording.left[name] = found
        else:
            recording.sources[name] = found
    return recording


class _Recorder(TorchDispatchMode):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.names = {id(module): name for name, module in model.named_modules()}
        self.norms = norms_of(model)
        self.inputs: dict[str, Tensor] = {}
        self.calls: dict[int, _Call] = {}  # by storage
        self.norm_calls: dict[int, list[_Call | None]] = {id(n): [] for n in self.norms.values()}
        self.module_calls: dict[int, int] = {}
        self.inside = 0  # of how many norms the run is
        self.owners: dict[int, list[nn.Conv2d]] = {}
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and 'weight' in module._parameters:
                self.owners.setdefault(id(module.weight), []).append(module)
        self.misused: set[int] = set()  # weights that something else than a convolution reads

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Keeps the hooks on norms, convolutions and blocks for as long as they are needed."""
        handles = []
        for norm in self.norms.values():
            handles.append(norm.register_forward_pre_hook(self.before_norm, with_kwargs=True))
            handles.append(norm.register_forward_hook(self.after_norm, **EVEN_ON_ERROR))
        for module in self.model.modules():
            if isinstance(module, nn.Conv2d) or is_known(module):
                handles.append(
                    module.register_forward_pre_hook(self.before_module, with_kwargs=True)
                )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if self.inside:
            return output
        read = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        if func is torch.ops.aten.convolution.default and id(args[1]) in self.owners:
            conv = self.owners[id(args[1])][0]
            if args[2] is not conv.bias:
                self.misused.add(id(conv.weight))
            self.calls[_storage(output)] = _Call(conv, output)
            read = [args[0]]
        for tensor in read:
            if id(tensor) in self.owners:
                self.misused.add(id(tensor))
            call = self.calls.get(_storage(tensor))
            if call is not None:
                call.others = True
        return output

    def before_norm(self, norm: nn.Module, args: tuple, kwargs: dict) -> None:
        self.inside += 1
        input = args[0] if args else kwargs.get('input')
        call = self.calls.get(_storage(input)) if isinstance(input, Tensor) else None
        if call is not None and _same_view(input, call.output):
            call.norms.append(norm)
        elif call is not None:
            call.others, call = True, None
        self.norm_calls[id(norm)].append(call)

    def after_norm(self, *unused) -> None:
        self.inside -= 1

    def before_module(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.module_calls[id(module)] = self.module_calls.get(id(module), 0) + 1
        if len(args) == 1 and isinstance(args[0], Tensor) and not kwargs:
            self.inputs.setdefault(self.names[id(module)], args[0])

    def take_out(self, outputs: list[Tensor]) -> None:
        """Notes that the model's user reads these."""
        for tensor in outputs:
            call = self.calls.get(_storage(tensor))
            if call is not None:
                call.others = True

    def sources(self, norm: nn.Module) -> list[str] | str:
        """Returns the convolutions that `norm` alone follows, by name, or why there are none."""
        problem = unfit(norm)
        if problem:
            return problem
        calls = self.norm_calls[id(norm)]
        if not calls:
            return 'it was not used on the sample input'
        if None in calls:
            return 'it does not directly follow a convolution'
        convs = list({id(call.conv): call.conv for call in calls}.values())
        for conv in convs:
            problem = self._problem(conv, norm)
            if problem:
                return f'{self.names[id(conv)] or "the convolution"} {problem}'
        return [self.names[id(conv)] for conv in convs]

    def _problem(self, conv: nn.Conv2d, norm: nn.Module) -> str | None:
        calls = [call for call in self.calls.values() if call.conv is conv]
        if any(call.others for call in calls):
            return 'gives its output to others, too'
        if any(len(call.norms) != 1 or call.norms[0] is not norm for call in calls):
            return 'gives its output to more than this norm'
        if len(self.owners[id(conv.weight)]) > 1 or id(conv.weight) in self.misused:
            return 'shares its weights'
        if is_watched(conv):
            return 'has hooks'
        known = self.names[id(conv)] in self.inputs
        if not known or self.module_calls.get(id(conv), 0) != len(calls):
            return 'is not used by calling it'
        return None


def _storage(tensor: Tensor) -> int | None:
    return storage_of(tensor)._cdata if tensor.layout is torch.strided else None


def _same_view(a: Tensor, b: Tensor) -> bool:
    return (
        a.shape == b.shape
        and a.stride() == b.stride()
        and a.storage_offset() == b.storage_offset()
        and a.dtype == b.dtype
    )


def runs_on(model: nn.Module, inputs: object, shape: tuple[int, int] | None) -> list[Run]:
    """Returns the runs on which a model is looked at.

    Args:
        model: the model.
        inputs: None for a random image; a tensor or a tuple of tensors, which are its arguments,
            for these and random ones like them; or a function that runs the model it is given.
        shape: height and width of the random image; (64, 96) by default.

    Raises:
        InputError: `inputs` is of another kind, or the model has no convolution.
    """
    if inputs is None:
        return [_run_on(_random(example_input(model, shape or SHAPE, frames=FRAMES)))]
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    if isinstance(inputs, tuple) and all(isinstance(item, Tensor) for item in inputs):
        return [_run_on(*inputs), _run_on(*map(_random, inputs))]
    if callable(inputs):
        return [inputs]
    raise InputError(
        f'inputs must be a tensor, a tuple of tensors or a function of the model, got '
        f'{type(inputs).__name__}'
    )


def _random(like: Tensor) -> Tensor:
    if not like.is_floating_point():
        return like
    generator = torch.Generator().manual_seed(0)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64)


def _run_on(*inputs: Tensor) -> Run:
    def run(model: nn.Module) -> object:
        own = weight_of(model)
        tensors = [t.to(own if t.is_floating_point() else own.device) for t in inputs]
        if not is_whole_model(model) or len(tensors) > 1:
            return model(*tensors)
        with _outputs_of_children(model) as outputs:
            outputs.append(run_model(model, tensors[0], _boxes(tensors[0])))
        return outputs

    return run


def _boxes(images: Tensor) -> Tensor:
    """Returns random boxes for the second stage of a detector, the same for every type."""
    height, width = images.shape[-2:]
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(BOXES, 2, 2, generator=generator, dtype=torch.float64).sort(1)[0]
    return (corners * torch.tensor([width, height])).view(BOXES, 4)


@contextmanager
def _outputs_of_children(model: nn.Module) -> Iterator[list]:
    """Gathers what backbone, neck and heads give: a model's output may depend on few of them."""
    outputs: list = []
    handles = [
        child.register_forward_hook(lambda _, args, output: outputs.extend(tensors_in(output)))
        for child in model.children()
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
