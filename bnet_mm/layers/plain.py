"""The norm inside a layer, which shows the layer's scale and shift to code that walks modules.

Many programs go over `modules()` and touch `weight` and `bias` of what they take for a norm. A
norm without scale and shift has None there, and they end on it. Inside a layer of this package a
norm shows views of the centre taps and of the bias: what is done to them, is done to the layer,
and means what it means for batch normalization. Ones leave a Dirac kernel as it is, zeros make it
zero. The views are no parameters, so that none is found twice and no name changes.

Computing never reads the views: each class here has a `forward` over the norm's own tensors alone.
Whoever folds the inner norm into a convolution by hand goes by its `affine`, which is False, and
gives no scale (`fuse_conv_bn_weights(..., None, None)`): the layer's kernel applies what is shown.
"""

from __future__ import annotations

# torch.jit.script leaves out what stands below the `else` of `is_scripting()`, and only that.
# ruff: noqa: RET505
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnet_mm.kernels.statistics import batch_norm, synchronized_batch_norm


class AffineView(Tensor):
    """A part of a parameter that is read and written as if it were a norm's own.

    Gradients flow through it. `requires_grad` is that of the parameter, which setting it changes.
    An optimizer takes it, and leaves it alone: the parameter is stepped where it is itself given.
    """

    # Operations give plain tensors.
    __torch_function__: Any = torch._C._disabled_torch_function_impl
    _parameter: Tensor
    _gradient: Tensor | None

    @classmethod
    def of(cls, parameter: Tensor, index: Any) -> AffineView:
        """Returns the view of `parameter[index]`."""
        view = parameter[index].as_subclass(cls)
        view._parameter = parameter
        gradient = parameter.grad if parameter.is_leaf else None
        view._gradient = None if gradient is None else gradient[index]
        return view

    @property
    def is_leaf(self) -> bool:  # type: ignore[override]
        """True, as of the parameter that it stands for."""
        return True

    @property
    def requires_grad(self) -> bool:
        """Whether the parameter trains."""
        return self._parameter.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self._parameter.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> AffineView:
        """Sets whether the parameter trains, all of it."""
        self._parameter.requires_grad_(requires_grad)
        return self

    @property
    def grad(self) -> Tensor | None:
        """The part of the parameter's gradient, as it was when the view was taken."""
        return self._gradient

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        self._gradient = value

    def __deepcopy__(self, memo: dict) -> Tensor:
        return self.detach().clone()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.detach().clone().__reduce_ex__(protocol)


class Owner(nn.Module):
    """Base of a module with a plain norm inside, whose scale and shift are the module's.

    Attributes:
        inner: the name of the norm.
    """

    inner = 'norm'

    def __setattr__(self, name: str, value: Any) -> None:
        if (
            name in ('weight', 'bias')
            and isinstance(value, Tensor)
            and name not in self._parameters
        ):
            _write(self, name, value)
            return
        super().__setattr__(name, value)
        if name == self.inner and isinstance(value, nn.Module):
            adopt(self, value)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Adds a child; this is how conversions put another norm in the place of one."""
        super().add_module(name, module)
        if name == self.inner and module is not None:
            adopt(self, module)


class Inner:
    """Mixin of a norm without scale and shift in an `Owner`."""

    __jit_unused_properties__ = ['weight', 'bias']

    def _shown(self, name: str) -> Any:
        own = self._parameters.get(name)  # type: ignore[attr-defined]
        owner = self.__dict__.get('_owner')
        if own is not None:
            return own
        if owner is None:
            raise AttributeError(name)
        value = getattr(owner, name)
        return AffineView.of(value, ...) if isinstance(value, nn.Parameter) else value

    # The norm's own, if it has any; or a view, `(C,)`, of that of the layer.
    # No annotations: before torch 2.4 torch.jit.script cannot read them here.
    weight = property(lambda self: self._shown('weight'))  # type: Any
    bias = property(lambda self: self._shown('bias'))  # type: Any

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ('weight', 'bias') and isinstance(value, Tensor) and '_owner' in self.__dict__:
            _write(self, name, value)
            return
        super().__setattr__(name, value)


def _write(module: Any, name: str, value: Tensor) -> None:
    with torch.no_grad():
        getattr(module, name).copy_(value)


# Both bases are named: initializers that are asked for `layer='_BatchNorm'` go by a module's class
# and its direct bases.
class BatchNorm2d(Inner, nn.BatchNorm2d, nn.modules.batchnorm._BatchNorm):
    """`torch.nn.BatchNorm2d` inside a layer."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            training = self.training or self.running_mean is None
            momentum = 0.1 if self.momentum is None else self.momentum
            return F.batch_norm(
                input, self.running_mean, self.running_var, None, None, training, momentum, self.eps
            )
        else:
            if not isinstance(input, Tensor):
                return leaf(self, input)
            self._check_input_dim(input)
            return batch_norm(self, input)


