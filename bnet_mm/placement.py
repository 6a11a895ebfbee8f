"""Which norms of a network become BNET.

A residual block has up to three norms, named as in the paper's table 10: A after the first
convolution, B after the 3x3 in the middle of a bottleneck, C after the last one. C is the best
place; the stem and the downsample branch keep plain batch normalization unless `'all'` is asked
for.
"""

from collections.abc import Iterator

from torch import nn

from bnet_mm.checkpoint.matching import rename_kernels_on_load
from bnet_mm.errors import InputError
from bnet_mm.norm import BNET, EnhancedNorm, SyncBNET
from bnet_mm.norm.depthwise import check_kernel

# How torchvision, timm and the OpenMMLab libraries call the classes of a residual block.
BASIC_BLOCK, BOTTLENECK = 'BasicBlock', 'Bottleneck'
LETTERS = {BASIC_BLOCK: {'A': 1, 'C': 2}, BOTTLENECK: {'A': 1, 'B': 2, 'C': 3}}


def check_positions(positions: object) -> str:
    """Returns `positions` ('all', or letters out of A, B, C), or says what it should have been.

    Raises:
        InputError: it is anything else.
    """
    if isinstance(positions, str) and (
        positions == 'all'
        or (positions and set(positions) <= set('ABC') and len(set(positions)) == len(positions))
    ):
        return positions
    raise InputError(
        f"BNET: positions must be 'C' (the paper's choice), 'A', 'B', 'ABC' or another choice of "
        f"these letters, or 'all'; got positions={positions!r}"
    )


def enhance(model: nn.Module, k: int = 3, positions: str = 'C', dilation: int = 1) -> nn.Module:
    """Turns batch norms of a built model into BNET, in place, without changing what it computes.

    Scales move to the centre taps, shifts to the biases; statistics, `eps`, `momentum`, device,
    type, training mode and `requires_grad` carry over. Either every chosen norm is replaced or, on
    an error, none. Afterwards `load_state_dict` takes plain batch norm's and this package's tensors
    and the paper's authors' (`layer1.0.bnet3.bnconv.weight`).

    Args:
        model: any torch model. Residual blocks are found by their class (`BasicBlock` or
            `Bottleneck`, or one derived from these), as in torchvision, timm and OpenMMLab.
        k: kernel size, odd.
        positions: which norms: letters out of 'A', 'B', 'C' (paper, table 10; a basic block has no
            B), or 'all' for every batch norm of the model, stem and downsample included.
        dilation: distance between neighbouring taps, in pixels.

    Returns:
        `model`.

    Raises:
        InputError: a wrong argument, or a place without a batch norm that can be replaced; the
            message names each.
    """
    k, dilation = check_kernel(k, dilation)
    positions = check_positions(positions)
    chosen, problems = {}, []
    for name, norm in _norms_at(model, positions):
        problem = _problem(norm)
        if problem:
            problems.append(f'{name} {problem}')
        else:
            chosen[name] = norm
    if problems:
        shown = '; '.join(problems[:5]) + ('; ...' if len(problems) > 5 else '')
        raise InputError(
            f'BNET cannot be placed at positions={positions!r} of {type(model).__name__}, nothing '
            f'was changed: {shown}'
        )
    if not chosen:
        lacking = 'no batch norm'
        if positions != 'all':
            lacking = f'no residual block of a class called {BASIC_BLOCK} or {BOTTLENECK}'
            norms = [_problem(norm) for _, norm in _norms_at(model, 'all')]
            if norms and not any(norms):
                lacking += f"; positions='all' would enhance its {len(norms)} batch norms"
        raise InputError(
            f'BNET cannot be placed at positions={positions!r} of {type(model).__name__}: it has '
            f'{lacking}'
        )
    # A module that is used in two places is one BNET afterwards, too.
    replaced: dict[int, BNET] = {}
    for name, norm in chosen.items():
        if id(norm) not in replaced:
            replaced[id(norm)] = _enhanced(norm, k, dilation)
        parent, _, child = name.rpartition('.')
        setattr(model.get_submodule(parent), child, replaced[id(norm)])
    model.register_load_state_dict_pre_hook(rename_kernels_on_load)
    return model


