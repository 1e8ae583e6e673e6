"""What VLAs do to an image before their vision encoder sees it, inside the graph."""

import torch
from torch import Tensor
from torch.nn import functional


class FitImage(torch.nn.Module):
    """Resize without distortion, pad, and map 0 to 1 onto -1 to 1, as the policy itself does.

    The sizes are fixed, so that the graph has no branch. `SmolVLAPolicy.prepare_images` pads with
    black at the left and top, `PI0Policy._preprocess_images` around; the latter pads with -1 before
    it maps the range, hence with -3: both are as they are, for a checkpoint has been trained so.
    """

    def __init__(
        self,
        source: tuple[int, int],
        size: tuple[int, int] | None,
        *,
        centred: bool,
        pad: float,
    ) -> None:
        """Plan the way from `source` to `size`, (height, width) both; None leaves the size."""
        super().__init__()
        self.resized: tuple[int, int] | None = None
        self.padding = (0, 0, 0, 0)
        self.pad = pad
        self.clamp = centred
        if size is None or (centred and source == size):
            self.clamp = False
            return
        ratio = max(source[1] / size[1], source[0] / size[0])
        self.resized = (int(source[0] / ratio), int(source[1] / ratio))
        tall, wide = size[0] - self.resized[0], size[1] - self.resized[1]
        left, top = (wide // 2, tall // 2) if centred else (wide, tall)
        self.padding = (left, wide - left, top, tall - top)

    def forward(self, image: Tensor) -> Tensor:
        """Return the image (1, 3, *size) of one (1, 3, h, w)."""
        if self.resized is not None and self.resized != tuple(image.shape[-2:]):
            image = functional.interpolate(
                image, self.resized, mode="bilinear", align_corners=False
            )
        if self.clamp:
            image = image.clamp(-1.0, 1.0)
        if any(self.padding):
            image = functional.pad(image, self.padding, value=self.pad)
        return image * 2.0 - 1.0
