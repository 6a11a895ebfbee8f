"""What of a base config works against BNET, although its type was replaced: said, never changed."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from bnet_mm.layers import EnhancedNorm, named_norms
from bnet_mm.openmmlab.config import walk
from bnet_mm.openmmlab.norm_cfg import NormSpec, norm_specs


def frozen_by_config(model_cfg: object) -> Iterator[str]:
    """Yields a sentence for each `norm_cfg` of this package whose kernels a config freezes.

    DETR's base configs and those of caffe's weights freeze batch norms, and a `requires_grad=False`
    stays there when the type is replaced.
    """
    for where, node, spec in norm_specs(model_cfg, 'model'):
        if issubclass(spec.layer, EnhancedNorm) and node.get('requires_grad') is False:
            yield (
                f'{where} has requires_grad=False, by which many base configs freeze their '
                f'norms; add requires_grad=True'
            )


def norm_warnings(model: nn.Module, model_cfg: object) -> Iterator[str]:
    """Yields a sentence for each thing that keeps BNET from training as its user expects.

    Args:
        model: as it was built.
        model_cfg: its config.
    """
    norms = [norm for _, norm in named_norms(model, EnhancedNorm)]
    trained = sum(norm.dw.weight.requires_grad for norm in norms)
    frozen = list(frozen_by_config(model_cfg))
    for sentence in frozen:
        yield f'{trained} of {len(norms)} BNET kernels train: {sentence}'
    unsynchronized = [
        where for where, _, spec in norm_specs(model_cfg, 'model') if spec.plain['type'] == 'BN'
    ]
    if unsynchronized and any(_is_synchronized(node) for _, node in walk(model_cfg, 'model')):
        yield (
            f'{unsynchronized[0]}: statistics are of each process, where other norms of this model '
            f'are synchronized; type=SyncBNET synchronizes them'
        )


def frozen_by_stages(model: nn.Module, model_cfg: object) -> str | None:
    """Returns how many kernels are frozen for another reason than their `norm_cfg`, or None."""
    norms = [norm for _, norm in named_norms(model, EnhancedNorm)]
    frozen = sum(not norm.dw.weight.requires_grad for norm in norms)
    if not frozen or any(frozen_by_config(model_cfg)):
        return None
    stages = {
        f'{where}.frozen_stages={node["frozen_stages"]}'
        for where, node in walk(model_cfg, 'model')
        if isinstance(node, dict) and (node.get('frozen_stages') or -1) >= 0
    }
    held = f' ({", ".join(sorted(stages))})' if stages else ''
    return f'{frozen} of {len(norms)} BNET kernels are frozen{held}'


def _is_synchronized(node: object) -> bool:
    kind = node.get('type') if isinstance(node, dict) else None
    if NormSpec.parse(node) is not None:
        return False
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2] in ('SyncBN', 'SyncBatchNorm')
