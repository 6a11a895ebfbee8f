"""Networks with BNET under everything that people do to networks, against the two plain modules.

Each treatment is a function of a network. It must give the same for a network with BNET as for its
twin, in which each BNET is torch's own batch norm and convolution, one after the other. A treatment
that the twin does not survive (mmdet's blocks cannot be scripted, say) is left out for both.
"""

from __future__ import annotations

import copy
import functools
import io
import pickle
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module

import pytest
import timm
import torch
import torchvision
from abilities import needs_custom_operators
from mmcv.cnn import fuse_conv_bn
from mmengine.model import ExponentialMovingAverage, revert_sync_batchnorm
from mmengine.model.efficient_conv_bn_eval import turn_on_efficient_conv_bn_eval_for_single_model
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.utils import checkpoint as checkpointing
from torch.utils.checkpoint import checkpoint
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import bnet_mm
from bnet_mm.layers import BNET, EnhancedNorm


class TwoModules(nn.Module):
    """What BNET is, in torch's modules; tensors have BNET's names."""

    def __init__(self, layer: EnhancedNorm):
        super().__init__()
        c = layer.num_features
        options = dict(dilation=layer.dilation, padding=layer.dilation * (layer.k // 2), groups=c)
        self.norm = nn.BatchNorm2d(c, layer.norm.eps, layer.norm.momentum, affine=False)
        self.dw = nn.Conv2d(c, c, layer.k, **options)
        self.load_state_dict(layer.state_dict(), strict=False)
        self.train(layer.training)

    def forward(self, input):
        return self.dw(self.norm(input))


def openmmlab(library: str, type: str = 'ResNet', norm: str = 'BNET', **options) -> nn.Module:
    import_module(f'{library}.models')
    if library == 'mmaction' and type != 'MobileNetV2':
        options['pretrained'] = None
    positions = options.pop('positions', None)
    cfg = dict(type=norm, k=3, **({} if positions is None else dict(positions=positions)))
    return MODELS.build(dict(type=f'{library}.{type}', norm_cfg=cfg, **options))


class Own(nn.Module):
    """A user's network, in which nothing has a name that anybody knows."""

    class Piece(nn.Module):
        def __init__(self, c: int):
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(c, c, 3, padding=1), BNET(c, k=5), nn.SiLU())
            self.second = nn.Sequential(nn.Conv2d(c, c, 1), bnet_mm.SyncBNET(c, dilation=2))

        def forward(self, x):
            return x + self.second(self.first(x))

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.body = nn.Sequential(Own.Piece(8), nn.ReLU(), Own.Piece(8))
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        return self.pool(self.body(self.stem(x))).flatten(1)


def enhanced(model: nn.Module, **options) -> nn.Module:
    return bnet_mm.enhance(model, **{'k': 3, **options})


def as_norm_layer(arch: str) -> nn.Module:
    return getattr(torchvision.models, arch)(norm_layer=functools.partial(BNET, k=3))


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    'torchvision resnet18': lambda: enhanced(torchvision.models.resnet18()),
    'torchvision resnet18 all': lambda: enhanced(torchvision.models.resnet18(), positions='all'),
    'torchvision resnet50 AC': lambda: enhanced(torchvision.models.resnet50(), positions='AC'),
    'torchvision resnet18 norm_layer': lambda: as_norm_layer('resnet18'),
    'torchvision mobilenet_v2': lambda: enhanced(torchvision.models.mobilenet_v2()),
    'timm resnet18d': lambda: enhanced(timm.create_model('resnet18d')),
    'timm resnet26t norm_layer': lambda: timm.create_model(
        'resnet26t', norm_layer=functools.partial(BNET, k=3)
    ),
    'mmdet ResNet-18': lambda: openmmlab('mmdet', depth=18, norm_eval=False),
    'mmdet ResNet-50 BC': lambda: openmmlab(
        'mmdet', depth=50, base_channels=8, norm_eval=False, positions='BC'
    ),
    'mmdet ResNeXt-50': lambda: openmmlab(
        'mmdet', 'ResNeXt', depth=50, groups=4, base_width=4, norm_eval=False
    ),
    'mmseg ResNetV1c-18': lambda: openmmlab('mmseg', 'ResNetV1c', depth=18, norm_eval=False),
    'mmpretrain ResNetV1d-50': lambda: openmmlab(
        'mmpretrain', 'ResNetV1d', depth=50, stem_channels=8, base_channels=8
    ),
    'mmpretrain MobileNetV2': lambda: openmmlab('mmpretrain', 'MobileNetV2'),
    'mmaction ResNet-18': lambda: openmmlab('mmaction', depth=18),
    'mmaction ResNetTSM-18': lambda: openmmlab(
        'mmaction', 'ResNetTSM', depth=18, num_segments=2, shift_div=8
    ),
    "a user's own": Own,
}
# The slow treatments (compilers, exporters) are for one network of each library.
FEW = [
    'torchvision resnet18', 'timm resnet18d', 'mmdet ResNet-18', 'mmaction ResNet-18',
    "a user's own",
]  # fmt: skip


