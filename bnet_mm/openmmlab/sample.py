"""Runs any model on a picture, without a dataset: whole OpenMMLab models as far as their heads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bnet_mm.errors import InputError

Run = Callable[[nn.Module], object]
# Small, not square, and a multiple of every usual stride.
SHAPE = (64, 96)
BOXES = 8
FRAMES = 8
# How the libraries' preprocessors call that they turn BGR into RGB.
TO_RGB = ('_channel_conversion', 'channel_conversion', 'to_rgb')


def runs_on(model: nn.Module, inputs: object, shape: tuple[int, int] | None) -> list[Run]:
    """Returns the runs on which a model is looked at.

    Args:
        model: the model.
        inputs: None for a random picture; a tensor or a tuple of tensors, which are its arguments,
            for these and random ones like them; or a function that runs the model it is given.
        shape: height and width of the random picture; (64, 96) by default.

    Raises:
        InputError: `inputs` is none of these, or the model has no convolution that would tell how
            many channels a picture has.
    """
    if inputs is None:
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        if first is None:
            raise InputError(f'{type(model).__name__} has no Conv2d: there is nothing to fold into')
        channels = 3 if is_whole_model(model) else first.in_channels
        return [_run_on(_random(torch.empty(1, channels, *(shape or SHAPE))))]
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


def weight_of(model: nn.Module) -> Tensor:
    """Returns a weight, for the type and the device that a model works in."""
    return next(t for t in model.parameters() if t.is_floating_point())


def is_whole_model(model: nn.Module) -> bool:
    """Tells whether a model is one of OpenMMLab's, with its preprocessor, and no mere backbone."""
    names = {(base.__module__.split('.')[0], base.__name__) for base in type(model).__mro__}
    return ('mmengine', 'BaseModel') in names


def library_of(model: nn.Module) -> str | None:
    """Returns the OpenMMLab library that a model's class, or what it derives from, belongs to."""
    packages = [base.__module__.split('.')[0] for base in type(model).__mro__]
    known = ('mmdet', 'mmseg', 'mmaction', 'mmpretrain')
    return next((package for package in packages if package in known), None)


def read_picture(path: str | Path, model: nn.Module, shape: tuple[int, int] | None) -> Tensor:
    """Returns a picture as the model's own preprocessor would give it, `(1, 3, H, W)`.

    Args:
        path: file.
        model: an OpenMMLab model.
        shape: what it is resized to; its own size by default.

    Raises:
        InputError: it cannot be read.
    """
    import mmcv

    try:
        picture = mmcv.imread(str(path))
    except Exception as error:
        # Of the file system, or of one of several decoders.
        raise InputError(f'picture {path} cannot be read: {error}') from error
    if picture is None:
        raise InputError(f'picture {path} cannot be read: it is no picture')
    if shape is not None:
        picture = mmcv.imresize(picture, shape[::-1])
    return as_input(picture, model)


def as_input(picture: np.ndarray, model: nn.Module) -> Tensor:
    """Returns a picture as the model's own preprocessor would give it, `(1, 3, H, W)`.

    Args:
        picture: `(H, W, 3)` bytes, BGR.
        model: an OpenMMLab model.
    """
    tensor = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
    if _wants_rgb(model):
        tensor = tensor.flip(1)
    preprocessor = model.data_preprocessor
    if isinstance(getattr(preprocessor, 'mean', None), Tensor):
        mean, std = (t.cpu().view(1, -1, 1, 1) for t in (preprocessor.mean, preprocessor.std))
        tensor = (tensor - mean) / std
    return tensor


def _wants_rgb(model: nn.Module) -> bool:
    """Tells whether a model's network sees red first."""
    preprocessor = model.data_preprocessor
    turns = any(getattr(preprocessor, name, False) for name in TO_RGB)
    if library_of(model) == 'mmaction':  # whose decoders give RGB
        return not turns
    if turns:
        return True
    # Pictures that come as RGB, CIFAR's for example, are told by their means: of natural pictures
    # red has the largest and blue the smallest.
    means = getattr(preprocessor, 'mean', None)
    return isinstance(means, Tensor) and means.numel() == 3 and bool(means.flatten()[0] > means[-1])


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
            outputs.append(run_whole(model, tensors[0]))
        return outputs

    return run


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


def run_whole(model: nn.Module, picture: Tensor) -> object:
    """Runs one of OpenMMLab's models, heads included, and returns what its heads give.

    Args:
        model: whole, with its preprocessor.
        picture: `(1, 3, H, W)`, preprocessed; for a recognizer also the frames of a clip,
            `(1, T, 3, H, W)`.
    """
    library = library_of(model)
    if library == 'mmdet':
        return _run_detector(model, picture)
    if library == 'mmaction':
        if picture.dim() == 4:
            picture = _clip(model, picture)
        return model(picture, mode='tensor', stage='head')
    return model(picture, mode='tensor')


def _clip(model: nn.Module, picture: Tensor) -> Tensor:
    """Returns one picture as the frames of a clip."""
    n, c, h, w = picture.shape
    if type(model).__name__ == 'Recognizer3D':
        return picture[:, None, :, None].expand(n, 1, c, FRAMES, h, w)
    # A network that shifts between frames wants as many as it shifts between.
    frames = getattr(model.backbone, 'num_segments', 2)
    return picture[:, None].expand(n, frames, c, h, w)


def _run_detector(model: nn.Module, picture: Tensor) -> object:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    n, _, height, width = picture.shape
    size = {'img_shape': (height, width), 'pad_shape': (height, width)}
    meta = {**size, 'ori_shape': (height, width), 'batch_input_shape': (height, width)}
    samples = [DetDataSample(metainfo={**meta, 'scale_factor': (1.0, 1.0)}) for _ in range(n)]
    first_stage = getattr(model, 'rpn_head', None) if hasattr(model, 'roi_head') else None
    if first_stage is None:
        return model(picture, samples, mode='tensor')
    # The type is given: torch draws other numbers for another one.
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(BOXES, 2, 2, generator=generator, dtype=torch.float64).sort(1)[0]
    boxes = (corners * torch.tensor([width, height])).view(BOXES, 4).to(picture)

    # The best of the first stage's own boxes may change places by a rounding.
    def predict(features: tuple[Tensor, ...], *args, **kwargs) -> list[InstanceData]:
        first_stage(features)
        return [InstanceData(bboxes=boxes) for _ in range(n)]

    first_stage.predict = predict
    try:
        return model(picture, samples, mode='tensor')
    finally:
        del first_stage.predict
