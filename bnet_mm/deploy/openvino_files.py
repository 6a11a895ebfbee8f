"""OpenVINO's own files, in which the kernels of BNET are computed the faster way.

On CPUs with AVX-512 OpenVINO (2026.4) computes a depthwise convolution by the routine of other
ones, and has a faster one for kernels of 5 x 5 and more. A layer of its files may name the routine
that is asked for first; ONNX has no place for that. Where a machine lacks the routine, OpenVINO
takes another that it has.
"""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

from bnet_mm.errors import InputError

SUFFIX = '.xml'  # the tensors lie beside it, in a file .bin
ROUTINE = 'cpu:jit_avx512_dw'
LEAST = 5  # rows of the kernels for which it is faster


def write_openvino(file: Path, out: Path, half: bool = False) -> None:
    """Writes a graph as OpenVINO's own two files.

    Args:
        file: the graph, ONNX.
        out: the `.xml` file; the `.bin` file is written beside it.
        half: whether weights are kept in 16 bits.

    Raises:
        InputError: OpenVINO is not installed, or cannot read the graph.
    """
    try:
        import openvino
    except ImportError as error:
        raise InputError('openvino is not installed: pip install openvino') from error
    try:
        openvino.save_model(openvino.Core().read_model(str(file)), str(out), compress_to_fp16=half)
    except RuntimeError as error:
        reason = ' '.join(str(error).split())[:200]
        raise InputError(f'openvino cannot read {file.name} ({reason})') from error
    tree = ElementTree.parse(out)
    for layer in tree.iter('layer'):
        if _is_kernel(layer):
            info = layer.find('rt_info')
            if info is None:
                info = ElementTree.Element('rt_info')
                layer.insert(list(layer).index(layer.find('data')) + 1, info)
            ElementTree.SubElement(
                info, 'attribute', name='primitives_priority', version='0', value=ROUTINE
            )
    tree.write(out, encoding='utf-8', xml_declaration=True)


def move(source: Path, out: Path) -> None:
    """Moves both files of a graph, the one that is asked for last.

    Args:
        source: the `.xml` file, on the same file system.
        out: where it is to be.
    """
    for suffix in ('.bin', SUFFIX):
        with source.with_suffix(suffix).open('rb+') as file:
            os.fsync(file.fileno())
        source.with_suffix(suffix).replace(out.with_suffix(suffix))


def _is_kernel(layer: ElementTree.Element) -> bool:
    """Tells whether a layer is a depthwise convolution with a large kernel."""
    if layer.get('type') != 'GroupConvolution':
        return False
    weight = layer.findall('input/port')[1]
    _, outputs, inputs, rows, *_ = (int(dim.text or 0) for dim in weight.findall('dim'))
    return outputs == inputs == 1 and rows >= LEAST