@functools.lru_cache(maxsize=None)
def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = BUILDERS[name]()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, EnhancedNorm):
                module.dw.weight.add_(0.2 * torch.randn_like(module.dw.weight))
                module.dw.bias.normal_(std=0.1)
                module.norm.running_mean.normal_(std=0.1)
                module.norm.running_var.uniform_(0.5, 2)
            elif isinstance(module, nn.Dropout):
                module.p = 0.0
    return model


def pair(name: str, training: bool) -> tuple[nn.Module, nn.Module]:
    """Returns a network and its twin."""
    model = copy.deepcopy(built(name))
    twin = copy.deepcopy(model)
    for path, module in list(twin.named_modules()):
        if isinstance(module, EnhancedNorm):
            parent, _, child = path.rpartition('.')
            setattr(twin.get_submodule(parent), child, TwoModules(module))
    for net in (model, twin):
        net.double()  # small batches through many norms: in float32 rounding would grow to anything
        net.train(training)  # which returns nothing in mmdet
    return model, twin


def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 64, 48, dtype=torch.float64, generator=generator)


def layers(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, (EnhancedNorm, TwoModules))]


def last(output) -> Tensor:
    while not isinstance(output, Tensor):
        output = list(output.values() if isinstance(output, dict) else output)[-1]
    return output


def trained(net: nn.Module, x: Tensor, run: Callable | None = None) -> dict[str, Tensor]:
    """Returns the output, all gradients and all statistics, by name."""
    x = x.requires_grad_()
    y = last((net if run is None else run)(x))
    y.square().mean().backward()
    found = {'output': y, 'input': x.grad}
    found.update({f'grad of {n}': p.grad for n, p in net.named_parameters() if p.grad is not None})
    return {**found, **{n: b.double() for n, b in net.named_buffers()}}


