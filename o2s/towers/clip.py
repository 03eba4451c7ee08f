"""Towers that others trained on pairs of texts and images: CLIP and its kin.

`clip` is any model of transformers with `get_text_features` and `get_image_features` (CLIP,
SigLIP, whose tokenizer needs the package sentencepiece, ...), or one half of CLIP saved alone; a
folder or a hub name. `open_clip` is a model of
the package open_clip, such as ULIP-2's ViT-bigG-14. The package is no part of o2s: it needs
torchvision.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor

from o2s.errors import InputError
from o2s.ops.linear import widen
from o2s.towers.images import ImagePreparation, PreparedImageTower, in_rgb
from o2s.towers.texts import (
    PortionedTextTower,
    TokenizedTextTower,
    checksum,
    model_error,
    refuse_missing,
    require_tokens,
)


def clip_text_tower(model: str, device: torch.device) -> TokenizedTextTower:
    """The text half of a model of transformers, with its tokenizer.

    Raises:
        InputError: the model cannot be loaded, lacks weights, or is no text tower.
    """
    from transformers import AutoTokenizer

    loaded, config = _load(model, "text", device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except Exception as error:  # the libraries below raise many kinds
        raise model_error(model, "text", error) from None
    text_config = getattr(config, "text_config", config)
    require_tokens(model, tokenizer, text_config.vocab_size)
    places = getattr(text_config, "max_position_embeddings", math.inf)

    def encode(inputs: Mapping[str, Tensor]) -> Float[Tensor, "M D"]:
        if hasattr(loaded, "get_text_features"):
            return _tensor(loaded.get_text_features(**inputs))
        return loaded(**inputs).text_embeds

    ids = {"input_ids": torch.tensor([[0, 1]], device=device)}
    width = _width(model, "text", lambda: encode(ids))
    return TokenizedTextTower(
        _name("clip", model, config),
        width,
        tokenizer=tokenizer,
        longest=int(min(places, tokenizer.model_max_length)),
        encode=encode,
        device=device,
        # SigLIP was trained on texts padded to one length, and reads the last token.
        padding="max_length" if "siglip" in config.model_type else "longest",
    )


def clip_image_tower(model: str, device: torch.device) -> PreparedImageTower:
    """The image half of a model of transformers, prepared as its preprocessor_config.json says.

    Raises:
        InputError: the model cannot be loaded, lacks weights, or is no image tower.
    """
    prepare = read_preparation(model)
    loaded, config = _load(model, "image", device)

    def encode(pixels: Float32[Tensor, "M 3 H W"]) -> Float[Tensor, "M D"]:
        if hasattr(loaded, "get_image_features"):
            return _tensor(loaded.get_image_features(pixel_values=pixels))
        return loaded(pixel_values=pixels).image_embeds

    pixels = prepare([Image.new("RGB", (32, 32))]).to(device)
    width = _width(model, "image", lambda: encode(pixels))
    return PreparedImageTower(_name("clip", model, config), width, prepare, encode, device)


def read_preparation(model: str) -> ImagePreparation:
    """What preprocessor_config.json (or processor_config.json) says, to be done with PIL.

    Raises:
        InputError: there is no such file, or it asks for something else than sizes and channels.
    """
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        held, _ = ImageProcessingMixin.get_image_processor_dict(model)
    except Exception as error:  # the libraries below raise many kinds
        raise model_error(model, "image", error) from None
    try:
        scale = held.get("rescale_factor", 1 / 255)
        if not held.get("do_rescale", True) or not math.isclose(scale, 1 / 255, rel_tol=1e-6):
            raise ValueError(f"rescale_factor {scale}, expected 1/255")
        resize = _sides(held["size"]) if held.get("do_resize", True) else None
        cuts = held.get("do_center_crop", "crop_size" in held)
        crop = _sides(held["crop_size"]) if cuts else None
        normal = held.get("do_normalize", True)
        return ImagePreparation(
            resize=resize,
            crop=None if crop is None else (crop[0], crop[-1]),
            mean=_triple(held["image_mean"]) if normal else (0.0, 0.0, 0.0),
            std=_triple(held["image_std"]) if normal else (1.0, 1.0, 1.0),
            resample=Image.Resampling(held.get("resample", Image.Resampling.BICUBIC)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{model}: preprocessor_config.json: {reason[:200]}; expected size, crop_size, "
            "image_mean and image_std, as of CLIP"
        ) from None


def open_clip_text_tower(model: str, device: torch.device) -> "OpenClipTextTower":
    """The text half of a model of the package open_clip.

    Args:
        model: a folder in open_clip's layout, `MODEL:PRETRAINED` as open_clip names them (such
            as `ViT-bigG-14:laion2b_s39b_b160k`, PRETRAINED may be a file), or
            `hf-hub:owner/name`.
        device: where to compute.

    Raises:
        InputError: open_clip is not installed, or does not load this.
    """
    package, loaded, _ = _load_open_clip(model, device)
    try:
        tokenizer = package.get_tokenizer(_open_clip_names(model)[0])
    except Exception as error:  # the package raises many kinds
        raise model_error(model, "open_clip", error) from None
    return OpenClipTextTower(_open_clip_name(model), loaded, tokenizer, device)


def open_clip_image_tower(model: str, device: torch.device) -> PreparedImageTower:
    """The image half of a model of the package open_clip; `model` as for the texts.

    Raises:
        InputError: open_clip is not installed, or does not load this.
    """
    _, loaded, transform = _load_open_clip(model, device)

    def prepare(images: Sequence[Image.Image]) -> Float32[Tensor, "M 3 H W"]:
        return torch.stack([transform(in_rgb(image)) for image in images])

    with torch.no_grad():
        pixels = prepare([Image.new("RGB", (32, 32))]).to(device)
        width = loaded.encode_image(pixels).shape[1]
    return PreparedImageTower(_open_clip_name(model), width, prepare, loaded.encode_image, device)


class OpenClipTextTower(PortionedTextTower):
    """A text tower with open_clip's tokenizers, which pad and cut by themselves."""

    def __init__(self, name: str, model: Any, tokenizer: Any, device: torch.device) -> None:
        self.name = name
        self.longest = int(getattr(tokenizer, "context_length", 77) or 77)
        self.cut = 0
        self._model = model
        self._tokenizer = tokenizer
        self._device = device
        with torch.no_grad():
            self.width: int = model.encode_text(tokenizer([""]).to(device)).shape[1]

    def _embed(self, portion: list[str]) -> Float[Tensor, "M D"]:
        if hasattr(self._tokenizer, "encode"):  # without the tokens of beginning and end
            lengths = [len(self._tokenizer.encode(text)) + 2 for text in portion]
            self.cut += sum(length > self.longest for length in lengths)
        return self._model.encode_text(self._tokenizer(portion).to(self._device))