def _norms_at(model: nn.Module, positions: str) -> Iterator[tuple[str, nn.Module | None]]:
    """Yields name and module of each place; None where the block has no such norm."""
    if positions == 'all':
        inside = set()  # the statistics of norms that are enhanced already
        for name, module in model.named_modules(remove_duplicate=False):
            if isinstance(module, EnhancedNorm):
                inside.add(f'{name}.norm')
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and name not in inside:
                yield name, module
        return
    for prefix, block in model.named_modules():
        kind = block_kind(block)
        if kind is None:
            continue
        # A basic block has no B: 'ABC' is every norm it has, 'B' alone asks for what is not there.
        indices = [LETTERS[kind][letter] for letter in positions if letter in LETTERS[kind]]
        if not indices:
            yield f'position {positions} of {prefix}, a {kind},', None
        for index in indices:
            name, norm = norm_after_conv(block, index)
            yield f'{prefix}.{name}' if prefix else name, norm


def block_kind(module: nn.Module) -> str | None:
    """Returns which kind of residual block a module is, by its class and what that derives from."""
    for base in type(module).__mro__:
        if base.__name__ in LETTERS:
            return base.__name__
    return None


def norm_after_conv(block: nn.Module, index: int) -> tuple[str, nn.Module | None]:
    """Returns name and module of the norm that follows a block's `conv1`, `conv2` or `conv3`."""
    # torchvision, timm, mmdet, mmseg and mmpretrain: beside the convolution; a norm of another
    # family carries its own abbreviation (gn3), which mmdet's blocks keep in norm3_name.
    for name in (f'bn{index}', getattr(block, f'norm{index}_name', None)):
        if isinstance(name, str) and name in block._modules:
            return name, block._modules[name]
    # mmaction2: inside the ConvModule.
    conv = block._modules.get(f'conv{index}')
    if conv is not None and 'bn' in conv._modules:
        return f'conv{index}.bn', conv._modules['bn']
    return f'bn{index}', None


def _problem(norm: nn.Module | None) -> str | None:
    """Returns why a module cannot become BNET, or None."""
    if norm is None:
        return 'does not exist'
    if isinstance(norm, EnhancedNorm):
        return 'is enhanced already'
    # Exact types: a subclass may do more than normalize (timm's BatchNormAct2d also activates). Two
    # of mmengine's, known by name, only differ in how they check the input.
    if type(norm) is nn.BatchNorm2d or (
        isinstance(norm, nn.modules.batchnorm._BatchNorm)
        and type(norm).__name__ in ('SyncBatchNorm', '_BatchNormXd')
    ):
        return None
    return f'is a {type(norm).__name__}, not a BatchNorm2d or SyncBatchNorm'


def _enhanced(norm: nn.modules.batchnorm._BatchNorm, k: int, dilation: int) -> BNET:
    tensors = [*norm.parameters(), *norm.buffers()]
    device = tensors[0].device if tensors else None
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), None)
    synchronized = isinstance(norm, nn.SyncBatchNorm)
    bnet = (SyncBNET if synchronized else BNET)(
        norm.num_features,
        k=k,
        dilation=dilation,
        eps=norm.eps,
        momentum=norm.momentum,
        track_running_stats=norm.track_running_stats,
        device=device,
        dtype=dtype,
    )
    if synchronized:
        bnet.norm.process_group = norm.process_group
    # Not strict: a norm without scale and shift leaves the kernel at Dirac.
    bnet.load_state_dict(norm.state_dict(), strict=False)
    if norm.affine:
        bnet.dw.requires_grad_(norm.weight.requires_grad)
    bnet.train(norm.training)
    return bnet