def evaluated(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return {'output': last(net(x))}


# Treatments of networks in training, each `net -> results by name`.


def training(net):
    return trained(net, images())


def channels_last(net):
    net = net.to(memory_format=torch.channels_last)
    return trained(net, images().contiguous(memory_format=torch.channels_last))


def transposed(net):
    return trained(net, images().transpose(2, 3))


def copied(net):
    other = copy.deepcopy(net)
    results = trained(other, images())
    assert all(p.grad is None for p in net.parameters())
    return results


def pickled(net):
    return trained(pickle.loads(pickle.dumps(net)), images())


def saved_whole(net):
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return trained(torch.load(file, weights_only=False), images())


def replicated(net):
    """As `torch.nn.parallel.replicate` makes replicas, on one device."""
    modules = list(net.modules())
    index = {module: i for i, module in enumerate(modules)}
    replicas = [module._replicate_for_data_parallel() for module in modules]
    for module, replica in zip(modules, replicas):
        for name, child in module._modules.items():
            replica._modules[name] = None if child is None else replicas[index[child]]
        for name, value in module._parameters.items():
            # Not the parameter itself, which a replica that uses it instead would give away.
            setattr(replica, name, None if value is None else 2 * value)
        for name, value in module._buffers.items():
            replica._buffers[name] = None if value is None else value.clone()
    x = images()
    y = last(replicas[0](x))
    y.square().mean().backward()
    gradients = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    return {'output': y, **gradients}


def checkpointed(net):
    # An early stop leaves out statistics of a region's last norm, at a place of its operators.
    # Since torch 2.1; before, there is no early stop.
    with getattr(checkpointing, 'set_checkpoint_early_stop', nullcontext)(False):
        return trained(net, images(), lambda x: checkpoint(net, x, use_reentrant=False))


def averaged(net):
    theirs = torch.optim.swa_utils.AveragedModel(net, use_buffers=True)
    ours = ExponentialMovingAverage(net, momentum=0.1, update_buffers=True)
    for step in range(2):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.01 * (step + 1))
        theirs.update_parameters(net)
        ours.update_parameters(net)
    results = {}
    for name, average in (('torch', theirs), ('mmengine', ours)):
        average.train(False)
        results[name] = evaluated(average.module, images())['output']
    return results


def hooked(net, on_norms=True):
    """All four kinds of hooks, on norms, activations and blocks: how often, and with what."""
    norms = [part for m in layers(net) for part in m.modules()]
    seen, sums = Counter(), []

    def look(kind, name):
        def hook(module, *values):
            seen[kind, name] += 1
            value = values[-1]
            value = value[0] if isinstance(value, tuple) else value
            if isinstance(value, Tensor):
                sums.append(value.detach().double().abs().sum())

        return hook

    for name, module in net.named_modules():
        if isinstance(module, (nn.ReLU, nn.ReLU6, nn.SiLU)):
            module.inplace = False  # as hooks on gradients want it
        module.register_forward_hook(look('forward', name))
        module.register_forward_pre_hook(look('forward_pre', name))
        if on_norms or module not in norms:
            module.register_full_backward_hook(look('backward', name))
            module.register_full_backward_pre_hook(look('backward_pre', name))
    results = trained(net, images())
    results.update({f'calls of {kind} {name}': torch.tensor(n) for (kind, name), n in seen.items()})
    return {**results, 'seen': torch.stack(sums).sort().values}


def hooked_around_norms(net):
    """Most libraries add to a norm's output in place, which hooks on its gradients forbid."""
    return hooked(net, on_norms=False)


def other_activations(net):
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, (nn.ReLU, nn.ReLU6, nn.SiLU)):
                setattr(module, name, nn.GELU())
    return trained(net, images())


class Halved(nn.Module):
    def forward(self, x):
        return x / 2


def put_in_later(net):
    """A part in front of each last norm of a block, a plain norm in the place of another."""
    norms = [(n, m) for n, m in net.named_modules() if isinstance(m, (EnhancedNorm, TwoModules))]
    for i, (name, norm) in enumerate(norms):
        parent, _, child = name.rpartition('.')
        other = (
            nn.Sequential(Halved(), norm) if i % 2 else nn.BatchNorm2d(norm.dw.in_channels).double()
        )
        setattr(net.get_submodule(parent), child, other)
    for module in net.modules():
        if getattr(module, 'drop_path', ...) is None:
            module.drop_path = Halved()  # timm's blocks look for it
    return trained(net, images())


def synchronized_and_back(net):
    net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    net = revert_sync_batchnorm(net)
    return trained(net, images())


def in_half_precision(net):
    net.float().eval()
    for layer in layers(net):
        if isinstance(layer, TwoModules):  # torch's batch norm without a scale takes no mixture
            layer.norm.register_forward_pre_hook(lambda _, args: args[0].float())
    with torch.autocast('cpu', torch.bfloat16):
        y = last(net(images().float()))
        y.float().square().mean().backward()
    return {'output': y}


