"""The little of torchvision that lerobot's policies use, for where torchvision is not installed.

torchvision has no build beside the CPU build of torch. Importing lerobot needs it all the same:
ACT and Diffusion for their ResNet backbone (He et al., CVPR 2016, the variant with the stride in
the 3x3 convolution), the data sets for augmentations, which an export never runs. The names of the
modules' parameters are those of torchvision, so that checkpoints fit.
"""

import importlib.machinery
import importlib.util
import sys
from collections import OrderedDict
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose statistics and weights are fixed, over (n, c, h, w)."""

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        """Start as the identity."""
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Leave out the counter that a trainable batch normalisation saves."""
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised features."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        offset = self.bias - self.running_mean * scale
        return x * scale[None, :, None, None] + offset[None, :, None, None]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(
        self,
        inputs: int,
        planes: int,
        stride: int,
        downsample: nn.Module | None,
        dilation: int,
        norm: Any,
    ) -> None:
        """Make the layers."""
        super().__init__()
        if dilation > 1:
            msg = "dilation is of no use to the blocks of resnet18 and resnet34: take resnet50"
            raise NotImplementedError(msg)
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = norm(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = norm(planes)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution around a shortcut."""

    expansion = 4

    def __init__(
        self,
        inputs: int,
        planes: int,
        stride: int,
        downsample: nn.Module | None,
        dilation: int,
        norm: Any,
    ) -> None:
        """Make the layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = norm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, dilation, dilation, bias=False)
        self.bn2 = norm(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = norm(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Module):
    """A residual network, with its classifier, which policies cut off."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, int, int, int],
        *,
        weights: str | None = None,
        replace_stride_with_dilation: tuple[bool, bool, bool] = (False, False, False),
        norm_layer: Any = nn.BatchNorm2d,
    ) -> None:
        """Make the layers.

        Args:
            block: The kind of block.
            layers: Blocks of each stage.
            weights: Ignored: a checkpoint brings its own weights, of every layer.
            replace_stride_with_dilation: Of the last three stages.
            norm_layer: The normalisation.

        """
        super().__init__()
        del weights
        self._inputs, self._dilation = 64, 1
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = norm_layer(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        dilate = (False, *replace_stride_with_dilation)
        for index, (count, dilated) in enumerate(zip(layers, dilate, strict=True)):
            stage = self._stage(
                block, 64 << index, count, 1 if index == 0 else 2, dilated, norm_layer
            )
            setattr(self, f"layer{index + 1}", stage)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * block.expansion, 1000)

    def _stage(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        planes: int,
        count: int,
        stride: int,
        dilated: bool,  # noqa: FBT001
        norm: Any,
    ) -> nn.Sequential:
        before = self._dilation
        if dilated:
            self._dilation, stride = self._dilation * stride, 1
        downsample = None
        if stride != 1 or self._inputs != planes * block.expansion:
            downsample = nn.Sequential(
                nn.Conv2d(self._inputs, planes * block.expansion, 1, stride, bias=False),
                norm(planes * block.expansion),
            )
        blocks = [block(self._inputs, planes, stride, downsample, before, norm)]
        self._inputs = planes * block.expansion
        blocks += [
            block(self._inputs, planes, 1, None, self._dilation, norm) for _ in range(1, count)
        ]
        return nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Return the classes' scores of images (n, 3, h, w)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class IntermediateLayerGetter(nn.ModuleDict):
    """A network up to the last of the layers named, giving the outputs of those."""

    def __init__(self, model: nn.Module, return_layers: Mapping[str, str]) -> None:
        """Take the layers of `model` whose outputs are wanted, under the names given."""
        kept: OrderedDict[str, nn.Module] = OrderedDict()
        wanted = set(return_layers)
        for name, layer in model.named_children():
            kept[name] = layer
            wanted.discard(name)
            if not wanted:
                break
        super().__init__(kept)
        self.return_layers = dict(return_layers)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return each wanted layer's output by its name."""
        outputs = {}
        for name, layer in self.items():
            x = layer(x)
            if name in self.return_layers:
                outputs[self.return_layers[name]] = x
        return outputs


class Resize(nn.Module):
    """Bilinear, with antialiasing, as torchvision does with tensors."""

    def __init__(self, size: tuple[int, int]) -> None:
        """Resize to (height, width)."""
        super().__init__()
        self.size = (int(size[0]), int(size[1]))

    def forward(self, x: Tensor) -> Tensor:
        """Return images (n, c, *size)."""
        if x.shape[-2:] == self.size:
            return x
        return nn.functional.interpolate(
            x, self.size, mode="bilinear", align_corners=False, antialias=True
        )


class CenterCrop(nn.Module):
    """The middle of an image, padded with zeros where it is too small."""

    def __init__(self, size: tuple[int, int]) -> None:
        """Crop to (height, width)."""
        super().__init__()
        self.size = (int(size[0]), int(size[1]))

    def forward(self, x: Tensor) -> Tensor:
        """Return images (n, c, *size)."""
        height, width = self.size
        if x.shape[-2] < height or x.shape[-1] < width:
            tall, wide = max(height - x.shape[-2], 0), max(width - x.shape[-1], 0)
            padding = (wide // 2, (wide + 1) // 2, tall // 2, (tall + 1) // 2)
            x = nn.functional.pad(x, padding)
        top = round((x.shape[-2] - height) / 2.0)
        left = round((x.shape[-1] - width) / 2.0)
        return x[..., top : top + height, left : left + width]


class _TrainingOnly(nn.Module):
    """An augmentation: made with a policy, but never run by an export."""

    def __init__(self, *_args: object, **_options: object) -> None:
        super().__init__()

    def forward(self, *_inputs: Any) -> Tensor:
        msg = "this augmentation is torchvision's: install torchvision to train"
        raise NotImplementedError(msg)


class _Lenient(ModuleType):
    """A module whose remaining names are augmentations."""

    def __getattr__(self, name: str) -> type[_TrainingOnly]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _TrainingOnly


def _resnet(block: type[BasicBlock] | type[Bottleneck], *layers: int) -> Any:
    def make(**options: Any) -> ResNet:
        return ResNet(block, layers, **options)  # type: ignore[arg-type]

    return make


def install() -> bool:
    """Put the shim where torchvision is not installed; return whether it was needed."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        return False
    names = ("models", "models._utils", "ops", "ops.misc", "transforms", "transforms.v2")
    functional = "transforms.v2.functional", "transforms.functional"
    modules = {name: _Lenient(f"torchvision.{name}") for name in (*names, *functional)}
    root = _Lenient("torchvision")
    for name, module in {"": root, **modules}.items():
        full = f"torchvision.{name}".rstrip(".")
        module.__spec__ = importlib.machinery.ModuleSpec(full, None, is_package=True)
        module.__path__ = []
        sys.modules[full] = module
        if name:
            parent, _, child = full.rpartition(".")
            setattr(sys.modules[parent], child, module)
    models = modules["models"]
    models.__dict__.update(
        resnet18=_resnet(BasicBlock, 2, 2, 2, 2),
        resnet34=_resnet(BasicBlock, 3, 4, 6, 3),
        resnet50=_resnet(Bottleneck, 3, 4, 6, 3),
        resnet101=_resnet(Bottleneck, 3, 4, 23, 3),
        resnet152=_resnet(Bottleneck, 3, 8, 36, 3),
    )
    modules["models._utils"].__dict__["IntermediateLayerGetter"] = IntermediateLayerGetter
    modules["ops.misc"].__dict__["FrozenBatchNorm2d"] = FrozenBatchNorm2d
    modules["transforms"].__dict__.update(Resize=Resize, CenterCrop=CenterCrop)
    return True
