"""Text embeddings: the tower in batches and one by one, the averaging, wrong files and options."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from o2s.cli_eval_zero_shot import zero_shot
from o2s.errors import InputError
from o2s.evaluate import text_embeddings
from o2s.evaluate.text_embeddings import (
    TextEmbeddings,
    embed_classes,
    fill,
    read_classes,
    read_templates,
    read_text_embeddings,
    write_text_embeddings,
)

CLASSES = ("chair", "table", "office desk", "a lamp with a very tall shade")
TEMPLATES = ("{}", "a {}.", "a point cloud of a {}.")
SIZES = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2}


def save_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer with letters for words, each inside a word and at its end."""
    letters = [chr(code) for code in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    vocabulary = {word: i for i, word in enumerate(words)}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=40).save_pretrained(folder)


def text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        **SIZES,
        num_attention_heads=4,
        vocab_size=190,
        max_position_embeddings=40,
        projection_dim=24,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a CLIP text tower of two random layers."""
    folder = tmp_path_factory.mktemp("tower")
    torch.manual_seed(0)
    CLIPTextModelWithProjection(text_config()).save_pretrained(folder)
    save_tokenizer(folder)
    return str(folder)


def test_a_batch_equals_its_prompts_one_by_one(tower: str, monkeypatch: pytest.MonkeyPatch):
    together = embed_classes(CLASSES, TEMPLATES, tower).embeddings
    monkeypatch.setattr(text_embeddings, "BATCH", 1)
    torch.testing.assert_close(embed_classes(CLASSES, TEMPLATES, tower).embeddings, together)
    assert together.shape == (4, 3, 24)
    assert (together[:, 0] - together[:, 1]).abs().max() > 1e-3


def test_embeddings_are_those_of_the_model(tower: str):
    model = CLIPTextModelWithProjection.from_pretrained(tower).eval()
    tokenizer = CLIPTokenizer.from_pretrained(tower)
    found = embed_classes(CLASSES, TEMPLATES, tower).embeddings
    for i, name in enumerate(CLASSES):
        for j, template in enumerate(TEMPLATES):
            inputs = tokenizer(template.format(name), return_tensors="pt")
            with torch.no_grad():
                expected = model(**inputs).text_embeds[0]
            torch.testing.assert_close(found[i, j], expected)


def test_the_order_of_classes_is_free(tower: str):
    turned = embed_classes(CLASSES[::-1], TEMPLATES, tower)
    found = embed_classes(CLASSES, TEMPLATES, tower)
    torch.testing.assert_close(turned.vectors().flip(0), found.vectors())
    torch.testing.assert_close(turned.select(CLASSES).vectors(), found.vectors())


def test_averaging_equals_a_plain_loop():
    torch.manual_seed(0)
    embeddings = torch.randn(5, 7, 16) * torch.rand(5, 7, 1) * 9
    found = TextEmbeddings(tuple("abcde"), (), embeddings).vectors()
    for row, prompts in zip(found, embeddings, strict=True):
        total = sum(prompt / prompt.norm() for prompt in prompts) / len(prompts)
        torch.testing.assert_close(row, total / total.norm())
    louder = embeddings.clone()
    louder[:, 3] *= 100
    torch.testing.assert_close(TextEmbeddings(tuple("abcde"), (), louder).vectors(), found)


def test_embeddings_that_cancel_each_other_out_are_refused():
    x = torch.randn(8)
    text = TextEmbeddings(("chair", "table"), (), torch.stack([torch.stack([x, x]), x * ONES]), "f")
    with pytest.raises(InputError, match="f: the embedding of class 'table' is zero"):
        text.vectors()


ONES = torch.tensor([[1.0], [-1.0]])


def test_a_whole_clip_model_gives_the_same_as_its_text_tower(tower: str, tmp_path: Path):
    vision = CLIPVisionConfig(**SIZES, num_attention_heads=4, image_size=8, patch_size=4)
    config = CLIPConfig(
        text_config=text_config().to_dict(), vision_config=vision.to_dict(), projection_dim=24
    )
    whole = CLIPModel(config)
    text = CLIPTextModelWithProjection.from_pretrained(tower)
    whole.text_model.load_state_dict(text.text_model.state_dict())
    whole.text_projection.load_state_dict(text.text_projection.state_dict())
    whole.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    found = embed_classes(CLASSES, TEMPLATES, str(tmp_path)).embeddings
    torch.testing.assert_close(found, embed_classes(CLASSES, TEMPLATES, tower).embeddings)


def test_a_tower_without_its_projection_is_refused(tmp_path: Path):
    CLIPTextModel(text_config()).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(InputError, match=r"1 weights are missing, such as text_projection\.weight"):
        embed_classes(CLASSES, TEMPLATES, str(tmp_path))


def test_what_is_no_text_model_is_one_line(tmp_path: Path, language_model: str):
    for folder in (tmp_path, tmp_path / "missing", language_model):
        with pytest.raises(InputError, match=r"text model|get_text_features") as error:
            embed_classes(CLASSES, TEMPLATES, str(folder))
        assert "\n" not in str(error.value)


def test_prompts_that_are_too_long_are_cut_with_a_note(tower: str):
    text = embed_classes(["x" * 60, "x" * 70, "chair"], ["{}"], tower)
    assert text.notes == ("2 prompts were longer than 40 tokens and were cut",)
    torch.testing.assert_close(text.embeddings[0], text.embeddings[1])


def test_other_braces_stay_as_they_are():
    assert fill("{a} {}", "{} {0}") == "{a} {} {0}"


def test_a_file_holds_what_was_embedded(tmp_path: Path):
    text = TextEmbeddings(("chair", "sofá"), TEMPLATES, torch.randn(2, 3, 4), "tower", ("cut",))
    write_text_embeddings(text, tmp_path / "text.safetensors")
    found = read_text_embeddings(tmp_path / "text.safetensors")
    assert (found.classes, found.templates, found.notes) == (text.classes, TEMPLATES, ("cut",))
    assert torch.equal(found.embeddings, text.embeddings)


def test_averaged_embeddings_are_read_as_one_template(tmp_path: Path):
    embeddings = torch.randn(2, 4, dtype=torch.float16)
    write(tmp_path, embeddings, {"classes": ["chair", "table"], "templates": list(TEMPLATES)})
    found = read_text_embeddings(tmp_path / "text.safetensors")
    expected = torch.nn.functional.normalize(embeddings.float(), dim=1)
    torch.testing.assert_close(found.vectors(), expected)


def write(folder: Path, embeddings: torch.Tensor, facts: object) -> None:
    entry = {"o2s": facts if isinstance(facts, str) else json.dumps(facts)}
    save_file({"embeddings": embeddings}, folder / "text.safetensors", entry)


AB = ["a", "b"]


@pytest.mark.parametrize(
    "embeddings, facts, message",
    [
        (torch.ones(2, 3), {}, "metadata classes: missing; expected a list of texts"),
        (torch.ones(2, 3), {"classes": ["a", 1]}, r"metadata classes\[1\]: '1'; expected a text"),
        (torch.ones(2, 3), {"classes": ["a", "a"]}, r"classes\[1\]: 'a' comes twice, first at"),
        (torch.ones(3, 3), {"classes": AB}, r"shape \[3, 3\] for 2 classes; expected one row"),
        (torch.ones(2, 0), {"classes": AB}, r"shape \[2, 0\] for 2 classes"),
        (torch.ones(2), {"classes": AB}, r"float32 of shape \[2\]; expected numbers of \[C, D\]"),
        (torch.ones(2, 3).int(), {"classes": AB}, "embeddings: torch.int32"),
        (torch.ones(2, 3, 4), {"classes": AB, "templates": ["{}"]}, "for 1 templates"),
        (torch.tensor([[1.0], [torch.nan]]), {"classes": AB}, r"embeddings\[1\] is not finite"),
        (torch.ones(2, 3), "[]", "metadata o2s: '\\[\\]'; expected a JSON object"),
        (torch.ones(2, 3), '{"classes": 1, "classes": 2}', "'classes' comes twice"),
        (torch.ones(2, 3), {"classes": AB, "notes": 5}, "metadata notes: '5'; expected a list"),
    ],
)
def test_wrong_text_embeddings_are_one_line(tmp_path: Path, embeddings, facts, message: str):
    write(tmp_path, embeddings, facts)
    with pytest.raises(InputError, match=message) as error:
        read_text_embeddings(tmp_path / "text.safetensors")
    assert str(error.value).startswith(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    path = tmp_path / "text.safetensors"
    for found in ("no such file", "is a folder", "not a .safetensors file"):
        if found == "is a folder":
            path.mkdir()
        elif found != "no such file":
            path.rmdir()
            path.write_bytes(b"nothing of the kind")
        with pytest.raises(InputError, match=found):
            read_text_embeddings(path)


def test_missing_classes_are_named():
    text = TextEmbeddings(("chair",), (), torch.ones(1, 1, 2), "text.safetensors")
    with pytest.raises(
        InputError, match=r"text\.safetensors: no embeddings of the class 'sofa', 1 of"
    ):
        text.select(["chair", "sofa"])


def test_class_names_are_read_from_lines_and_from_json(tmp_path: Path):
    for name, content in {
        "a.txt": "chair\r\n\n  office desk \n",
        "a.json": '["chair", "office desk"]',
        "b.json": '{"modelnet40": ["chair", "office desk"]}',
    }.items():
        (tmp_path / name).write_text(content)
        assert read_classes(tmp_path / name) == ("chair", "office desk")


def test_the_templates_of_o2s_are_templates():
    templates = read_templates()
    assert len(templates) > 1
    assert all(template.count("{}") == 1 for template in templates)


def test_templates_are_chosen_by_name(tmp_path: Path):
    path = tmp_path / "templates.json"
    path.write_text('{"many": ["a {}", "b {}"], "one": ["{}"]}')
    assert read_templates(path, "one") == ("{}",)
    with pytest.raises(InputError, match="holds the sets 'many', 'one'; say which with"):
        read_templates(path)
    with pytest.raises(InputError, match="no template set 'two'; there are 'many', 'one'"):
        read_templates(path, "two")
    path.write_text('{"many": ["a {}", "b {}"]}')
    assert read_templates(path) == ("a {}", "b {}")


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("t.json", "[", "not JSON; expected a list of templates"),
        ("t.json", "[]", "'\\[\\]'; expected a list of texts"),
        ("t.json", '["a"]', r"\[0\]: 'a'; expected a template with one"),
        ("t.json", '["{} {}"]', r"\[0\]: '{} {}'; expected a template with one"),
        ("t.json", '["{}", "{}"]', r"\[1\]: '{}' comes twice, first at \[0\]"),
        ("t.json", '["{}", true]', r"\[1\]: 'True'; expected a text"),
        ("t.json", '{"a": ["{}"], "a": ["{}"]}', "the key 'a' comes twice"),
        ("t.yaml", "a: ['{}']\na: ['{}']", "the key 'a' comes twice"),
        ("t.yaml", "- '{}'\n- [", "not YAML; expected a list"),
        ("t.yaml", "a: 5", "a: '5'; expected a list of texts"),
        ("t.yaml", "", "the file is empty"),
        ("t.yaml", b"- \xff", "not UTF-8 text"),
    ],
)
def test_wrong_templates_are_one_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=message) as error:
        read_templates(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "give either FEATURES or --scenes"),
        ({"features": "f", "scenes": "s"}, "give either FEATURES or --scenes"),
        ({"features": "f"}, "give either --text or --text-model"),
        (
            {"features": "f", "text": "t", "templates": "x"},
            "--templates and --template-set go with",
        ),
        ({"features": "f", "text": "t", "split": "val"}, "go with --scenes, not with FEATURES"),
        ({"scenes": "s"}, "expected a folder that `o2s prepare`"),
        ({"scenes": "s", "text": "t", "text_model": "m"}, "give either --text or --text-model"),
        ({"scenes": "s", "text": "t", "classes": "nyu40"}, "expected a folder that `o2s prepare`"),
        ({"features": "f", "text_model": "m", "template_set": "a"}, "--template-set chooses among"),
        ({"features": "f", "text": "t"}, "no such file; expected a .safetensors file"),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    tmp_path: Path, options: dict[str, str], message: str
):
    paths = {"features", "scenes", "text", "templates"}
    given = {k: tmp_path / v if k in paths else v for k, v in options.items()}
    with pytest.raises(InputError, match=message) as error:
        zero_shot(**given, threads=1)
    assert "\n" not in str(error.value)
