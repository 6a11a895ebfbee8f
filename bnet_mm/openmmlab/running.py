"""Runs any model without a dataset: example inputs of the right size, heads included.

For networks beside OpenMMLab's it needs torch alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from bnet_mm.errors import InputError
from bnet_mm.openmmlab.libraries import LIBRARIES, library_of

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.structures import InstanceData

CIFAR_SHAPE = (32, 32)
PROPOSALS = 1000  # that the paper's counter gives to a second stage
FRAMES = 8  # of a clip whose length no config tells


def input_shape(cfg: Config) -> tuple[int, int]:
    """Returns the height and width at which the model of a config is counted and timed."""
    size = ((cfg.get('model') or {}).get('data_preprocessor') or {}).get('size')
    scope = cfg.get('default_scope')
    if scope == 'mmseg' and isinstance(size, (tuple, list)):
        return tuple(size)
    dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    if 'CIFAR' in str(dataset.get('type')):
        return CIFAR_SHAPE
    return LIBRARIES[scope if scope in LIBRARIES else 'mmpretrain'].input_shape


def weight_of(model: nn.Module) -> Tensor:
    """Returns a weight of a model, for the type and the device that it computes in."""
    return next(t for t in model.parameters() if t.is_floating_point())


def is_whole_model(model: nn.Module) -> bool:
    """Tells whether a model is one of OpenMMLab's with its preprocessor, and no mere backbone."""
    names = {(base.__module__.partition('.')[0], base.__name__) for base in type(model).__mro__}
    return ('mmengine', 'BaseModel') in names


def input_channels(model: nn.Module) -> int:
    """Returns how many channels the images of a model have: 4 bands, or 10 of optical flow.

    Raises:
        InputError: the model has no convolution that would tell.
    """
    network = backbone_of(model)
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            # YOLOX's first convolution sees each 2 x 2 pixels as channels.
            parts = name.split('.')
            around = [network.get_submodule('.'.join(parts[:i])) for i in range(len(parts))]
            focused = any(type(parent).__name__ == 'Focus' for parent in around)
            return module.in_channels // (4 if focused else 1)
    raise InputError(f'{type(model).__name__} has no convolution that tells its input channels')


def backbone_of(model: nn.Module) -> nn.Module:
    """Returns the backbone of a whole model, or the network itself."""
    return getattr(model, 'backbone', model)


def clip_frames(model: nn.Module) -> int:
    """Returns between how many frames a model shifts; 1 for one that looks at each by itself."""
    return getattr(backbone_of(model), 'num_segments', 1)


def as_frames(model: nn.Module, images: Tensor) -> Tensor:
    """Returns images `(N, C, H, W)` as a backbone takes them: one becomes a clip standing still."""
    return images.expand(clip_frames(model), -1, -1, -1) if len(images) == 1 else images


def example_input(
    model: nn.Module, shape: tuple[int, int], cfg: Config | None = None, frames: int = 1
) -> Tensor:
    """Returns an empty image or clip that a model takes, in the model's type and on its device.

    Args:
        model: a network, or a whole model of OpenMMLab.
        shape: height and width.
        cfg: the model's config, for the length of a clip.
        frames: of a clip for a recognizer of single frames, where the network does not shift
            between a number of its own.

    Returns:
        `(1, C, H, W)`; for a recognizer `(1, T, C, H, W)`, or `(1, 1, C, T, H, W)` for a 3-D one.

    Raises:
        InputError: the model has no convolution, or is a 3-D recognizer whose config names no
            length of its clips.
    """
    size: tuple[int, ...] = (input_channels(model), *shape)
    if is_whole_model(model) and library_of(model) == 'mmaction':
        if type(model).__name__ == 'Recognizer3D':
            length = FRAMES if cfg is None else _clip_length(cfg)
            size = (1, size[0], length, *shape)
        else:
            size = (getattr(model.backbone, 'num_segments', frames), *size)
    return weight_of(model).new_zeros((1, *size))


def _clip_length(cfg: Config) -> int:
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    for step in dataset.get('pipeline') or []:
        if 'clip_len' in step:
            return step['clip_len']
    raise InputError(
        'a 3-D recognizer is counted at the clip_len of its test pipeline, which is missing'
    )


def as_clip(model: nn.Module, images: Tensor) -> Tensor:
    """Returns images `(N, C, H, W)` as a recognizer takes them; for other models, as they are.

    They are the frames of one clip, `(1, T, C, H, W)`; one image is a clip that stands still.
    """
    if library_of(model) != 'mmaction' or not is_whole_model(model):
        return images
    if type(model).__name__ == 'Recognizer3D':
        frames = images.expand(FRAMES, -1, -1, -1) if len(images) == 1 else images
        return frames.transpose(0, 1)[None, None]
    return as_frames(model, images)[None]


