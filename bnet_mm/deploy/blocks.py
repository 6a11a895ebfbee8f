"""The end of a residual block, kernel, addition and ReLU, as one call."""

from operator import attrgetter

from torch import Tensor, nn

from bnet_mm.layers.depthwise import depthwise_transform
from bnet_mm.models.residual_blocks import JoinedEnd, parts_of


class ResidualBlock(nn.Module):
    """A residual block that ends in BNET, for inference; made by `ResidualBlock.of`.

    It has the block's children under the block's names, and so the same tensors.

    Args:
        block: the block whose children it takes over.
        body: names, with dots, of the modules up to the last convolution, in order.
        taps: name of the last norm's kernel.

    Shape:
        input `(N, C, H, W)`, output as the block's.
    """

    def __init__(self, block: nn.Module, body: list[str], taps: str):
        super().__init__()
        for name, child in block.named_children():
            self.add_module(name, child)
        self.body, self.taps = tuple(body), taps
        self.train(block.training)

    @classmethod
    def of(cls, block: nn.Module, taps_class: type[nn.Module]) -> 'ResidualBlock | str':
        """Returns `block` with its end joined, or why that cannot be done.

        Args:
            block: its last norm is folded already.
            taps_class: what then stands in that norm's place.
        """
        parts = parts_of(block)
        if isinstance(parts, str):
            return parts
        joined = isinstance(vars(block).get('forward'), JoinedEnd | None)
        if block._forward_hooks or block._forward_pre_hooks or not joined:
            return 'it has hooks'
        norm = block.get_submodule(parts.norm)
        if not isinstance(norm, taps_class):
            return 'its last norm is not folded'
        if norm._forward_hooks or norm._forward_pre_hooks:
            return 'its last norm has hooks'
        body = [n for n in parts.body if type(block.get_submodule(n)) is not nn.Identity]
        return cls(block, body, parts.norm)

    def forward(self, input: Tensor) -> Tensor:
        downsample = self._modules.get('downsample')
        identity = input if downsample is None else downsample(input)
        output = input
        for name in self.body:
            output = attrgetter(name)(self)(output)
        taps = attrgetter(self.taps)(self)
        return depthwise_transform(
            output, taps.weight, taps.bias, taps.dilation[0], residual=identity, relu=True
        )