TRAINING = [
    training, channels_last, transposed, copied, pickled, saved_whole, replicated, checkpointed,
    averaged, hooked, hooked_around_norms, other_activations, put_in_later, synchronized_and_back,
    in_half_precision,
]  # fmt: skip


# Treatments of networks in evaluation.


def evaluation(net):
    return trained(net, images())  # gradients through frozen statistics, too


def traced_by_fx(net):
    return trained(torch.fx.symbolic_trace(net), images())


def features(net):
    parts = [n for n, m in net.named_modules() if isinstance(m, (EnhancedNorm, TwoModules))]
    names = [n for n in get_graph_node_names(net)[1] if not n.startswith(tuple(parts))]
    wanted = [names[len(names) // 3], names[-1]]
    return dict(create_feature_extractor(net, wanted)(images()))


def quantized(net):
    x, net = images().float(), net.float()
    prepared = prepare_fx(net, get_default_qconfig_mapping('x86'), (x,))
    results = evaluated(prepared, x)  # observed, not yet quantized
    assert torch.isfinite(last(convert_fx(prepared)(x))).all()
    return results


def efficient_conv_bn(net):
    for layer in layers(net):
        if isinstance(layer, TwoModules):  # mmengine wants a scale
            layer.norm.weight = nn.Parameter(torch.ones_like(layer.norm.running_mean), False)
            layer.norm.bias = nn.Parameter(torch.zeros_like(layer.norm.running_mean), False)
    turn_on_efficient_conv_bn_eval_for_single_model(net)
    return trained(net, images())


def conv_bn_fused(net):
    return evaluated(fuse_conv_bn(net), images())


def jit_traced(net):
    x = images()
    return evaluated(torch.jit.trace(net, x), x.flip(0))


def jit_scripted(net):
    return evaluated(torch.jit.script(net), images())


EVALUATION = [
    evaluation, traced_by_fx, features, quantized, efficient_conv_bn, conv_bn_fused, jit_traced,
    jit_scripted,
]  # fmt: skip


# Treatments that take long.


def compiled(net):
    torch._dynamo.reset()
    compiled = torch.compile(net, backend='aot_eager')
    x = images().transpose(2, 3)
    return trained(net, x, compiled)


def exported(net):
    return evaluated(torch.export.export(net, (images(),)).module(), images())


def check(treatment: Callable, name: str, training: bool) -> None:
    model, twin = pair(name, training)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            expected = treatment(twin)
        except Exception as error:
            pytest.skip(f"not with torch's own modules either: {error}")
        results = treatment(model)
    # A tensor beside a dilated kernel, its dilation, is no buffer; other names are the same.
    assert results.keys() == expected.keys()
    loose = treatment in (in_half_precision, quantized)
    for key, value in expected.items():
        scale = value.detach().abs().max().clamp(min=1e-3).item() if value.numel() else 1.0
        torch.testing.assert_close(
            results[key].detach().double(),
            value.detach().double(),
            rtol=0.1 if loose else 1e-6,
            atol=(0.1 if loose else 1e-6) * scale,
            msg=lambda text, key=key: f'{key}: {text}',
        )


@pytest.mark.parametrize('name', BUILDERS)
@pytest.mark.parametrize('treatment', TRAINING, ids=lambda t: t.__name__)
def test_in_training(treatment, name):
    check(treatment, name, training=True)


@pytest.mark.parametrize('name', BUILDERS)
@pytest.mark.parametrize('treatment', EVALUATION, ids=lambda t: t.__name__)
def test_in_evaluation(treatment, name):
    check(treatment, name, training=False)


@pytest.mark.parametrize('name', FEW)
@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
def test_compiled(training, name):
    check(compiled, name, training)


@needs_custom_operators
@pytest.mark.parametrize('name', FEW)
def test_exported(name):
    check(exported, name, training=False)
