"""CLIP's towers of transformers and of open_clip, the latter by a stand-in for the package."""

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
)

from o2s.errors import InputError
from o2s.towers.clip import (
    clip_image_tower,
    clip_text_tower,
    open_clip_image_tower,
    open_clip_text_tower,
    read_preparation,
)

CPU = torch.device("cpu")
SIZES = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2}
TEXTS = ["chair", "an office desk", "", "x" * 60]
TEXT = CLIPTextConfig(
    **SIZES,
    num_attention_heads=4,
    vocab_size=190,
    max_position_embeddings=40,
    projection_dim=24,
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=1,
)
VISION = CLIPVisionConfig(
    **SIZES, num_attention_heads=4, image_size=24, patch_size=8, projection_dim=24
)


def save_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer with letters for words, each inside a word and at its end."""
    letters = [chr(code) for code in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    vocabulary = {word: i for i, word in enumerate(words)}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=40).save_pretrained(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a CLIP of two random layers a tower."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=TEXT.to_dict(), vision_config=VISION.to_dict(), projection_dim=24
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=24).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture
def copy(clip: Path, tmp_path: Path) -> Path:
    """The same in a folder that a test may spoil."""
    return Path(shutil.copytree(clip, tmp_path / "clip"))


def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    shapes = [(30, 40), (60, 25), (24, 24)]
    return [Image.fromarray(random.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in shapes]


def test_texts_are_those_of_the_model(clip: Path):
    model, tokenizer = CLIPModel.from_pretrained(clip).eval(), CLIPTokenizer.from_pretrained(clip)
    tower = clip_text_tower(str(clip), CPU)
    for text, vector, raw in zip(TEXTS, tower(TEXTS), tower.embed(TEXTS), strict=True):
        inputs = tokenizer(text, truncation=True, max_length=40, return_tensors="pt")
        with torch.no_grad():
            hidden = model.text_model(**inputs).pooler_output
            expected = model.text_projection(hidden)[0]
        torch.testing.assert_close(raw, expected)
        torch.testing.assert_close(vector, expected / expected.norm())
    assert (tower.width, tower.longest, tower.cut) == (24, 40, 2)


def test_images_are_those_of_the_model_and_its_processor(clip: Path):
    model = CLIPModel.from_pretrained(clip).eval()
    processor = CLIPImageProcessorPil.from_pretrained(clip)
    tower = clip_image_tower(str(clip), CPU)
    with torch.no_grad():
        hidden = model.vision_model(**processor(pictures(), return_tensors="pt")).pooler_output
        expected = model.visual_projection(hidden)
    torch.testing.assert_close(tower.embed(pictures()), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        tower(pictures()), expected / expected.norm(dim=1, keepdim=True), atol=1e-5, rtol=1e-4
    )
    assert tower.width == 24


def test_a_half_that_is_saved_alone_gives_the_same(clip: Path, tmp_path: Path):
    whole = CLIPModel.from_pretrained(clip)
    text, vision = CLIPTextModelWithProjection(TEXT), CLIPVisionModelWithProjection(VISION)
    text.text_model.load_state_dict(whole.text_model.state_dict())
    text.text_projection.load_state_dict(whole.text_projection.state_dict())
    vision.vision_model.load_state_dict(whole.vision_model.state_dict())
    vision.visual_projection.load_state_dict(whole.visual_projection.state_dict())
    text.save_pretrained(tmp_path / "text")
    save_tokenizer(tmp_path / "text")
    vision.save_pretrained(tmp_path / "vision")
    shutil.copy(clip / "preprocessor_config.json", tmp_path / "vision")
    half = clip_text_tower(str(tmp_path / "text"), CPU)
    torch.testing.assert_close(half(TEXTS), clip_text_tower(str(clip), CPU)(TEXTS))
    found = clip_image_tower(str(tmp_path / "vision"), CPU)(pictures())
    torch.testing.assert_close(found, clip_image_tower(str(clip), CPU)(pictures()))
    for wrong, build in (("text", clip_image_tower), ("vision", clip_text_tower)):
        shutil.copy(clip / "preprocessor_config.json", tmp_path / wrong)
        with pytest.raises(InputError) as error:
            build(str(tmp_path / wrong), CPU)
        assert "\n" not in str(error.value)


def test_siglip_reads_texts_of_full_length(tmp_path: Path):
    torch.manual_seed(0)
    text = SiglipTextConfig(
        **SIZES,
        num_attention_heads=4,
        vocab_size=190,
        max_position_embeddings=12,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        projection_size=32,
    )
    vision = SiglipVisionConfig(**SIZES, num_attention_heads=4, image_size=24, patch_size=8)
    config = SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    model = SiglipModel(config).eval()
    model.save_pretrained(tmp_path)
    processor = SiglipImageProcessorPil(size={"height": 24, "width": 24})
    processor.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    inputs = tokenizer(["chair"], padding="max_length", max_length=12, return_tensors="pt")
    pixels = processor(pictures(), return_tensors="pt")
    with torch.no_grad():
        expected = model.text_model(**inputs).pooler_output
        expected_images = model.vision_model(**pixels).pooler_output
    torch.testing.assert_close(clip_text_tower(str(tmp_path), CPU).embed(["chair"]), expected)
    found = clip_image_tower(str(tmp_path), CPU).embed(pictures())
    torch.testing.assert_close(found, expected_images, atol=1e-4, rtol=1e-3)


def test_the_name_follows_the_weights(copy: Path):
    names = {clip_text_tower(str(copy), CPU).name, clip_image_tower(str(copy), CPU).name}
    moved = Path(shutil.move(copy, copy.parent / "elsewhere"))
    assert names == {clip_text_tower(str(moved), CPU).name}
    model = CLIPModel.from_pretrained(moved)
    model.text_projection.weight.data += 1
    model.save_pretrained(moved)
    assert clip_text_tower(str(moved), CPU).name not in names


@pytest.mark.parametrize(
    "file, key, value",
    [("preprocessor_config.json", "image_mean", [0.1, 0.2, 0.3]), ("config.json", "x", 1)],
)
def test_the_name_follows_the_settings(copy: Path, file: str, key: str, value: object):
    before = clip_image_tower(str(copy), CPU).name
    settings = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(settings | {key: value}))
    assert clip_image_tower(str(copy), CPU).name != before


@pytest.mark.parametrize(
    "file, content",
    [
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1"),
        ("tokenizer_config.json", b"[]"),
        ("config.json", b'{"model_type": "clip", "projection_dim": "many"}'),
    ],
)
def test_a_damaged_folder_is_one_line(copy: Path, file: str, content: bytes):
    (copy / file).write_bytes(content)
    with pytest.raises(InputError, match="not a readable text model") as error:
        clip_text_tower(str(copy), CPU)
    assert "\n" not in str(error.value)


def test_a_half_downloaded_pickle_is_one_line(copy: Path):
    (copy / "model.safetensors").unlink()
    for content in (b"", b"version https://git-lfs.github.com/spec/v1"):
        (copy / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(InputError, match="not a readable image model") as error:
            clip_image_tower(str(copy), CPU)
        assert "\n" not in str(error.value)


def test_a_package_that_a_tokenizer_needs_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch):
    def lacks(*_: Any, **__: Any) -> None:
        raise ImportError("\nSiglipTokenizer requires the SentencePiece library\nbut")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lacks)
    with pytest.raises(InputError, match="requires the SentencePiece library"):
        clip_text_tower(str(copy), CPU)


def test_a_model_that_gives_a_vector_a_token_is_refused(
    copy: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        CLIPModel, "get_text_features", lambda *_, **__: torch.zeros(1, 2, 3), raising=True
    )
    with pytest.raises(InputError, match="not a readable text model"):
        clip_text_tower(str(copy), CPU)


def test_missing_weights_are_refused(copy: Path):
    model = CLIPModel.from_pretrained(copy)
    state = {name: t for name, t in model.state_dict().items() if "visual_projection" not in name}
    model.save_pretrained(copy, state_dict=state)
    with pytest.raises(InputError, match=r"1 weights are missing, such as visual_projection"):
        clip_image_tower(str(copy), CPU)


def test_a_folder_without_a_tokenizer_is_one_line(copy: Path):
    for file in copy.glob("*token*"):
        file.unlink()
    with pytest.raises(InputError, match="not a readable text model") as error:
        clip_text_tower(str(copy), CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image_mean": [0.5]}, "not enough values"),
        ({"image_mean": None}, "not iterable"),
        ({"size": {"longest_edge": 3}}, "no 'height'"),
        ({"size": {"shortest_edge": True}}, "expected whole numbers above 0"),
        ({"size": -4}, "expected whole numbers above 0"),
        ({"resample": 77}, "77 is not a valid Resampling"),
        ({"rescale_factor": 1}, "rescale_factor 1, expected 1/255"),
        ({"do_rescale": False}, "expected 1/255"),
    ],
)
def test_a_preparation_that_is_not_clips_is_one_line(copy: Path, change: dict, message: str):
    path = copy / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message) as error:
        read_preparation(str(copy))
    assert str(error.value).startswith(f"{copy}: preprocessor_config.json: ")
    assert "\n" not in str(error.value)


def test_a_folder_without_a_preparation_is_one_line(copy: Path):
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="not a readable image model") as error:
        clip_image_tower(str(copy), CPU)
    assert "\n" not in str(error.value)


def test_open_clip_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    for build in (open_clip_text_tower, open_clip_image_tower):
        with pytest.raises(InputError, match="pip install open_clip_torch") as error:
            build("ViT-B-32:laion2b_s34b_b79k", CPU)
        assert "\n" not in str(error.value)


class Tokenizer:
    """As open_clip's: codes of letters, begin and end added, cut and padded to 8."""

    context_length = 8

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def __call__(self, texts: list[str]) -> torch.Tensor:
        rows = [[1, *self.encode(text), 2][:8] for text in texts]
        return torch.tensor([[*row, *[0] * (8 - len(row))] for row in rows])