def run_model(model: nn.Module, inputs: Tensor, proposals: Tensor | None = None) -> object:
    """Runs a model on preprocessed input, heads included, and returns what it gives.

    Args:
        model: a network, or a whole model of OpenMMLab.
        inputs: see `example_input`; of any other network, its argument.
        proposals: boxes `(n, 4)` that the second stage of a detector classifies, in the place of
            those of its first stage, which may change places by a rounding; 1000 empty ones by
            default.
    """
    if not is_whole_model(model):
        return model(inputs)
    # What a model makes by itself, anchors for example, has no memory either.
    with inputs.device if inputs.is_meta else nullcontext():
        library = library_of(model)
        if library == 'mmaction':
            return model(inputs, mode='tensor', stage='head')
        if library != 'mmdet':
            return model(inputs, mode='tensor')
        from mmdet.structures import DetDataSample

        size = tuple(inputs.shape[-2:])
        metainfo = dict.fromkeys(('img_shape', 'pad_shape', 'ori_shape', 'batch_input_shape'), size)
        samples = [DetDataSample(metainfo={**metainfo, 'scale_factor': (1.0, 1.0)}) for _ in inputs]
        boxes = inputs.new_zeros(PROPOSALS, 4) if proposals is None else proposals.to(inputs)
        with _fixed_proposals(model, boxes):
            return model(inputs, samples, mode='tensor')


@contextmanager
def _fixed_proposals(model: nn.Module, boxes: Tensor) -> Iterator[None]:
    """Gives the second stage of a detector, if it has one, these boxes for every image."""
    replaced = []
    first_stage = getattr(model, 'rpn_head', None)
    if first_stage is not None and hasattr(model, 'roi_head'):
        replaced.append((first_stage, 'predict', partial(_predict, first_stage, boxes)))
    for module in model.modules() if boxes.is_meta else ():
        if hasattr(module, 'roi_layers') and hasattr(module, 'out_channels'):
            replaced.append((module, 'forward', partial(_regions, module)))
    for owner, name, function in replaced:
        setattr(owner, name, function)
    try:
        yield
    finally:
        for owner, name, _ in replaced:
            delattr(owner, name)


def _predict(
    first_stage: nn.Module, boxes: Tensor, features: tuple[Tensor, ...], *args, **kwargs
) -> list[InstanceData]:
    from mmengine.structures import InstanceData

    first_stage(features)
    return [InstanceData(bboxes=boxes) for _ in features[0]]


def _regions(extractor: nn.Module, features: tuple[Tensor, ...], rois: Tensor, *args) -> Tensor:
    """Stands for RoIAlign, which multiplies nothing and does not take meta tensors."""
    size = extractor.roi_layers[0].output_size
    return features[0].new_zeros(len(rois), extractor.out_channels, *size)


@contextmanager
def recorded(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, tuple]]:
    """Gathers input and output of modules, by name, of the first time that each is called.

    Tensors are copies: what follows a layer may work in place.
    """
    pairs: dict[str, tuple] = {}

    def record(name: str, module: nn.Module, inputs: tuple, output: object) -> None:
        pairs.setdefault(name, (_copy(inputs[0] if inputs else None), _copy(output)))

    handles = [
        model.get_submodule(name).register_forward_hook(partial(record, name)) for name in names
    ]
    try:
        yield pairs
    finally:
        for handle in handles:
            handle.remove()


def _copy(value: object) -> object:
    return value.detach().clone() if isinstance(value, Tensor) else value


@contextmanager
def sized_errors(network: nn.Module, images: Tensor, option: str = '--shape') -> Iterator[None]:
    """Turns a network's failure on images of a size that it does not take into one sentence."""
    try:
        yield
    except InputError:
        raise
    except (AssertionError, RuntimeError, ValueError) as error:
        height, width = images.shape[-2:]
        reason = str(error).partition('\n')[0] or type(error).__name__
        raise InputError(
            f'{type(network).__name__} cannot run on an image of {width}x{height}, perhaps on one '
            f'of another size ({option}): {reason}'
        ) from error


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yields the tensors in nested outputs, of OpenMMLab's data structures too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif hasattr(value, '__dict__') and not isinstance(value, (type, nn.Module)):
        yield from tensors_in(vars(value))
