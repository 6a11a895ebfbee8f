"""MMDetection's postprocessing in operators of ONNX, by the rewriters of mmdeploy.

mmdeploy knows for each head of MMDetection how to say its postprocessing in operators that ONNX has
(`NonMaxSuppression`, `RoiAlign`, `TopK`). Its last release is older than torch 2.2: what stops
there, and what is not as MMDetection does it, is put right for as long as an export lasts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from mmengine.config import Config
from torch import nn

from bnet_mm.deploy.deformable import FUNCTIONS
from bnet_mm.deploy.postprocessing import instances, proposals
from bnet_mm.errors import InputError

OPSET = 16  # the first in which RoiAlign counts pixels as mmcv's does
BACKEND = 'onnxruntime'
SAMPLING = 'grid_sampler'  # an operator of its own, where ONNX has one since its 16th set
PROPOSALS = 'mmdet.models.dense_heads.rpn_head.RPNHead.predict_by_feat'
INSTANCES = 'mmdet.models.dense_heads.rtmdet_ins_head.RTMDetInsHead.predict_by_feat'
# Leaves boxes beyond the border of the image, which MMDetection cuts there; the rewriter of its
# base class cuts them.
UNCUT = 'mmdet.models.dense_heads.rtmdet_head.RTMDetHead.predict_by_feat'
REGISTERED = (
    *('codebase.mmdet.deploy', 'codebase.mmdet.models', 'codebase.mmdet.structures'),
    *('mmcv', 'pytorch'),
)


def is_available() -> bool:
    """Tells whether whole detectors can be exported here."""
    try:
        _mmdeploy()
    except InputError:
        return False
    return True


def _mmdeploy() -> tuple[Any, Any]:
    try:
        core, utils = import_module('mmdeploy.core'), import_module('mmdeploy.utils')
        for name in REGISTERED:
            import_module(f'mmdeploy.{name}')
    except Exception as error:  # it reaches into what torch keeps for itself
        raise InputError(
            f'whole detectors are exported by mmdeploy, which cannot be imported ({error}): '
            f'pip install --no-deps mmdeploy==1.3.1 aenum'
        ) from error
    return core, utils


@contextmanager
def rewritten(model: nn.Module, outputs: list[str], free_size: bool) -> Iterator[nn.Module]:
    """Gives a detector for the exporter, whose postprocessing is in operators of ONNX.

    Args:
        model: of MMDetection, of torch's own modules.
        outputs: names of what the graph gives.
        free_size: whether height and width of the image are no constants of the graph.

    Raises:
        InputError: mmdeploy is not installed, or does not work here.
    """
    core, utils = _mmdeploy()
    settings = _settings(outputs, free_size)
    ir = utils.IR.ONNX
    patched = core.patch_model(model, cfg=settings, backend=BACKEND, ir=ir)
    context = core.RewriterContext(cfg=settings, ir=ir, backend=BACKEND, opset=OPSET)
    with _mended(), context:
        yield patched.eval()


def _settings(outputs: list[str], free_size: bool) -> Config:
    """Returns mmdeploy's config; where a model's own `test_cfg` says a number, that counts."""
    return Config(
        dict(
            ir_config=dict(
                type='onnx',
                opset_version=OPSET,
                input_names=['input'],
                output_names=outputs,
                input_shape=None,
                dynamic_axes={'input': {2: 'height', 3: 'width'}} if free_size else None,
            ),
            codebase_config=dict(
                type='mmdet',
                task='ObjectDetection',
                model_type='end2end',
                post_processing=dict(
                    score_threshold=0.05,
                    confidence_threshold=0.005,
                    iou_threshold=0.5,
                    max_output_boxes_per_class=1000,
                    pre_top_k=5000,
                    keep_top_k=100,
                    background_label_id=-1,
                    export_postprocess_mask=True,
                ),
            ),
            backend_config=dict(type=BACKEND),
        )
    )


@contextmanager
def _mended() -> Iterator[None]:
    """Lets mmdeploy 1.3.1 work with torch after 2.1, and as MMDetection does, while it lasts."""
    core = import_module('mmdeploy.core')
    marker = import_module('mmdeploy.core.optimizers.function_marker').Mark
    symbols = import_module('torch.onnx.symbolic_opset9')
    operators = core.SYMBOLIC_REWRITER._registry._rewrite_records
    functions = core.FUNCTION_REWRITER._registry
    mean = import_module('mmdet.models.utils.misc').SigmoidGeometricMean
    with ExitStack() as stack:
        # Marks are for splitting a graph in two; newer exporters do not take them.
        unmarked = staticmethod(lambda tensor, *args: tensor)
        stack.enter_context(patch.object(marker, 'apply', unmarked))
        if not hasattr(symbols, '_cast_Long'):
            stack.enter_context(patch.object(symbols, '_cast_Long', _cast_long, create=True))
        stack.enter_context(patch.object(mean, 'symbolic', staticmethod(_mean), create=True))
        for records, names in (
            (operators, (SAMPLING, *FUNCTIONS)),
            (functions._rewrite_records, (UNCUT,)),
        ):
            stack.enter_context(patch.dict(records))
            for name in names:
                records.pop(name, None)
        for name, ours in ((PROPOSALS, proposals), (INSTANCES, instances)):
            core.FUNCTION_REWRITER.register_rewriter(func_name=name, backend=BACKEND)(ours)
            stack.callback(functions.remove_record, ours)
        yield


def tell_corners(file: Path) -> None:
    """Says in a graph that boxes have four numbers, where that does not follow from its operators.

    OpenVINO asks for it before it runs a `NonMaxSuppression`.
    """
    import onnx

    model = onnx.load(str(file))
    nodes = list(model.graph.node)
    model.graph.ClearField('node')
    for node in nodes:
        if node.op_type == 'NonMaxSuppression':
            boxes, shape = f'{node.name}_boxes', f'{node.name}_shape'
            size = onnx.helper.make_tensor(shape, onnx.TensorProto.INT64, [3], [0, -1, 4])
            model.graph.initializer.append(size)
            told = onnx.helper.make_node('Reshape', [node.input[0], shape], [boxes], name=boxes)
            model.graph.node.append(told)
            node.input[0] = boxes
        model.graph.node.append(node)
    onnx.save(model, str(file))


def _mean(graph: Any, left: Any, right: Any) -> Any:
    """Two sigmoids' geometric mean, by which some heads join class and quality."""
    product = graph.op('Mul', graph.op('Sigmoid', left), graph.op('Sigmoid', right))
    return graph.op('Sqrt', product)


def _cast_long(graph: Any, value: Any, non_blocking: object) -> Any:
    return graph.op('Cast', value, to_i=torch.onnx.TensorProtoDataType.INT64)