@pytest.fixture
def open_clip(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A package whose model sums what it is given; how it was called."""
    calls: list[tuple[Any, ...]] = []

    def create(name: str, **options: Any) -> tuple[Any, Any]:
        calls.append((name, options["pretrained"], options["precision"]))
        if name == "wrong":
            raise RuntimeError("Model config for wrong not found.\nThere are others.")
        model = SimpleNamespace(
            encode_text=lambda ids: torch.stack([ids.sum(dim=1), ids[:, 1]], dim=1).float(),
            encode_image=lambda pixels: pixels.mean(dim=(2, 3)),
        )
        model.eval = lambda: model

        def transform(image: Image.Image) -> torch.Tensor:
            assert image.mode == "RGB"
            return torch.from_numpy(np.array(image.resize((4, 4)))).permute(2, 0, 1) / 255

        return model, transform

    def get_tokenizer(name: str) -> Tokenizer:
        calls.append(("tokenizer", name))
        if name == "hf-hub:no/tokenizer":
            raise OSError("Can't load tokenizer.\nCheck the name.")
        return Tokenizer()

    package = ModuleType("open_clip")
    vars(package)["create_model_from_pretrained"] = create
    vars(package)["get_tokenizer"] = get_tokenizer
    monkeypatch.setitem(sys.modules, "open_clip", package)
    return calls


def test_open_clip_embeds_texts_and_images(open_clip: list[tuple[Any, ...]], tmp_path: Path):
    tower = open_clip_text_tower("ViT-B-32:laion2b", CPU)
    assert open_clip == [("ViT-B-32", "laion2b", "fp32"), ("tokenizer", "ViT-B-32")]
    assert tower.embed(["ab", "c"]).tolist() == [[1 + 97 + 98 + 2, 97], [1 + 99 + 2, 99]]
    torch.testing.assert_close(tower(["ab"]).norm(dim=1), torch.ones(1))
    assert tower.cut == 0
    tower(["abcdef", "abcdefg"])
    assert (tower.cut, tower.longest, tower.width) == (1, 8, 2)
    image = open_clip_image_tower("hf-hub:owner/name", CPU)
    assert open_clip[-1] == ("hf-hub:owner/name", None, "fp32")
    found = image.embed([Image.new("RGBA", (9, 5), (255, 51, 0, 255))])
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.2, 0.0]]))
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"weights")
    first = open_clip_text_tower(str(tmp_path), CPU).name
    assert open_clip[-1] == ("tokenizer", f"local-dir:{tmp_path}")
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"others")
    assert open_clip_text_tower(str(tmp_path), CPU).name != first
    (tmp_path / "open_clip_config.json").write_text("{}")
    assert open_clip_text_tower(str(tmp_path), CPU).name != first
    file = tmp_path / "open_clip_model.safetensors"
    names = {open_clip_text_tower(f"{m}:{file}", CPU).name for m in ("ViT", "ViT-quickgelu")}
    assert len(names) == 2, "the same weights in two models"


def test_what_open_clip_does_not_load_is_one_line(open_clip: list[tuple[Any, ...]]):
    with pytest.raises(InputError, match="wrong: not a readable open_clip model") as error:
        open_clip_image_tower("wrong", CPU)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"open_clip model \(Can't load tokenizer\.\)"):
        open_clip_text_tower("hf-hub:no/tokenizer", CPU)
