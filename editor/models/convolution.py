"""Convolutions of few pixels by many weights, on a CPU.

oneDNN puts a convolution's weights into an order of its own at every call, forward and back. Where a small map meets
weights that no cache holds, that takes longer than the convolution itself; a product of matrices reads the weights as
they lie. The coarsest level of Stable Diffusion, 8 x 8, takes less than half of the time so.
"""

from __future__ import annotations

from torch import Tensor, addmm, nn
from torch.nn.functional import unfold

LEAST_WEIGHTS = 2**22
"""Below this the weights stay in the cache, and oneDNN is quicker: measured at 640 and at 1280 channels."""
MOST_PIXELS = 128
"""Above this, over all rows of a batch, what oneDNN saves on the pixels makes up for what it spends on the weights: at
1280 channels both are as quick on 16 x 16."""


class ProductConv2d(nn.Conv2d):
    """The same layer as the one given, with the same weights, computed as a product of matrices where that is quicker.

    Args:
        layer: a convolution that `is_plain`.

    Attributes:
        most_pixels: of a result that is computed so; 0 for never.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]  # two numbers, always
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            bias=layer.bias is not None,
            device="meta",
        )
        self.weight, self.bias = layer.weight, layer.bias
        self.most_pixels = MOST_PIXELS

    def forward(self, input: Tensor) -> Tensor:
        """Maps ``(B, I, H, W)`` to maps ``(B, O, h, w)``."""
        bias, padding = self.bias, self.padding
        assert bias is not None
        assert not isinstance(padding, str)
        rows = len(input)
        height, width = map(_side, input.shape[-2:], self.kernel_size, self.stride, padding)
        if rows * height * width > self.most_pixels:
            return super().forward(input)
        # Patches of all rows side by side, (I * k * k, B * h * w): weights by each of them is a pixel.
        patches = unfold(input, self.kernel_size, padding=padding, stride=self.stride)
        product = addmm(bias[:, None], self.weight.flatten(1), patches.movedim(0, 1).flatten(1))
        result: Tensor = product.unflatten(1, (rows, height, width)).movedim(1, 0)
        return result


def _side(length: int, kernel: int, stride: int, padding: int) -> int:
    return (length + 2 * padding - kernel) // stride + 1


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is a convolution with a bias, on zeros beyond the border, without groups and dilation."""
    return (
        type(layer) is nn.Conv2d
        and layer.bias is not None
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def take_products(network: nn.Module, least_weights: int = LEAST_WEIGHTS) -> None:
    """Put a `ProductConv2d` in the place of every plain convolution of at least so many weights."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d) and is_plain(layer) and layer.weight.numel() >= least_weights:
                setattr(parent, name, ProductConv2d(layer).requires_grad_(False).train(layer.training))
