"""The small towers, from Python packages: MiniLM for texts, EfficientNet-lite0 for images.

    texts  -> all-MiniLM-L6-v2, 6 layers   [M, T, 384]
           -> mean over the T tokens       [M, 384], unit length
    images -> EfficientNet-lite0           [M, 1280, 7, 7]
           -> mean over the picture        [M, 1280]        `image_features`
           -> a projection that we trained [M, 384], unit length

The two were trained apart, on texts and on ImageNet's classes. The projection, trained on images
and names of furniture, brings images to the texts' space (locked-tower alignment, Zhai et al.,
CVPR 2022, arXiv 2111.07991). So this pair knows far less than CLIP, and is not called so.

MiniLM: Wang et al., NeurIPS 2020 (arXiv 2002.10957), as sentence-transformers trained it; pooling
as in the card of all-MiniLM-L6-v2. EfficientNet: Tan and Le, ICML 2019 (arXiv 1905.11946); lite0
has ReLU6 and no squeeze-and-excitation.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from o2s import weights
from o2s.errors import InputError
from o2s.ops.linear import widen
from o2s.towers.images import ImagePreparation, PreparedImageTower
from o2s.towers.texts import (
    TokenizedTextTower,
    checksum,
    model_error,
    refuse_missing,
    require_tokens,
)

PROJECTION = Path(str(files("o2s") / "pretrained" / "image_projection.safetensors"))
TEXT_WIDTH = 384
FEATURE_WIDTH = 1280
CPU = torch.device("cpu")

# The original evaluates the middle 224 / (224 + 32) of an image, resized bicubically to 224, with
# values less 127 and divided by 128 (github.com/tensorflow/tpu, models/official/efficientnet:
# preprocessing.py and lite/efficientnet_lite_builder.py).
_MEAN, _STD = 127 / 255, 128 / 255
PREPARATION = ImagePreparation((256,), (224, 224), (_MEAN, _MEAN, _MEAN), (_STD, _STD, _STD))


def small_text_tower(
    device: torch.device = CPU, *, folder: Path | None = None
) -> TokenizedTextTower:
    """all-MiniLM-L6-v2, or another model of sentence-transformers that averages its tokens.

    Args:
        device: where to compute.
        folder: the other model.

    Raises:
        InputError: the weights cannot be fetched, or the folder holds no such model.
    """
    from transformers import AutoModel, AutoTokenizer

    folder = folder or weights.fetch("minilm-l6-v2")
    try:
        model, info = AutoModel.from_pretrained(
            str(folder), dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        limits = json.loads((folder / "sentence_bert_config.json").read_text("utf-8"))
        longest = int(limits["max_seq_length"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        raise model_error(folder, "text", error) from None
    # The pooling layer is BERT's own, for another task than ours.
    missing = [key for key in info["missing_keys"] if not key.startswith("pooler.")]
    refuse_missing(folder, missing)
    require_tokens(folder, tokenizer, model.config.vocab_size)
    widen(model)
    model = model.eval().to(device)

    def encode(inputs: Mapping[str, Tensor]) -> Float[Tensor, "M D"]:
        tokens = model(**inputs).last_hidden_state
        real = inputs["attention_mask"][..., None].to(tokens)
        return F.normalize((tokens * real).sum(dim=1) / real.sum(dim=1), dim=-1)

    return TokenizedTextTower(
        f"minilm:{checksum(folder / 'model.safetensors')}",
        model.config.hidden_size,
        tokenizer=tokenizer,
        longest=longest,
        encode=encode,
        device=device,
    )


def small_image_tower(
    device: torch.device = CPU, *, projection: Path = PROJECTION
) -> PreparedImageTower:
    """EfficientNet-lite0 with the projection that comes with o2s.

    Raises:
        InputError: the projection is missing, damaged or of another shape, or the weights of the
            network cannot be fetched.
    """
    linear = read_projection(projection).to(device)
    network = load_network(device)
    weight_file = weights.fetch("efficientnet-lite0") / "model.safetensors"
    return PreparedImageTower(
        f"efficientnet-lite0:{checksum(weight_file, projection)}",
        TEXT_WIDTH,
        PREPARATION,
        lambda pixels: linear(network.features(pixels)),
        device,
    )


def image_features(
    images: Sequence[Image.Image], device: torch.device = CPU
) -> Float32[Tensor, "M 1280"]:
    """What the projection of the small image tower takes: EfficientNet-lite0's pooled features.

    The network is loaded once a process (and its weights fetched first if need be).
    """
    network = load_network(device)
    return PreparedImageTower("", FEATURE_WIDTH, PREPARATION, network.features, device).embed(
        images
    )


@lru_cache(maxsize=2)
def load_network(device: torch.device = CPU) -> "EfficientNetLite0":
    """EfficientNet-lite0 with its ImageNet weights, in evaluation mode.

    Raises:
        InputError: the weights cannot be fetched, or are not those of this network.
    """
    path = weights.fetch("efficientnet-lite0") / "model.safetensors"
    network = EfficientNetLite0()
    try:
        network.load_state_dict(weights.load_checkpoint(path))
    except RuntimeError as error:
        line = " ".join(str(error).split())
        raise InputError(f"{path}: not the weights of EfficientNet-lite0 ({line[:200]})") from None
    return network.eval().requires_grad_(False).to(device)


def read_projection(path: Path) -> nn.Linear:
    """The projection from EfficientNet-lite0's features to MiniLM's space: `weight`, `bias`.

    Raises:
        InputError: the file is missing, damaged or of another shape.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; the small image tower needs the projection that brings its "
            "features to the space of texts"
        )
    state = weights.load_checkpoint(path)
    linear = nn.Linear(FEATURE_WIDTH, TEXT_WIDTH)
    expected = {name: list(t.shape) for name, t in linear.state_dict().items()}
    found = {name: list(t.shape) for name, t in state.items()}
    if found != expected:
        raise InputError(f"{path}: holds tensors of shape {found}, expected {expected}")
    linear.load_state_dict({name: t.float() for name, t in state.items()})
    return linear.requires_grad_(False)


