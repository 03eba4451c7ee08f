"""SLIP's towers, out of its own checkpoints or out of ULIP-1's, which carry them.

    texts  -> CLIP's tokens, T <= 77            [M, T]
           -> causal transformer, QuickGELU     [M, T, W]
           -> the end token -> text_projection  [M, E]
    images -> ViT, patches of 16, GELU          [M, 197, V]
           -> class token -> image_projection   [M, E]

W 512, V 768, E 512 for ViT-B/16. SLIP: Mu et al., ECCV 2022 (arXiv 2112.12750); names and sizes of
the weights as in github.com/facebookresearch/SLIP, models.py, and github.com/salesforce/ULIP,
models/ULIP_models.py. The ViT has the names of timm. The tokenizer is CLIP's, from a folder: no
checkpoint carries it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int
from PIL import Image
from torch import Tensor

from o2s import weights
from o2s.errors import InputError
from o2s.towers.images import IMAGENET_MEAN, IMAGENET_STD, ImagePreparation, PreparedImageTower
from o2s.towers.texts import TokenizedTextTower, checksum, model_error

# SLIP's evaluation resizes the short side to 224 (bilinearly, torchvision's default).
IMAGE_SIDE = 224

_NEEDED = "SLIP's texts need CLIP's tokenizer, a folder or hub name that holds it"

State = Mapping[str, Tensor]


def slip_text_tower(
    checkpoint: Path,
    tokenizer: str | None,
    device: torch.device,
    *,
    trust_pickle: bool = False,
) -> TokenizedTextTower:
    """The text tower of a checkpoint.

    A text that is too long keeps its end token, from which the vector is read; SLIP's own
    tokenizer loses it.

    Args:
        checkpoint: a file of SLIP or of ULIP-1.
        tokenizer: a folder or hub name with CLIP's tokenizer; the folder of the checkpoint if
            none is given.
        device: where to compute.
        trust_pickle: as of `weights.load_checkpoint`.

    Raises:
        InputError: the checkpoint cannot be read or has no text tower; no tokenizer, or one that
            knows other tokens.
    """
    from transformers import CLIPTokenizer

    state = _load(checkpoint, _TEXT, trust_pickle, device)
    source = tokenizer or str(checkpoint.parent)
    try:
        tokens = CLIPTokenizer.from_pretrained(source)
    except Exception as error:  # the libraries below raise many kinds
        reason = model_error(source, "tokenizer", error)
        raise InputError(f"{reason}; {_NEEDED}") from None
    known = len(state["token_embedding.weight"])
    # transformers makes a tokenizer of two tokens out of a folder that holds none.
    if len(tokens) != known:
        raise InputError(
            f"{source}: a tokenizer of {len(tokens)} tokens; {_NEEDED}, of the {known} tokens that "
            f"{checkpoint} knows"
        )
    end = int(tokens.eos_token_id)
    return TokenizedTextTower(
        f"slip:{checksum(checkpoint)}:{_told_apart(tokens)}",
        state["text_projection"].shape[1],
        tokenizer=tokens,
        longest=len(state["positional_embedding"]),
        encode=lambda inputs: encode_text(state, inputs["input_ids"], end),
        device=device,
    )


def _told_apart(tokenizer: Any) -> str:
    """The beginning of a SHA-256 of all that a tokenizer does."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:16]


