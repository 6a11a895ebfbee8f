"""The operators of a graph: which version, whether ONNX's own, and which runtimes have them.

Of runtimes that were not run here, by their own lists of ONNX operators without a domain:

- TensorRT 8.5, `docs/operators.md` of onnx/onnx-tensorrt, without `QuantizeLinear` and
  `DequantizeLinear`: it wants zero points of 0, which graphs in 8 bits that are written here lack.
- Core ML by onnxruntime's execution provider (ML programs),
  `tools/ci_build/github/apple/coreml_supported_mlprogram_ops.md` of microsoft/onnxruntime. What it
  lacks, onnxruntime computes on the CPU.
"""

from __future__ import annotations

from pathlib import Path

from bnet_mm.errors import InputError

LISTS = {
    'TensorRT 8.5': """
        Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization
        Cast Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum
        DepthToSpace Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten
        Floor GRU Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
        Greater GreaterOrEqual GridSample HardSigmoid HardSwish Identity If InstanceNormalization
        IsNaN LRN LSTM LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul
        Max MaxPool Mean MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero Not
        OneHot Or PRelu Pad Pow RNN RandomNormal RandomNormalLike RandomUniform
        RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
        ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
        ReverseSequence RoiAlign Round Scan Scatter ScatterElements ScatterND Selu Shape Shrink
        Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze
        Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
    """,
    'Core ML': """
        Add ArgMax AveragePool Cast Ceil Clip Concat Constant Conv ConvTranspose Cos DepthToSpace
        Div Elu Erf Exp GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool GridSample
        GroupNormalization HardSigmoid Identity InstanceNormalization LayerNormalization LeakyRelu
        MatMul Max MaxPool Mul PRelu Pow Range Reciprocal ReduceMax ReduceMean ReduceSum Relu
        Reshape Resize Round Shape Sigmoid Sin Slice Softmax Softplus Split Sqrt Squeeze Sub Tanh
        Tile Transpose Unsqueeze
    """,
}


def operators_of(file: str | Path) -> set[str]:
    """Returns the operators of a graph and of the graphs in it, those of a domain with its name."""
    import onnx

    found = set()
    left = [onnx.load(str(file), load_external_data=False).graph]
    while left:
        for node in left.pop().node:
            found.add(f'{node.domain}::{node.op_type}' if node.domain else node.op_type)
            left += [part.g for part in node.attribute if part.type == onnx.AttributeProto.GRAPH]
    return found


def lacking(file: str | Path) -> dict[str, list[str]]:
    """Returns the operators of a graph that are not in the list of a runtime, for each list."""
    found = operators_of(file)
    return {name: sorted(found - set(names.split())) for name, names in LISTS.items()}


def check_opset(opset: int | None, least: int = 7) -> None:
    """Raises InputError for a version of ONNX's operators that cannot be written."""
    import onnx

    most = onnx.defs.onnx_opset_version()
    if opset is not None and not least <= opset <= most:
        raise InputError(f'opset {opset} cannot be written here: name one of {least} to {most}')


def opset_of(file: Path) -> int:
    """Returns which version of ONNX's operators a graph has."""
    import onnx

    domains = onnx.load(str(file), load_external_data=False).opset_import
    return next(domain.version for domain in domains if not domain.domain)


def check_operators(file: Path) -> None:
    """Raises InputError where a file has operators that are not ONNX's own."""
    own = sorted(name.partition('::')[2] for name in operators_of(file) if '::' in name)
    if own:
        raise InputError(
            f'this model needs operators that ONNX has not ({", ".join(own)}), and a '
            f'runtime would need them built in'
        )