# Repeats, kernel, stride, expansion, channels in and out of each stage.
_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


class EfficientNetLite0(nn.Module):
    """EfficientNet-lite0 for inference, with the parameter names of efficientnet-lite-pytorch.

    [M, 3, 224, 224] -> stem, 3x3 of stride 2   [M, 32, 112, 112]
                     -> 16 inverted bottlenecks [M, 320, 7, 7]
                     -> head, 1x1               [M, 1280, 7, 7]
                     -> mean                    [M, 1280]
                     -> classes of ImageNet     [M, 1000]

    Sizes: table 1 of arXiv 1905.11946, with the lite variant's changes of
    github.com/tensorflow/tpu, models/official/efficientnet/lite.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv2d(3, 32, 3, stride=2)
        self._bn0 = _norm(32)
        self._blocks = nn.ModuleList(
            _Block(source if i == 0 else target, target, kernel, stride if i == 0 else 1, expansion)
            for repeats, kernel, stride, expansion, source, target in _STAGES
            for i in range(repeats)
        )
        self._conv_head = _SameConv2d(320, FEATURE_WIDTH, 1)
        self._bn1 = _norm(FEATURE_WIDTH)
        self._fc = nn.Linear(FEATURE_WIDTH, 1000)
        # Convolutions of one channel are 1.5 times faster on a CPU with channels last.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def features(self, pixels: Float[Tensor, "M 3 H W"]) -> Float[Tensor, "M 1280"]:
        """Pooled features of images that `PREPARATION` prepared."""
        x = pixels.contiguous(memory_format=torch.channels_last)
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))

    def forward(self, pixels: Float[Tensor, "M 3 H W"]) -> Float[Tensor, "M 1000"]:
        """Scores of ImageNet's classes, before softmax."""
        return self._fc(self.features(pixels))


class _Block(nn.Module):
    """Inverted bottleneck: widen, look around each channel apart, narrow, add the input."""

    def __init__(self, source: int, target: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = source * expansion
        if expansion > 1:
            self._expand_conv = _SameConv2d(source, wide, 1)
            self._bn0 = _norm(wide)
        self._depthwise_conv = _SameConv2d(wide, wide, kernel, stride=stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv = _SameConv2d(wide, target, 1)
        self._bn2 = _norm(target)
        self.widens = expansion > 1
        self.adds = stride == 1 and source == target

    def forward(self, x: Float[Tensor, "M C H W"]) -> Float[Tensor, "M D h w"]:
        wide = F.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        wide = F.relu6(self._bn1(self._depthwise_conv(wide)))
        narrow = self._bn2(self._project_conv(wide))
        return narrow + x if self.adds else narrow


class _SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: what is odd goes to the right and bottom."""

    def __init__(
        self, source: int, target: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(source, target, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, input: Float[Tensor, "M C H W"]) -> Float[Tensor, "M D h w"]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        missing = [
            max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in input.shape[2:]
        ]
        (top, bottom), (left, right) = [(total // 2, total - total // 2) for total in missing]
        return super().forward(F.pad(input, (left, right, top, bottom)))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
