"""Convolutions of small maps by many weights, on a CPU.

oneDNN reorders a convolution's weights at every call, forward and backward. For a small map and weights too large for
the cache, that takes longer than the convolution itself; a matrix product reads the weights in place. It more than
halves the time of Stable Diffusion's coarsest level, 8 x 8.
"""

from __future__ import annotations

from torch import Tensor, addmm, nn
from torch.nn.functional import unfold

MIN_WEIGHTS = 2**22
"""With fewer weights, which stay in the cache, oneDNN is faster: measured at 640 and 1280 channels."""
MAX_PIXELS = 128
"""With more pixels, over all rows of a batch, oneDNN is faster: at 1280 channels they tie on 16 x 16."""


class MatmulConv2d(nn.Conv2d):
    """A convolution computed as a matrix product if its output is small; shares the weights of the given layer.

    Args:
        layer: a convolution that `is_plain`.

    Attributes:
        max_pixels: of an output computed as a matrix product; 0 for never.
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
        self.max_pixels = MAX_PIXELS

    def forward(self, input: Tensor) -> Tensor:
        """Maps ``(B, I, H, W)`` to maps ``(B, O, h, w)``."""
        bias, padding = self.bias, self.padding
        assert bias is not None
        assert not isinstance(padding, str)
        rows = len(input)
        height, width = map(_side, input.shape[-2:], self.kernel_size, self.stride, padding)
        if rows * height * width > self.max_pixels:
            return super().forward(input)
        # Patches of all rows side by side, (I * k * k, B * h * w): each gives a pixel.
        patches = unfold(input, self.kernel_size, padding=padding, stride=self.stride)
        product = addmm(bias[:, None], self.weight.flatten(1), patches.movedim(0, 1).flatten(1))
        result: Tensor = product.unflatten(1, (rows, height, width)).movedim(1, 0)
        return result


def _side(length: int, kernel: int, stride: int, padding: int) -> int:
    return (length + 2 * padding - kernel) // stride + 1


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is a convolution with a bias and zero padding, without groups and dilation."""
    return (
        type(layer) is nn.Conv2d
        and layer.bias is not None
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def use_matrix_products(network: nn.Module, min_weights: int = MIN_WEIGHTS) -> None:
    """Replace every plain convolution with at least ``min_weights`` weights by a `MatmulConv2d`."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d) and is_plain(layer) and layer.weight.numel() >= min_weights:
                setattr(parent, name, MatmulConv2d(layer).requires_grad_(False).train(layer.training))
