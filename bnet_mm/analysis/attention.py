"""Where a network looks: attention maps of each stage's last block, as in the paper's figure 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnet_mm.analysis.packages import need
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.libraries import LIBRARIES, library_of
from bnet_mm.openmmlab.running import (
    as_clip,
    as_frames,
    backbone_of,
    recorded,
    run_model,
    sized_errors,
    weight_of,
)


@dataclass(frozen=True)
class Attention:
    """Where one layer of a network looks in one image.

    Attributes:
        layer: its name in the model.
        map: `(h, w)`, zero or more, larger where it looks more.
    """

    layer: str
    map: Tensor


@dataclass(frozen=True)
class Seen:
    """What a network makes of one image.

    Attributes:
        label: the class whose evidence the maps show; None where the model has no classes of
            images or pixels, and the maps show activation.
        share: the class's probability, or the share of pixels that are of it; None without one.
        maps: one for each layer.
    """

    label: int | None
    share: float | None
    maps: list[Attention]


def attention_maps(
    model: nn.Module, images: Tensor, layers: Sequence[str], label: int | None = None
) -> list[Seen]:
    """Returns the attention maps of `layers`, for each image.

    Of a classifier, a recognizer or a segmentor they are Grad-CAM's
    ([Selvaraju et al.](https://arxiv.org/abs/1610.02391), by captum): how much each position speaks
    for a class; for a segmentor, for the pixels that are found to be of that class. Of a detector
    or a backbone alone they are the sum of squared activations over channels
    ([Zagoruyko and Komodakis](https://arxiv.org/abs/1612.03928)).

    Args:
        model: of OpenMMLab, in evaluation mode.
        images: `(N, 3, H, W)`, preprocessed: one image, or the frames of a clip.
        layers: names of modules that give maps.
        label: a class; the one that is found for the image, or for most of its pixels, if not
            given.

    Raises:
        InputError: a layer gives no map, there is no such class, or the network cannot run on the
            images.
    """
    x = images.to(weight_of(model))
    with sized_errors(model, x):
        if _has_classes(model):
            return _grad_cam(model, x, layers, label)
        if label is not None:
            raise InputError(f'{type(model).__name__} has no classes of images or of pixels')
        return _activation(model, x, layers)


def _has_classes(model: nn.Module) -> bool:
    library = library_of(model)
    flag = None if library is None else LIBRARIES[library].logits
    return flag is not None and (not flag or getattr(model, flag, False))


def _grad_cam(model: nn.Module, x: Tensor, layers: Sequence[str], label: int | None) -> list[Seen]:
    need('captum')
    from captum.attr import LayerGradCam  # takes a second to import

    def scores(x: Tensor) -> Tensor:
        return _scores(run_model(model, as_clip(model, x)))

    # A run before captum's, which says why a layer cannot be looked at by an assertion.
    with torch.no_grad(), recorded(model, layers) as pairs:
        shares = _shares(run_model(model, as_clip(model, x)))
    for layer in layers:
        _check_map(layer, pairs)
    classes = shares.shape[1]
    if label is not None and not 0 <= label < classes:
        raise InputError(f'there is no class {label}: the model has 0 to {classes - 1}')
    chosen = shares[0].argmax().item() if label is None else label
    maps = []
    for layer in layers:
        cam = LayerGradCam(scores, model.get_submodule(layer))
        # With its gradient wanted at the input, frozen stages have one, too.
        values = cam.attribute(x.clone().requires_grad_(), chosen, relu_attributions=True)
        maps.append(values.detach()[:, 0].cpu())
    share = shares[0, chosen].item()
    return [
        Seen(chosen, share, [Attention(layer, m[i]) for layer, m in zip(layers, maps)])
        for i in range(len(x))
    ]


def _activation(model: nn.Module, x: Tensor, layers: Sequence[str]) -> list[Seen]:
    with torch.no_grad(), recorded(model, layers) as pairs:
        backbone_of(model)(as_frames(model, x))
    for layer in layers:
        _check_map(layer, pairs)
    maps = {layer: output.square().sum(1).cpu() for layer, (_, output) in pairs.items()}
    return [
        Seen(None, None, [Attention(layer, maps[layer][i]) for layer in layers])
        for i in range(len(x))
    ]


def _check_map(layer: str, pairs: dict[str, tuple]) -> None:
    if layer not in pairs:
        raise InputError(f'{layer} is not reached on an image: name another with --layers')
    output = pairs[layer][1]
    if not isinstance(output, Tensor) or output.dim() != 4:
        raise InputError(f'{layer} gives no map: name another with --layers')


def _logits(output: object) -> Tensor:
    while isinstance(output, (tuple, list)):
        output = output[0]
    return output


def _scores(output: object) -> Tensor:
    """Returns a score of each class, `(1, C)`; of pixels, the sum over those of the class."""
    logits = _logits(output)
    if logits.dim() == 2:
        return logits
    own = nn.functional.one_hot(logits.argmax(1), logits.shape[1]).permute(0, 3, 1, 2)
    return (logits * own).sum((2, 3))


def _shares(output: object) -> Tensor:
    """Returns each class's probability, `(1, C)`; of pixels, the share of those of the class."""
    logits = _logits(output)
    if logits.dim() == 2:
        return logits.softmax(1)
    counts = nn.functional.one_hot(logits.argmax(1), logits.shape[1]).sum((1, 2))
    return counts / counts.sum(1, keepdim=True)
