"""MiniLM and EfficientNet-lite0: tiny and random against plain code, the real ones marked slow."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizer

from o2s import weights
from o2s.errors import InputError
from o2s.towers import small
from o2s.towers.small import (
    EfficientNetLite0,
    image_features,
    load_network,
    read_projection,
    small_image_tower,
    small_text_tower,
)

TEXTS = ["chair", "a wooden chair with four legs", "", "A Lamp", "z" * 30]


def save_bert(folder: Path) -> Path:
    """A folder as sentence-transformers saves one, of two random layers."""
    torch.manual_seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    return folder


def test_a_text_is_the_mean_of_its_tokens(tmp_path: Path):
    tower = small_text_tower(folder=save_bert(tmp_path))
    model, tokenizer = BertModel.from_pretrained(tmp_path).eval(), tower.tokenizer
    found = tower(TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        ids = tokenizer(text)["input_ids"]
        if len(ids) > 20:
            ids = [*ids[:19], tokenizer.sep_token_id]
        with torch.no_grad():
            tokens = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        mean = sum(tokens) / len(tokens)
        torch.testing.assert_close(vector, mean / mean.norm())
    assert (tower.width, tower.longest, tower.cut) == (24, 20, 2)
    assert tower([]).shape == (0, 24)


def test_the_name_follows_the_weights(tmp_path: Path):
    first = small_text_tower(folder=save_bert(tmp_path)).name
    assert small_text_tower(folder=tmp_path).name == first
    model = BertModel.from_pretrained(tmp_path)
    model.embeddings.word_embeddings.weight.data[7] += 1
    model.save_pretrained(tmp_path)
    assert small_text_tower(folder=tmp_path).name != first


def test_a_folder_that_lacks_something_is_one_line(tmp_path: Path):
    save_bert(tmp_path)
    state = weights.load_checkpoint(tmp_path / "model.safetensors")
    lacking = {name: t for name, t in state.items() if "layer.1.output" not in name}
    save_file(lacking, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"weights are missing, such as encoder\.layer\.1\.output"):
        small_text_tower(folder=tmp_path)
    save_file(dict(state), tmp_path / "model.safetensors", {"format": "pt"})
    for content in ("{}", "[]", "nothing", '{"max_seq_length": null}', None):
        limits = tmp_path / "sentence_bert_config.json"
        limits.write_text(content) if content else limits.unlink()
        with pytest.raises(InputError, match="not a readable text model") as error:
            small_text_tower(folder=tmp_path)
        assert "\n" not in str(error.value)


def test_same_padding_is_the_sum_it_says():
    torch.manual_seed(0)
    for kernel, stride, side in [(3, 2, 8), (3, 2, 7), (5, 2, 8), (5, 2, 9), (5, 1, 6), (3, 1, 5)]:
        convolve = small._SameConv2d(2, 2, kernel, stride=stride, groups=2)
        convolve = convolve.double().requires_grad_(False)
        x = torch.randn(1, 2, side, side + 3, dtype=torch.float64)
        found = convolve(x)
        height, width = math.ceil(side / stride), math.ceil((side + 3) / stride)
        assert found.shape == (1, 2, height, width)
        before = [
            max((count - 1) * stride + kernel - length, 0) // 2
            for count, length in ((height, side), (width, side + 3))
        ]
        for channel, i, j in np.ndindex(2, height, width):
            total = 0.0
            for di, dj in np.ndindex(kernel, kernel):
                y, z = i * stride + di - before[0], j * stride + dj - before[1]
                if 0 <= y < side and 0 <= z < side + 3:
                    total += float(convolve.weight[channel, 0, di, dj] * x[0, channel, y, z])
            assert math.isclose(float(found[0, channel, i, j]), total, abs_tol=1e-12)


def plain_lite0(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Features by the names of efficientnet-lite-pytorch's weights, a layer after the other.

    Whatever is not written in the weights: strides, and where an input is added.
    """

    def layer(x: torch.Tensor, convolution: str, norm: str, stride: int = 1) -> torch.Tensor:
        kernel = state[f"{convolution}.weight"]
        size, groups = kernel.shape[-1], x.shape[1] // kernel.shape[1]
        if size > 1:
            # At even sides SAME is one less at the top and left for stride 2.
            low, high = ((size - stride) // 2, (size - stride + 1) // 2)
            x = F.pad(x, (low, high, low, high))
        x = F.conv2d(x, kernel, stride=stride, groups=groups)
        mean, var, weight, bias = (
            state[f"{norm}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * weight + bias

    x = layer(x, "_conv_stem", "_bn0", 2).clamp(0, 6)
    for i in range(16):
        at = f"_blocks.{i}."
        y = x if i == 0 else layer(x, f"{at}_expand_conv", f"{at}_bn0").clamp(0, 6)
        stride = 2 if i in (1, 3, 5, 11) else 1
        y = layer(y, f"{at}_depthwise_conv", f"{at}_bn1", stride).clamp(0, 6)
        y = layer(y, f"{at}_project_conv", f"{at}_bn2")
        x = x + y if x.shape == y.shape else y
    return layer(x, "_conv_head", "_bn1").clamp(0, 6).mean(dim=(2, 3))


@pytest.fixture(scope="module")
def random_network() -> EfficientNetLite0:
    torch.manual_seed(0)
    network = EfficientNetLite0().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # pyright: ignore
            module.running_var.uniform_(0.5, 2)  # pyright: ignore
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias, 0, 0.5)
    return network.requires_grad_(False)


def test_the_network_equals_a_plain_walk_over_its_weights(random_network: EfficientNetLite0):
    x = torch.randn(2, 3, 64, 96)
    found = random_network.features(x)
    expected = plain_lite0(random_network.state_dict(), x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert found.std() > 0.01
    fc = random_network._fc
    torch.testing.assert_close(random_network(x), expected @ fc.weight.T + fc.bias)


def projection_file(folder: Path, **tensors: torch.Tensor) -> Path:
    path = folder / "image_projection.safetensors"
    torch.manual_seed(1)
    save_file(
        tensors or {"weight": torch.randn(384, 1280).half(), "bias": torch.randn(384).half()}, path
    )
    return path


@pytest.fixture
def fetched(
    random_network: EfficientNetLite0, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A cache that has random weights under the name of EfficientNet-lite0."""
    monkeypatch.setenv("O2S_CACHE", str(tmp_path / "cache"))
    folder = weights.named("efficientnet-lite0").folder
    folder.mkdir(parents=True)
    state = {name: t.contiguous() for name, t in random_network.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    (folder / weights.CHECKSUMS).write_text("{}")
    load_network.cache_clear()
    yield folder
    load_network.cache_clear()


def pictures(count: int) -> list[Image.Image]:
    values = np.random.default_rng(0).integers(0, 256, (count, 30, 40, 3), dtype=np.uint8)
    return [Image.fromarray(image) for image in values]


def test_images_are_projected_to_unit_vectors(
    fetched: Path, tmp_path: Path, random_network: EfficientNetLite0
):
    path = projection_file(tmp_path)
    tower = small_image_tower(projection=path)
    images = pictures(3)
    features = image_features(images)
    expected = random_network.features(small.PREPARATION(images))
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-4)
    state = weights.load_checkpoint(path)
    projected = features @ state["weight"].float().T + state["bias"].float()
    expected = projected / projected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(tower(images), expected)
    assert (tower.width, tower([]).shape, image_features([]).shape) == (384, (0, 384), (0, 1280))
    state = {"weight": state["weight"] * 2, "bias": state["bias"]}
    assert small_image_tower(projection=projection_file(tmp_path, **state)).name != tower.name


def test_features_need_no_projection_and_the_tower_says_that_it_is_missing(
    fetched: Path, tmp_path: Path
):
    assert image_features(pictures(1)).shape == (1, 1280)
    with pytest.raises(InputError, match=r"missing.safetensors: no such file; the small image"):
        small_image_tower(projection=tmp_path / "missing.safetensors")


def test_weights_of_another_network_are_one_line(fetched: Path):
    save_file({"_fc.weight": torch.zeros(2, 2)}, fetched / "model.safetensors")
    with pytest.raises(InputError, match="not the weights of EfficientNet-lite0") as error:
        image_features(pictures(1))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "tensors",
    [
        {"weight": torch.zeros(384, 1280)},
        {"weight": torch.zeros(384, 1280), "bias": torch.zeros(383)},
        {"weight": torch.zeros(1280, 384), "bias": torch.zeros(384)},
    ],
)
def test_a_projection_of_another_shape_is_refused(tmp_path: Path, tensors: dict):
    with pytest.raises(InputError, match=r"expected \{'weight': \[384, 1280\], 'bias': \[384\]\}"):
        read_projection(projection_file(tmp_path, **tensors))


def clock() -> Image.Image:
    image = Image.new("RGB", (300, 300), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((20, 20, 280, 280), outline="black", width=10, fill="ivory")
    for hour in range(1, 13):
        angle = math.radians(30 * hour - 90)
        place = (150 + 105 * math.cos(angle), 150 + 105 * math.sin(angle))
        draw.text(place, str(hour), fill="black", anchor="mm", font_size=28)
    draw.line((150, 150, 150, 75), fill="black", width=8)
    draw.line((150, 150, 225, 150), fill="black", width=6)
    return image


def crossword() -> Image.Image:
    image = Image.new("RGB", (300, 300), "white")
    draw = ImageDraw.Draw(image)
    for i, j in np.ndindex(13, 13):
        fill = "black" if (i * 7 + j * 5 + (i * j) % 3) % 5 == 0 else "white"
        corner = (i * 23, j * 23, i * 23 + 23, j * 23 + 23)
        draw.rectangle(corner, outline="black", fill=fill)
    return image


def traffic_light() -> Image.Image:
    image = Image.new("RGB", (300, 300), "skyblue")
    draw = ImageDraw.Draw(image)
    draw.rectangle((140, 200, 160, 300), fill="dimgray")
    draw.rounded_rectangle((105, 20, 195, 220), 15, fill="black")
    for y, color in ((55, "red"), (120, "#443300"), (185, "#003311")):
        draw.ellipse((122, y - 28, 178, y + 28), fill=color)
    return image


@pytest.mark.slow
@pytest.mark.parametrize("draw, label", [(clock, 409), (crossword, 918), (traffic_light, 920)])
def test_the_real_network_knows_drawings(draw: Callable[[], Image.Image], label: int):
    """Numbers of ImageNet's classes: analog clock, crossword puzzle, traffic light."""
    with torch.no_grad():
        scores = load_network()(small.PREPARATION([draw()])).softmax(dim=1)[0]
    assert scores.argmax() == label
    assert scores[label] > 0.5


@pytest.mark.slow
def test_the_real_minilm_equals_the_code_of_its_card():
    tower = small_text_tower()
    folder = weights.fetch("minilm-l6-v2")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    for text, vector in zip(TEXTS, tower(TEXTS), strict=True):
        with torch.no_grad():
            tokens = model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        torch.testing.assert_close(vector, F.normalize(tokens.mean(dim=0), dim=0))
    chair, armchair, fridge = tower(["a chair", "an armchair", "a refrigerator"])
    assert chair @ armchair > chair @ fridge + 0.2
    limits = json.loads((folder / "sentence_bert_config.json").read_text())
    assert tower.longest == limits["max_seq_length"]
    assert weights.verify("minilm-l6-v2") == []
