"""Files of graphs that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Callable

from torch import Tensor

from bnet_mm.checkpoint.atomic import write_whole
from bnet_mm.deploy.openvino_files import SUFFIX, move, write_openvino
from bnet_mm.deploy.quantized import Cost, Judge, Photos, cost_of, quantize
from bnet_mm.deploy.runtimes import Graph, graph_to_compare
from bnet_mm.errors import InputError


def graph_file(out: str | Path, runtime: str, half: bool = False) -> Path:
    """Returns the path of a file to write: ONNX, or OpenVINO's own.

    Raises:
        InputError: it is none of these, a folder, in a folder that does not exist, or 16 bits are
            wanted of ONNX.
    """
    out = Path(out)
    names = {'.onnx'} | ({SUFFIX} if runtime == 'openvino' else set())
    if out.suffix not in names or not out.parent.is_dir():
        kinds = 'an .onnx file, or with --runtime openvino an .xml one,'
        raise InputError(f'{out}: name {kinds} in a folder that exists')
    if out.is_dir():  # said before anything is computed, or the first of two files is moved
        raise InputError(f'{out} cannot be written: Is a directory')
    if half and out.suffix != SUFFIX:
        raise InputError(
            f'--half is for files of OpenVINO: name an .xml file and --runtime openvino, not {out}'
        )
    return out


def graph_for(out: Path, file: Path, runtime: str) -> Graph | None:
    """Returns what is compared before `out` is written of an ONNX file that was made for it.

    Returns:
        The graph as the runtime will read it, in float32; None where onnxruntime, the default, is
        not installed.
    """
    if out.suffix == SUFFIX:
        written = file.with_suffix(SUFFIX)
        write_openvino(file, written)
        file = written
    return graph_to_compare(file, runtime)


def write_graph_file(
    out: Path,
    write: Callable[[Path], None],
    judge: Judge,
    runtime: str,
    photos: Photos | None = None,
    half_on: Sequence[Tensor] | None = None,
) -> Cost | None:
    """Lets `write` write a graph, and makes the file of it that was asked for.

    Args:
        out: the file; see `graph_file`.
        write: writes the graph as ONNX in float32 and compares it.
        judge: compares outputs of 8 or 16 bits with these.
        runtime: for which it is made smaller.
        photos: for 8 bits, from which the ranges of maps are taken.
        half_on: for weights of 16 bits, images on which these are judged.

    Returns:
        What 8 or 16 bits cost.
    """
    costs: list[Cost] = []

    def write_onnx(file: Path) -> None:
        write(file)
        if photos is not None:
            whole = file.with_name(f'{file.name}.float32')
            file.replace(whole)
            try:
                costs.append(quantize(whole, file, photos, judge, runtime))
            finally:
                whole.unlink()

    try:
        if out.suffix == '.onnx':
            write_whole(out, write_onnx)
        else:
            with TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}.') as folder:
                file, part = Path(folder) / 'graph.onnx', Path(folder) / out.name
                write_onnx(file)
                write_openvino(file, part, half_on is not None)
                if half_on is not None:
                    costs.append(cost_of(file, part, half_on, judge, runtime, bits=16))
                move(part, out)
    except OSError as error:
        raise InputError(f'{out} cannot be written: {error.strerror or error}') from error
    return costs[0] if costs else None


def check_packages(dynamo: bool) -> None:
    """Raises InputError where a package is missing that exporting needs."""
    for package in ('onnx', *(['onnxscript'] if dynamo else [])):
        try:
            __import__(package)
        except ImportError as error:
            raise InputError(
                f"ONNX needs the package {package}: pip install 'bnet_mm[onnx]'"
            ) from error