def _load(model: str, kind: str, device: torch.device) -> tuple[Any, Any]:
    """A model of transformers that embeds texts or images, and its config."""
    from transformers import (
        AutoConfig,
        AutoModel,
        CLIPTextModelWithProjection,
        CLIPVisionModelWithProjection,
    )

    halves: dict[str, Any] = {
        "text": CLIPTextModelWithProjection,
        "image": CLIPVisionModelWithProjection,
    }
    bare = {"text": "clip_text_model", "image": "clip_vision_model"}[kind]
    try:
        config = AutoConfig.from_pretrained(model)
        loader: Any = halves[kind] if config.model_type == bare else AutoModel
        loaded, info = loader.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # the libraries below raise many kinds
        raise model_error(model, kind, error) from None
    if config.model_type != bare and not hasattr(loaded, f"get_{kind}_features"):
        raise InputError(
            f"{model}: a model of type '{config.model_type}'; expected one that has "
            f"get_{kind}_features, such as CLIP"
        )
    refuse_missing(model, sorted(info["missing_keys"]))
    widen(loaded)
    return loaded.eval().to(device), config


def _width(model: str, kind: str, embed: Callable[[], Tensor]) -> int:
    """D, of one vector of a model that gives one for each text or image."""
    try:
        with torch.no_grad():
            found = embed()
        if found.dim() != 2:
            raise ValueError(f"features of shape {list(found.shape)}, expected one vector each")
    except Exception as error:  # models of other kinds fail in many ways
        raise model_error(model, kind, error) from None
    return found.shape[1]


def _name(kind: str, model: str, config: Any) -> str:
    """A name that changes with weights and settings: their checksums, or the hub's revision."""
    if Path(model).is_dir():
        return f"{kind}:{_folder_checksum(Path(model))}"
    return f"{kind}:{model}@{getattr(config, '_commit_hash', None)}"


def _folder_checksum(folder: Path) -> str:
    suffixes = {".safetensors", ".bin", ".pt", ".pth", ".json", ".txt", ".model"}
    files = [file for file in sorted(folder.iterdir()) if file.suffix in suffixes]
    return checksum(*files)


def _tensor(found: Any) -> Float[Tensor, "M D"]:
    """The vectors, which newer versions of transformers wrap in a record."""
    return found if isinstance(found, Tensor) else found.pooler_output


def _sides(size: Any) -> tuple[int, ...]:
    """One number for the short side, two for height and width."""
    if isinstance(size, Mapping) and "shortest_edge" in size:
        sides = [size["shortest_edge"]]
    elif isinstance(size, Mapping):
        sides = [size["height"], size["width"]]
    else:
        sides = [size]
    if not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"size {size}, expected whole numbers above 0")
    return tuple(sides)


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _load_open_clip(model: str, device: torch.device) -> tuple[Any, Any, Any]:
    """The package, a model of it, and what prepares its images."""
    try:
        import open_clip  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError) as error:  # a torchvision for another torch is the latter
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            "towers of kind open_clip need the package open_clip, which brings torchvision: "
            f"pip install open_clip_torch ({line[:200]})"
        ) from None
    name, pretrained = _open_clip_names(model)
    try:
        loaded, transform = open_clip.create_model_from_pretrained(
            name, pretrained=pretrained, precision="fp32", device=device
        )
    except Exception as error:  # the package raises many kinds
        raise model_error(model, "open_clip", error) from None
    return open_clip, loaded.eval(), transform


def _open_clip_names(model: str) -> tuple[str, str | None]:
    """What open_clip calls model and weights."""
    if Path(model).is_dir():
        return f"local-dir:{model}", None
    if model.startswith("hf-hub:") or ":" not in model:
        return model, None
    name, _, pretrained = model.partition(":")
    return name, pretrained


def _open_clip_name(model: str) -> str:
    if Path(model).is_dir():
        return f"open_clip:{_folder_checksum(Path(model))}"
    name, pretrained = _open_clip_names(model)
    if pretrained and Path(pretrained).is_file():
        return f"open_clip:{name}:{checksum(Path(pretrained))}"
    return f"open_clip:{model}"
