"""Class names as vectors: prompts of several wordings through a text tower, averaged.

    classes, templates -> each name in each template   C x M prompts
                       -> text tower                   embeddings [C, M, D]
                       -> length 1, mean over M, length 1          vectors [C, D]

The averaging is that of CLIP (Radford et al., ICML 2021, arXiv 2103.00020, section 3.1.4) as ULIP
does it (github.com/salesforce/ULIP, main.py, `test_zeroshot_3d_core`). Names stand in the prompts
as they are written: no article is mended, no underscore replaced.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jaxtyping import Float, Float32
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from o2s.errors import InputError
from o2s.evaluate.json_files import RepeatedKeyError, each_key_once, parse_json, read_text
from o2s.files import replacing
from o2s.io.cloud import quote, require_file
from o2s.towers import TowersConfig, text_tower

METADATA = "o2s"  # the key of the metadata, one JSON object
TEMPLATES = Path(str(files("o2s") / "evaluate" / "prompt_templates.yaml"))
BATCH = 64  # prompts between two reports of progress
SMALL = ("small", "minilm-l6-v2")  # names of the text tower that o2s fetches


@dataclass(frozen=True)
class TextEmbeddings:
    """C classes in M templates; M is 1 and `templates` empty where they came averaged."""

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    embeddings: Float32[Tensor, "C M D"]
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """D."""
        return self.embeddings.shape[-1]

    def vectors(self) -> Float32[Tensor, "C D"]:
        """One unit vector a class.

        Raises:
            InputError: embeddings of a class that are zero, or cancel each other out.
        """
        return unit(unit(self.embeddings, self._name).mean(dim=1), self._name)

    def select(self, classes: Sequence[str]) -> "TextEmbeddings":
        """Only these classes, in their order.

        Raises:
            InputError: a class has no embeddings.
        """
        place = {name: i for i, name in enumerate(self.classes)}
        missing = [name for name in classes if name not in place]
        if missing:
            raise InputError(
                f"{self.source}: no embeddings of the class {quote(missing[0])}, "
                f"{len(missing)} of {len(classes)} classes are missing; expected all of them"
            )
        chosen = self.embeddings[[place[name] for name in classes]]
        return replace(self, classes=tuple(classes), embeddings=chosen)

    def _name(self, row: int) -> str:
        return f"{self.source}: the embedding of class {quote(self.classes[row])}"


def embed_classes(
    classes: Sequence[str],
    templates: Sequence[str],
    model: str,
    *,
    kind: Literal["clip", "open_clip", "slip"] = "clip",
    tokenizer: str | None = None,
    trust_pickle: bool = False,
    device: torch.device | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TextEmbeddings:
    """Embed each class name in each template with a text tower.

    Args:
        classes: C names, each once.
        templates: M templates, each with one `{}`.
        model: `minilm-l6-v2` or `small`, or a model as `TowersConfig` takes it. A folder of that
            name wins over the small tower.
        kind: what the model is.
        tokenizer: of a model of kind slip, where it does not lie beside the checkpoint.
        trust_pickle: as of `weights.load_checkpoint`.
        device: where to compute; the CPU if not given.
        progress: called with the number of prompts done and of all.

    Raises:
        InputError: the model cannot be loaded, lacks weights, or is no text tower.
    """
    small = model in SMALL and not Path(model).is_dir()
    towers = TowersConfig() if small else TowersConfig(kind, model, tokenizer)
    tower = text_tower(towers, device, trust_pickle=trust_pickle)
    prompts = [fill(template, name) for name in classes for template in templates]
    found: list[Float32[Tensor, "_ D"]] = []
    for start in range(0, len(prompts), BATCH):
        found.append(tower.embed(prompts[start : start + BATCH]))
        progress(min(start + BATCH, len(prompts)), len(prompts))
    notes = ()
    if tower.cut:
        notes = (f"{tower.cut} prompts were longer than {tower.longest} tokens and were cut",)
    embeddings = torch.cat(found).reshape(len(classes), len(templates), -1)
    return TextEmbeddings(tuple(classes), tuple(templates), embeddings, model, notes)


def fill(template: str, name: str) -> str:
    """The prompt for a class. Other braces, in the template or in the name, stay as they are."""
    return template.replace("{}", name)


def unit(vectors: Float[Tensor, "*rows D"], name: Callable[[int], str]) -> Float[Tensor, "*rows D"]:
    """Vectors divided by their lengths; `name` says in an error which row has none.

    Raises:
        InputError: a vector is zero, so that it has no direction.
    """
    lengths = vectors.double().norm(dim=-1, keepdim=True)  # float32 would overflow at 1e19
    zero = (lengths == 0).flatten(1).any(dim=1) if vectors.dim() > 2 else lengths[:, 0] == 0
    if zero.any():
        raise InputError(f"{name(int(zero.int().argmax()))} is zero; expected a direction")
    return (vectors.double() / lengths).to(vectors)


def write_text_embeddings(text: TextEmbeddings, path: Path) -> None:
    """Write embeddings as `read_text_embeddings` takes them, whole or not at all."""
    facts = {
        "classes": text.classes,
        "templates": text.templates,
        "model": text.source,
        "notes": text.notes,
    }
    write_tensors(path, {"embeddings": text.embeddings}, facts)


def read_text_embeddings(path: Path) -> TextEmbeddings:
    """Read `embeddings`, [C, D] or [C, M, D], and the names of their classes and templates.

    The names are in the metadata `o2s`, a JSON object with `classes` and `templates`.

    Raises:
        InputError: the file is missing or damaged, or names and embeddings do not fit.
    """
    tensors, facts = read_tensors(path, "embeddings of classes")
    held = tensors.get("embeddings")
    classes = name_list(facts.get("classes"), f"{path}: metadata classes")
    if held is None or not held.is_floating_point() or held.dim() not in (2, 3):
        shown = "missing" if held is None else f"{held.dtype} of shape {list(held.shape)}"
        raise InputError(f"{path}: embeddings: {shown}; expected numbers of [C, D] or [C, M, D]")
    embeddings = held.float() if held.dim() == 3 else held.float()[:, None]
    if len(embeddings) != len(classes) or 0 in embeddings.shape:
        raise InputError(
            f"{path}: embeddings of shape {list(held.shape)} for {len(classes)} classes; expected "
            "one row for each class"
        )
    templates: tuple[str, ...] = ()
    if facts.get("templates"):
        templates = name_list(facts["templates"], f"{path}: metadata templates")
    if held.dim() == 3 and templates and len(templates) != held.shape[1]:
        raise InputError(
            f"{path}: embeddings of shape {list(held.shape)} for {len(templates)} templates; "
            "expected one for each template"
        )
    if not embeddings.isfinite().all():
        row = int((~embeddings.isfinite().flatten(1).all(dim=1)).int().argmax())
        raise InputError(f"{path}: embeddings[{row}] is not finite; expected numbers")
    notes = facts.get("notes") or []
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise InputError(f"{path}: metadata notes: {quote(notes)}; expected a list of texts")
    return TextEmbeddings(classes, templates, embeddings, str(path), tuple(notes))


def read_tensors(path: Path, expected: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a .safetensors file, and the JSON object under `o2s` in its metadata.

    Raises:
        InputError: the file is missing or damaged, or the metadata is no JSON object.
    """
    require_file(path, f"a .safetensors file with {expected}")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            entry = (file.metadata() or {}).get(METADATA, "{}")
    except (SafetensorError, OSError) as error:
        line = quote(" ".join(str(error).split()))
        raise InputError(f"{path}: not a .safetensors file ({line}); expected {expected}") from None
    facts = parse_json(f"{path}", entry, f"metadata {METADATA}", finite=True)
    if not isinstance(facts, dict):
        raise InputError(f"{path}: metadata {METADATA}: {quote(entry)}; expected a JSON object")
    return tensors, facts


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """A .safetensors file that `read_tensors` reads, whole or not at all."""
    entry = {METADATA: json.dumps(facts, ensure_ascii=False)}
    with replacing(path) as temporary:
        save_file({name: t.contiguous() for name, t in tensors.items()}, temporary, entry)


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names: one a line, or, in a .json file, a list (or a mapping with one list), or, in a
    .safetensors file, those of embedded classes.

    Raises:
        InputError: the file is missing or of another format, or a name comes twice.
    """
    if path.suffix.lower() == ".safetensors":
        return read_text_embeddings(path).classes
    expected = "class names, one a line or as a JSON list"
    text = read_text(path, expected)
    if path.suffix.lower() != ".json":
        return name_list([line for line in text.splitlines() if line.strip()], f"{path}: name")
    held = parse_json(f"{path}", text, expected)
    if isinstance(held, dict):
        if len(held) != 1:
            raise InputError(f"{path}: holds {len(held)} entries; expected {expected}")
        held = next(iter(held.values()))
    return name_list(held, f"{path}: ")


def read_templates(path: Path = TEMPLATES, name: str | None = None) -> tuple[str, ...]:
    """Prompt templates out of a JSON or YAML file: a list, or a mapping of names to lists.

    Args:
        path: the file; YAML if it ends in .yaml or .yml, JSON otherwise.
        name: which list of a mapping to take; not needed where there is only one.

    Raises:
        InputError: the file is missing or of another format; there are several lists and none is
            named; a template has not exactly one `{}`, or comes twice.
    """
    expected = "a list of templates, or a mapping of names to lists"
    text = read_text(path, expected)
    is_yaml = path.suffix.lower() in (".yaml", ".yml")
    held = (_parse_yaml if is_yaml else parse_json)(f"{path}", text, expected)
    where = f"{path}: "
    if isinstance(held, dict):
        there = ", ".join(map(quote, held)) or "none"
        if name is None and len(held) != 1:
            raise InputError(f"{path}: holds the sets {there}; say which with --template-set")
        name = str(next(iter(held))) if name is None else name
        if name not in held:
            raise InputError(f"{path}: no template set {quote(name)}; there are {there}")
        where, held = f"{path}: {name}", held[name]
    elif name is not None:
        raise InputError(f"{path}: one list, without names; leave --template-set away")
    templates = name_list(held, where)
    for i, template in enumerate(templates):
        if template.count("{}") != 1:
            shown = quote(template)
            raise InputError(f'{where}[{i}]: {shown}; expected a template with one "{{}}"')
    return templates


def name_list(value: object, where: str) -> tuple[str, ...]:
    """A list of texts, none empty, none twice; `where` begins the error.

    Raises:
        InputError: it is anything else.
    """
    if not isinstance(value, list) or not value:
        shown = "missing" if value is None else quote(value)
        raise InputError(f"{where.rstrip(': ')}: {shown}; expected a list of texts")
    first: dict[str, int] = {}
    for i, text in enumerate(value):
        if not isinstance(text, str) or not text.strip() or not text.strip().isprintable():
            raise InputError(f"{where}[{i}]: {quote(text)}; expected a text of one line")
        if text.strip() in first:
            earlier = first[text.strip()]
            raise InputError(f"{where}[{i}]: {quote(text)} comes twice, first at [{earlier}]")
        first[text.strip()] = i
    return tuple(first)


def _parse_yaml(at: str, text: str, expected: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, RepeatedKeyError) else "not YAML"
        raise InputError(f"{at}: {reason}; expected {expected}") from None


class _Loader(yaml.SafeLoader):
    """PyYAML takes the last of repeated keys; here they are an error."""


def _construct_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    pairs = [(str(key.value), loader.construct_object(v, deep=True)) for key, v in node.value]
    return each_key_once(pairs)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)
