"""SLIP's towers against the modules that its repository builds, on tiny random weights."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTokenizer

from o2s.errors import InputError
from o2s.towers.images import IMAGENET_MEAN, IMAGENET_STD
from o2s.towers.slip import encode_image, encode_text, slip_image_tower, slip_text_tower

TEXT_WIDTH, IMAGE_WIDTH, EMBEDDING, VOCABULARY, PLACES = 128, 192, 24, 190, 16
TEXTS = ["chair", "a table", "office desk", "x" * 40, ""]


class TextBlock(nn.Module):
    """A layer of SLIP's text transformer out of torch's own parts."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(TEXT_WIDTH, TEXT_WIDTH // 64)
        self.ln_1, self.ln_2 = nn.LayerNorm(TEXT_WIDTH), nn.LayerNorm(TEXT_WIDTH)
        self.mlp = nn.Module()
        self.mlp.c_fc = nn.Linear(TEXT_WIDTH, 4 * TEXT_WIDTH)
        self.mlp.c_proj = nn.Linear(4 * TEXT_WIDTH, TEXT_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.full((len(x), len(x)), -torch.inf).triu(1)
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        y = self.mlp.c_fc(self.ln_2(x))
        return x + self.mlp.c_proj(y * torch.sigmoid(1.702 * y))


class ImageBlock(nn.Module):
    """A layer of a ViT with the names of timm and attention written out."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(IMAGE_WIDTH, eps=1e-6)
        self.norm2 = nn.LayerNorm(IMAGE_WIDTH, eps=1e-6)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.qkv = nn.Linear(IMAGE_WIDTH, 3 * IMAGE_WIDTH)
        self.attn.proj = nn.Linear(IMAGE_WIDTH, IMAGE_WIDTH)
        self.mlp.fc1 = nn.Linear(IMAGE_WIDTH, 4 * IMAGE_WIDTH)
        self.mlp.fc2 = nn.Linear(4 * IMAGE_WIDTH, IMAGE_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attn.qkv(self.norm1(x)).split(IMAGE_WIDTH, dim=-1)
        heads = []
        for h in range(IMAGE_WIDTH // 64):
            part = slice(64 * h, 64 * h + 64)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / 8
            heads.append(scores.softmax(dim=-1) @ v[..., part])
        x = x + self.attn.proj(torch.cat(heads, dim=-1))
        return x + self.mlp.fc2(nn.functional.gelu(self.mlp.fc1(self.norm2(x))))


class Slip(nn.Module):
    """The two towers with the names of SLIP's checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, TEXT_WIDTH)
        self.positional_embedding = nn.Parameter(torch.randn(PLACES, TEXT_WIDTH))
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(TextBlock(), TextBlock(), TextBlock())
        self.ln_final = nn.LayerNorm(TEXT_WIDTH)
        self.text_projection = nn.Parameter(torch.randn(TEXT_WIDTH, EMBEDDING))
        self.visual = nn.Module()
        self.visual.cls_token = nn.Parameter(torch.randn(1, 1, IMAGE_WIDTH))
        self.visual.pos_embed = nn.Parameter(torch.randn(1, 50, IMAGE_WIDTH))
        self.visual.patch_embed = nn.Module()
        self.visual.patch_embed.proj = nn.Conv2d(3, IMAGE_WIDTH, 32, stride=32)
        self.visual.blocks = nn.Sequential(ImageBlock(), ImageBlock())
        self.visual.norm = nn.LayerNorm(IMAGE_WIDTH, eps=1e-6)
        self.image_projection = nn.Parameter(torch.randn(IMAGE_WIDTH, EMBEDDING))
        self.logit_scale = nn.Parameter(torch.ones([]))

    def encode_text(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        x = self.ln_final(self.transformer.resblocks(x.transpose(0, 1)).transpose(0, 1))
        return x[torch.arange(len(x)), ids.argmax(dim=-1)] @ self.text_projection

    def encode_image(self, pixels: Tensor) -> Tensor:
        x = self.visual.patch_embed.proj(pixels).flatten(2).transpose(1, 2)
        token, places = self.visual.cls_token, self.visual.pos_embed
        assert isinstance(token, Tensor)
        assert isinstance(places, Tensor)
        x = torch.cat([token.expand(len(x), -1, -1), x], dim=1)
        x = self.visual.norm(self.visual.blocks(x + places))
        return x[:, 0] @ self.image_projection


def save_tokenizer(folder: Path, words: int = VOCABULARY) -> None:
    """CLIP's tokenizer with letters for words. The end has the highest number, as in CLIP."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = [*letters, *(f"{c}</w>" for c in letters)][: words - 2]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    places = {word: i for i, word in enumerate(vocabulary)}
    CLIPTokenizer(vocab=places, merges=[]).save_pretrained(folder)


@pytest.fixture(scope="module")
def slip() -> Slip:
    torch.manual_seed(0)
    model = Slip().eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(params=["slip", "ulip", "plain"])
def checkpoint(slip: Slip, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A file as SLIP saves it, as ULIP-1 does, and the bare tensors; a tokenizer beside it."""
    state = dict(slip.state_dict())
    if request.param == "ulip":
        state |= {"point_encoder.cls_token": torch.zeros(3), "pc_projection": torch.zeros(4, 4)}
    contents: dict = {
        "epoch": 1,
        "state_dict": {f"module.{name}": value for name, value in state.items()},
        "args": Namespace(model="SLIP_VITB16"),
    }
    path = tmp_path / "checkpoint.pt"
    torch.save(state if request.param == "plain" else contents, path)
    save_tokenizer(tmp_path)
    return path


def test_texts_are_those_of_the_modules(slip: Slip, checkpoint: Path):
    tower = slip_text_tower(checkpoint, None, torch.device("cpu"))
    found = tower(TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        ids = tower.tokenizer(text)["input_ids"]
        if len(ids) > PLACES:
            ids = [*ids[: PLACES - 1], VOCABULARY - 1]
        # SLIP's tokenizer fills up with zeros to the full length.
        row = torch.tensor([[*ids, *[0] * (PLACES - len(ids))]])
        expected = slip.encode_text(row)[0]
        torch.testing.assert_close(vector, expected / expected.norm(), atol=1e-5, rtol=1e-4)
    assert (tower.width, tower.longest, tower.cut) == (EMBEDDING, PLACES, 1)


def test_images_are_those_of_the_modules(slip: Slip, checkpoint: Path):
    tower = slip_image_tower(checkpoint, torch.device("cpu"))
    assert tower.width == EMBEDDING
    colors = torch.rand(2, 3)
    images = [Image.new("RGB", (50, 40), tuple((c * 255).int().tolist())) for c in colors]
    images[0].putpixel((20, 20), (255, 255, 255))
    pixels = tower.prepare(images)
    assert pixels.shape == (2, 3, 224, 224)
    expected = slip.encode_image(pixels)
    torch.testing.assert_close(
        tower(images), expected / expected.norm(dim=1, keepdim=True), atol=1e-5, rtol=1e-4
    )
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    whole = (colors[1] * 255).int() / 255
    torch.testing.assert_close(pixels[1, :, 7, 99], (whole - mean) / std)


def test_what_follows_the_end_of_a_text_does_not_matter(slip: Slip):
    state, end = slip.state_dict(), VOCABULARY - 1
    ids = torch.tensor([[3, 5, end, 7, 9], [3, 5, end, end, 4]])
    first, second = encode_text(state, ids, end)
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first, encode_text(state, ids[:1, :3], end)[0])
    assert (first - encode_text(state, torch.tensor([[5, 3, end]]), end)[0]).abs().max() > 1e-3


def test_patches_have_places(slip: Slip):
    pixels = torch.randn(1, 3, 224, 224)
    moved = encode_image(slip.state_dict(), pixels.roll(32, dims=3))
    assert (moved - encode_image(slip.state_dict(), pixels)).abs().max() > 1e-3


def test_a_vit_for_other_images_is_one_line(slip: Slip, tmp_path: Path):
    state = slip.state_dict() | {"visual.pos_embed": torch.zeros(1, 145, IMAGE_WIDTH)}
    torch.save(state, tmp_path / "slip.pt")
    with pytest.raises(InputError, match=r"a ViT of 145 places, expected .* 224 pixels in patches"):
        slip_image_tower(tmp_path / "slip.pt", torch.device("cpu"))


@pytest.mark.parametrize(
    "lost", ["text_projection", "transformer.resblocks.1.attn.in_proj_bias", "ln_final.weight"]
)
def test_a_checkpoint_without_a_weight_is_one_line(slip: Slip, tmp_path: Path, lost: str):
    state = {name: value for name, value in slip.state_dict().items() if name != lost}
    torch.save(state, tmp_path / "slip.pt")
    save_tokenizer(tmp_path)
    with pytest.raises(InputError, match=rf"1 weights of SLIP's tower are missing, such as {lost}"):
        slip_text_tower(tmp_path / "slip.pt", None, torch.device("cpu"))
    assert slip_image_tower(tmp_path / "slip.pt", torch.device("cpu")).width == EMBEDDING


def test_a_checkpoint_of_something_else_is_one_line(tmp_path: Path):
    for contents in ({"state_dict": [1]}, {"weight": torch.zeros(2)}, {"visual.cls_token": 3}):
        torch.save(contents, tmp_path / "slip.pt")
        with pytest.raises(InputError, match=r"slip\.pt: ") as error:
            slip_image_tower(tmp_path / "slip.pt", torch.device("cpu"))
        assert "\n" not in str(error.value)


def test_a_tokenizer_that_is_missing_or_of_another_size_is_one_line(slip: Slip, tmp_path: Path):
    torch.save(slip.state_dict(), tmp_path / "slip.pt")
    other = tmp_path / "other"
    for source, message in [
        (None, "SLIP's texts need CLIP's tokenizer"),
        (str(other), "a tokenizer of 150 tokens; SLIP's texts need .*of the 190 tokens that"),
    ]:
        if source:
            other.mkdir()
            save_tokenizer(other, 150)
        with pytest.raises(InputError, match=message) as error:
            slip_text_tower(tmp_path / "slip.pt", source, torch.device("cpu"))
        assert "\n" not in str(error.value)


def test_the_name_follows_the_tokenizer(slip: Slip, tmp_path: Path):
    torch.save(slip.state_dict(), tmp_path / "slip.pt")
    names = set()
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        save_tokenizer(tmp_path / folder)
        file = tmp_path / folder / "tokenizer.json"
        if folder == "two":
            file.write_text(file.read_text().replace('"a":', '"swapped":').replace('"b":', '"a":'))
        names.add(slip_text_tower(tmp_path / "slip.pt", str(file.parent), torch.device("cpu")).name)
    assert len(names) == 2
