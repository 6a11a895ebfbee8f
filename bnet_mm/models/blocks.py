"""The residual blocks of networks, and where each has its norms.

A block has up to three norms, named as in the paper's table 10: A after the first convolution, B
after the 3x3 in the middle, C after the last one. A basic block has no B, and an inverted residual
block that does not expand has no A.
"""

from __future__ import annotations

from torch import nn

from bnet_mm.layers import is_norm

# How torchvision, timm and the OpenMMLab libraries call the classes of a block. An inverted
# residual block is MobileNetV2's; Bi-Real Net's, of one convolution, is this package's.
BASIC_BLOCK, BOTTLENECK, INVERTED = 'BasicBlock', 'Bottleneck', 'InvertedResidual'
BI_REAL = 'BiRealBlock'
LETTERS = {
    BI_REAL: {'C': 1},
    BASIC_BLOCK: {'A': 1, 'C': 2},
    BOTTLENECK: {'A': 1, 'B': 2, 'C': 3},
    INVERTED: {'A': 1, 'B': 2, 'C': 3},
}
# Where the paper puts BNET: table 10, and for MobileNetV2 after the 1x1 convolution that expands,
# which alone gives the FLOPs of table 3.
PAPERS_POSITION = {BASIC_BLOCK: 'C', BOTTLENECK: 'C', INVERTED: 'A', BI_REAL: 'C'}


def block_kind(module: nn.Module) -> str | None:
    """Returns which kind of residual block a module is, by its class and what that derives from."""
    for base in type(module).__mro__:
        if base.__name__ in LETTERS:
            return base.__name__
    return None


def positions_of(block: nn.Module) -> dict[str, int]:
    """Returns the positions of a residual block and after which convolution each is.

    Empty for every other module.
    """
    return LETTERS.get(block_kind(block) or '', {})


def last_norm(block: nn.Module) -> tuple[str, nn.Module | None]:
    """Returns name and module of the norm after a residual block's last convolution."""
    return norm_after_conv(block, max(positions_of(block).values()))


def norm_after_conv(block: nn.Module, index: int) -> tuple[str, nn.Module | None]:
    """Returns name and module of the norm that follows a block's first, second or third conv.

    The module is None where the block has no such norm. The first convolution of an inverted
    residual block is the one that expands, also where there is none.
    """
    if block_kind(block) == INVERTED:
        return _norm_of_inverted(block, index)
    # torchvision, timm, mmdet, mmseg and mmpretrain: beside the convolution; a norm of another
    # family carries its own abbreviation (gn3), which mmdet's blocks keep in norm3_name.
    for name in (f'bn{index}', getattr(block, f'norm{index}_name', None)):
        if isinstance(name, str) and name in block._modules:
            return name, block._modules[name]
    # mmaction2: inside the ConvModule.
    conv = block._modules.get(f'conv{index}')
    if conv is not None:
        for name in ('bn', getattr(conv, 'norm_name', None)):
            if isinstance(name, str) and name in conv._modules:
                return f'conv{index}.{name}', conv._modules[name]
    return f'bn{index}', None


def _norm_of_inverted(block: nn.Module, index: int) -> tuple[str, nn.Module | None]:
    """Finds it by the order of modules: the libraries have no names in common for them."""
    after: list[tuple[str, nn.Module]] = []  # a norm for each convolution that is followed by one
    depthwise = 0
    conv = None
    inside: list[str] = []
    for name, module in block.named_modules():
        if any(name.startswith(f'{outer}.') for outer in inside):
            continue
        if isinstance(module, nn.Conv2d):
            conv = module
        elif conv is not None and is_norm(module):
            inside.append(name)
            if conv.groups == conv.in_channels > 1:
                depthwise = len(after)
            after.append((name, module))
            conv = None
    place = depthwise + index - 2
    if 0 <= place < len(after):
        return after[place]
    return f'the norm of convolution {index}', None