class SyncBatchNorm(Inner, nn.SyncBatchNorm, nn.modules.batchnorm._BatchNorm):
    """`torch.nn.SyncBatchNorm` inside a layer; it also trains on CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            assert not self.training, 'a scripted SyncBNET has no statistics over processes'
            return F.batch_norm(
                input, self.running_mean, self.running_var, None, None, False, 0.0, self.eps
            )
        else:
            return self._forward(input)

    def _forward(self, input: Tensor) -> Tensor:
        return (
            synchronized_batch_norm(self, input) if isinstance(input, Tensor) else leaf(self, input)
        )


class GroupNorm(Inner, nn.GroupNorm):
    """`torch.nn.GroupNorm` inside a layer."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return F.group_norm(input, self.num_groups, None, None, self.eps)
        else:
            own = self._parameters
            return F.group_norm(
                input, self.num_groups, own.get('weight'), own.get('bias'), self.eps
            )


class InstanceNorm2d(Inner, nn.InstanceNorm2d, nn.modules.instancenorm._InstanceNorm):
    """`torch.nn.InstanceNorm2d` inside a layer."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            batch = self.training or not self.track_running_stats
            return F.instance_norm(
                input,
                self.running_mean,
                self.running_var,
                None,
                None,
                batch,
                self.momentum,  # type: ignore[arg-type]
                self.eps,
            )
        else:
            if not isinstance(input, Tensor):
                return leaf(self, input)
            self._check_input_dim(input)
            own = self._parameters
            return F.instance_norm(
                *(input, self.running_mean, self.running_var, own.get('weight'), own.get('bias')),
                *(self.training or not self.track_running_stats, self.momentum, self.eps),  # type: ignore[arg-type]
            )


# Which class a plain norm gets inside a layer; a module with another norm adds its own.
INNER: dict[type, type] = {
    nn.BatchNorm2d: BatchNorm2d,
    nn.SyncBatchNorm: SyncBatchNorm,
    nn.GroupNorm: GroupNorm,
    nn.InstanceNorm2d: InstanceNorm2d,
}


def adopt(owner: nn.Module, norm: nn.Module) -> None:
    """Makes a plain norm show the scale and shift of the module that it is in.

    Classes that are not known here stay as they are.
    """
    kind = type(norm)
    # OpenMMLab makes it of synchronized norms. It checks no dimensions; here they are known.
    inner = BatchNorm2d if kind.__name__ == '_BatchNormXd' else INNER.get(kind)
    if inner is not None:
        norm.__class__ = inner
    if not isinstance(norm, Inner):
        return
    norm.__dict__['_owner'] = owner  # not as a child of its child
    for name in ('weight', 'bias'):  # torch.jit.script would take them for what is shown
        if norm._parameters.get(name, norm) is None:
            del norm._parameters[name]


def own_affine(norm: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """Returns the scale and shift that a norm itself applies, not those that it shows."""
    return norm._parameters.get('weight'), norm._parameters.get('bias')


def leaf(module: nn.Module, input: Any) -> Any:
    """Returns what torch.fx records for a call of a module that it shall not look into."""
    return input.tracer.create_proxy(
        'call_module', input.tracer.path_of_module(module), (input,), {}
    )
