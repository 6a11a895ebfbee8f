"""A written graph in the place of a model's network, so that the model's own test set judges it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from torch import Tensor, nn

from bnet_mm.deploy.runtimes import Graph, read_graph
from bnet_mm.errors import InputError, program
from bnet_mm.openmmlab.libraries import library_of

DETECTIONS = ['boxes', 'scores', 'labels']


def stand_in(
    model: nn.Module, file: str | Path, runtime: str = 'onnxruntime', whole: bool = True
) -> None:
    """Lets a model predict by a graph that `export_onnx` or `export_detector` has written of it.

    Its preprocessing and what turns outputs into predictions stay the library's. Where the graph of
    a detector has one size, an image is padded to it, and made smaller first if it is larger.

    Args:
        model: an OpenMMLab model of the config that was exported.
        file: the graph.
        runtime: in which it is run.
        whole: whether the model has no weights beside the graph's.

    Raises:
        InputError: the graph cannot be read, is not of such a model, or is of its backbone where
            the weights of the rest are not there.
    """
    graph = read_graph(file, runtime)
    if graph.outputs[:1] == ['stage1'] and hasattr(model, 'backbone'):
        if whole:
            raise InputError(f'{file} holds the backbone: name a checkpoint, and it by --graph')
        model.backbone = _Backbone(graph, library_of(model) == 'mmaction')
    elif graph.outputs == ['logits'] and hasattr(model, 'encode_decode'):
        model.encode_decode = lambda inputs, metas: _at(inputs, graph(inputs)[0])
    elif graph.outputs == ['logits'] and hasattr(model, 'head'):
        model.extract_feat = lambda inputs, *args, **kwargs: (inputs,)
        model.head.forward = lambda features: _at(features[0], graph(features[0])[0])
    elif graph.outputs[:3] == DETECTIONS and hasattr(model, 'add_pred_to_datasample'):
        model.predict = _Predict(graph, model)
    else:
        raise InputError(
            f'{file} gives {", ".join(graph.outputs)}, which a {type(model).__name__} cannot use: '
            f'name a graph that {program("export_onnx")} has written of this config'
        )
    print_log(f'{file} computes {", ".join(graph.outputs)}, in {runtime}', logger='current')


def _at(inputs: Tensor, outputs: Tensor) -> Tensor:
    return outputs.to(inputs.device)


class _Backbone(nn.Module):
    # MMAction2's backbones give one stage as a tensor, the others as a tuple of one.
    def __init__(self, graph: Graph, one_alone: bool):
        super().__init__()
        self.graph, self.one_alone = graph, one_alone

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        stages = tuple(_at(inputs, stage) for stage in self.graph(inputs))
        return stages[0] if self.one_alone and len(stages) == 1 else stages


class _Predict:
    """A detector's `predict`, by a graph that takes one image at a time."""

    def __init__(self, graph: Graph, model: Any):
        self.graph, self.collect = graph, model.add_pred_to_datasample

    def __call__(self, inputs: Tensor, samples: list, rescale: bool = True) -> list:
        found = [self._found_in(image, sample) for image, sample in zip(inputs, samples)]
        return self.collect(samples, found)

    def _found_in(self, image: Tensor, sample: Any) -> InstanceData:
        height, width = sample.img_shape[:2]
        image = image[None]  # padded as the model's own network sees it
        if self.graph.size is not None:
            image, height, width = _fitted(image[:, :, :height, :width], self.graph.size)
        boxes, scores, labels, *masks = self.graph(image)
        full_height, full_width = sample.ori_shape[:2]
        across, down = full_width / width, full_height / height
        boxes = boxes.float() * boxes.new_tensor([across, down, across, down])
        limits = boxes.new_tensor([full_width, full_height, full_width, full_height])
        found = InstanceData(bboxes=boxes.clamp(min=0).minimum(limits), scores=scores.float())
        found.labels = labels.long()
        if masks:
            parts = masks[0][:, None, :height, :width].float()
            sized = F.interpolate(parts, (full_height, full_width), mode='bilinear')
            found.masks = sized[:, 0] > 0.5
        return found.to(image.device)


def _fitted(image: Tensor, size: tuple[int, int]) -> tuple[Tensor, int, int]:
    """Returns an image padded to a size, and the height and width of what is the image in it."""
    height, width = image.shape[2:]
    scale = min(1.0, size[0] / height, size[1] / width)
    if scale < 1:
        height, width = int(height * scale), int(width * scale)
        image = F.interpolate(image, (height, width), mode='bilinear', antialias=True)
    return F.pad(image, (0, size[1] - width, 0, size[0] - height)), height, width
