"""The end of a residual block, kernel, addition and ReLU, as one call.

Only blocks whose own `forward` is known to the letter are taken: those of torchvision, timm and the
OpenMMLab libraries. A block that overrides it (attention, splits, multiple scales) stays.
"""

from operator import attrgetter

from torch import Tensor, nn

from bnet_mm.norm.depthwise import depthwise_transform
from bnet_mm.placement import LETTERS, block_kind, norm_after_conv

# Modules whose BasicBlock and Bottleneck run: convolution, norm, ReLU, ..., convolution, norm, plus
# identity, ReLU.
KNOWN = {
    'torchvision.models.resnet',
    'timm.models.resnet',
    'mmdet.models.backbones.resnet',
    'mmseg.models.backbones.resnet',
    'mmpretrain.models.backbones.resnet',
    'mmaction.models.backbones.resnet',
}
# What some of these libraries may put in between, which must be absent.
ADDITIONS = ('se', 'drop_path', 'drop_block', 'aa')


class ResidualBlock(nn.Module):
    """A residual block that ends in BNET, for inference; made by `ResidualBlock.of`.

    It has the block's children under the block's names, and so the same tensors.

    Args:
        block: the block whose children it takes over.
        body: names, with dots, of the modules up to the last convolution, in order.
        taps: name of the last norm's kernel.

    Shape:
        input `(N, C, H, W)`, output as the block's.
    """

    def __init__(self, block: nn.Module, body: list[str], taps: str):
        super().__init__()
        for name, child in block.named_children():
            self.add_module(name, child)
        self.body, self.taps = tuple(body), taps
        self.train(block.training)

    @classmethod
    def of(cls, block: nn.Module, taps_class: type[nn.Module]) -> 'ResidualBlock | str':
        """Returns `block` with its end joined, or why that cannot be done.

        Args:
            block: its last norm is folded already.
            taps_class: what then stands in that norm's place.
        """
        if not is_known(block):
            return f'{type(block).__name__} has a forward of its own'
        if block._forward_hooks or block._forward_pre_hooks or 'forward' in vars(block):
            return 'it has hooks'
        if getattr(block, 'with_plugins', False):
            return 'it has plugins'
        for name in ADDITIONS:
            if type(getattr(block, name, None)) not in (type(None), nn.Identity):
                return f'it has {name}'
        body, taps = [], ''
        last = max(LETTERS[block_kind(block)].values())
        for index in range(1, last + 1):
            taps, norm = norm_after_conv(block, index)
            inside = taps.startswith('conv')  # mmaction2's ConvModule, which holds all three
            activation = f'act{index}' if hasattr(block, f'act{index}') else 'relu'
            if index < last:
                body += [f'conv{index}'] if inside else [f'conv{index}', taps, activation]
            elif inside and (problem := _more_than_conv(block.get_submodule(f'conv{index}'))):
                return problem
            elif type(getattr(block, activation, None)) is not nn.ReLU:
                return 'it does not end in a ReLU'
            elif not isinstance(norm, taps_class):
                return 'its last norm is not folded'
            elif norm._forward_hooks or norm._forward_pre_hooks:
                return 'its last norm has hooks'
            else:
                body.append(f'conv{index}.conv' if inside else f'conv{index}')
        return cls(
            block,
            [name for name in body if type(block.get_submodule(name)) is not nn.Identity],
            taps,
        )

    def forward(self, input: Tensor) -> Tensor:
        downsample = self._modules.get('downsample')
        identity = input if downsample is None else downsample(input)
        output = input
        for name in self.body:
            output = attrgetter(name)(self)(output)
        taps = attrgetter(self.taps)(self)
        return depthwise_transform(
            output, taps.weight, taps.bias, taps.dilation[0], residual=identity, relu=True
        )


def is_known(module: nn.Module) -> bool:
    """Tells whether a module is a residual block whose forward is one of those known here."""
    kind, forward = block_kind(module), type(module).forward
    return (
        kind is not None
        and getattr(forward, '__module__', None) in KNOWN
        and getattr(forward, '__qualname__', None) == f'{kind}.forward'
    )


def _more_than_conv(module: nn.Module) -> str | None:
    if module.with_explicit_padding or module.with_activation or module.order[0] != 'conv':
        return 'its last ConvModule does more than a convolution and a norm'
    if module._forward_hooks or module._forward_pre_hooks:
        return 'its last ConvModule has hooks'
    return None