def slip_image_tower(
    checkpoint: Path, device: torch.device, *, trust_pickle: bool = False
) -> PreparedImageTower:
    """The image tower of a checkpoint of SLIP or of ULIP-1.

    Raises:
        InputError: the checkpoint cannot be read or has no image tower.
    """
    state = _load(checkpoint, _IMAGE, trust_pickle, device)
    prepare = ImagePreparation(
        (IMAGE_SIDE,),
        (IMAGE_SIDE, IMAGE_SIDE),
        IMAGENET_MEAN,
        IMAGENET_STD,
        Image.Resampling.BILINEAR,
    )
    places = state["visual.pos_embed"].shape[1]
    patch = state["visual.patch_embed.proj.weight"].shape[-1]
    if places != 1 + (IMAGE_SIDE // patch) ** 2:
        raise InputError(
            f"{checkpoint}: a ViT of {places} places, expected that of images of {IMAGE_SIDE} "
            f"pixels in patches of {patch}"
        )
    width = state["image_projection"].shape[1]
    return PreparedImageTower(
        f"slip:{checksum(checkpoint)}",
        width,
        prepare,
        lambda pixels: encode_image(state, pixels),
        device,
    )


def encode_text(state: State, ids: Int[Tensor, "M T"], end: int) -> Float[Tensor, "M E"]:
    """The vector of each text, read from its first end token. Attention is causal, so that what
    follows it does not matter."""
    x = state["token_embedding.weight"][ids] + state["positional_embedding"][: ids.shape[1]]
    heads = max(1, x.shape[-1] // 64)
    for layer in range(_layers(state, "transformer.resblocks.")):
        at = f"transformer.resblocks.{layer}."
        y = _norm(state, f"{at}ln_1", x, 1e-5)
        y = F.linear(y, state[f"{at}attn.in_proj_weight"], state[f"{at}attn.in_proj_bias"])
        x = x + _linear(state, f"{at}attn.out_proj", _attend(y, heads, causal=True))
        y = _linear(state, f"{at}mlp.c_fc", _norm(state, f"{at}ln_2", x, 1e-5))
        x = x + _linear(state, f"{at}mlp.c_proj", y * torch.sigmoid(1.702 * y))
    x = _norm(state, "ln_final", x, 1e-5)
    ends = (ids == end).int().argmax(dim=1)
    return x[torch.arange(len(x), device=x.device), ends] @ state["text_projection"]


def encode_image(state: State, pixels: Float32[Tensor, "M 3 H W"]) -> Float[Tensor, "M E"]:
    """The vector of each image, read from the class token."""
    kernel, bias = (state[f"visual.patch_embed.proj.{part}"] for part in ("weight", "bias"))
    patches = F.conv2d(pixels, kernel, bias, stride=kernel.shape[2:])
    x = patches.flatten(2).transpose(1, 2)
    x = torch.cat([state["visual.cls_token"].expand(len(x), -1, -1), x], dim=1)
    x = x + state["visual.pos_embed"]
    # SLIP's ViT-S has 12 heads, as MoCo v3's.
    heads = 12 if x.shape[-1] == 384 else max(1, x.shape[-1] // 64)
    for layer in range(_layers(state, "visual.blocks.")):
        at = f"visual.blocks.{layer}."
        y = _linear(state, f"{at}attn.qkv", _norm(state, f"{at}norm1", x, 1e-6))
        x = x + _linear(state, f"{at}attn.proj", _attend(y, heads, causal=False))
        y = _linear(state, f"{at}mlp.fc1", _norm(state, f"{at}norm2", x, 1e-6))
        x = x + _linear(state, f"{at}mlp.fc2", F.gelu(y))
    return _norm(state, "visual.norm", x, 1e-6)[:, 0] @ state["image_projection"]


@dataclass(frozen=True)
class _Half:
    """The names of a tower's weights: those outside its layers, the layers, those inside each."""

    outside: tuple[str, ...]
    layers: str
    inside: tuple[str, ...]

    def names(self, layers: int) -> list[str]:
        numbers = range(max(1, layers))
        return [
            *self.outside,
            *(f"{self.layers}{n}.{name}" for n in numbers for name in self.inside),
        ]


def _pairs(*modules: str) -> tuple[str, ...]:
    return tuple(f"{module}.{part}" for module in modules for part in ("weight", "bias"))


_TEXT = _Half(
    ("token_embedding.weight", "positional_embedding", "text_projection", *_pairs("ln_final")),
    "transformer.resblocks.",
    (
        "attn.in_proj_weight",
        "attn.in_proj_bias",
        *_pairs("attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj"),
    ),
)
_IMAGE = _Half(
    (
        "visual.cls_token",
        "visual.pos_embed",
        "image_projection",
        *_pairs("visual.patch_embed.proj", "visual.norm"),
    ),
    "visual.blocks.",
    _pairs("attn.qkv", "attn.proj", "norm1", "norm2", "mlp.fc1", "mlp.fc2"),
)


def _load(path: Path, half: _Half, trust_pickle: bool, device: torch.device) -> State:
    """The weights of one tower by name, as float32, all of them there."""
    checkpoint = weights.load_checkpoint(path, trust_pickle=trust_pickle)
    held = checkpoint.get("state_dict", checkpoint)
    if not isinstance(held, Mapping):
        raise InputError(f"{path}: state_dict is a {type(held).__name__}, expected tensors by name")
    held = {str(name).removeprefix("module."): value for name, value in held.items()}
    names = half.names(_layers(held, half.layers))
    missing = [name for name in names if not isinstance(held.get(name), Tensor)]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} weights of SLIP's tower are missing, such as {missing[0]}"
        )
    return {name: held[name].float().to(device) for name in names}


def _layers(state: Mapping[str, object], prefix: str) -> int:
    numbers = {name[len(prefix) :].partition(".")[0] for name in state if name.startswith(prefix)}
    return len(numbers)


def _norm(state: State, name: str, x: Float[Tensor, "M T W"], eps: float) -> Float[Tensor, "M T W"]:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def _linear(state: State, name: str, x: Float[Tensor, "M T V"]) -> Float[Tensor, "M T W"]:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _attend(qkv: Float[Tensor, "M T W3"], heads: int, *, causal: bool) -> Float[Tensor, "M T W"]:
    """Attention of queries, keys and values that lie side by side."""
    split = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    found = F.scaled_dot_product_attention(split[0], split[1], split[2], is_causal=causal)
    return found.transpose(1, 2).flatten(2)
