"""The command `o2s find`: which objects of a scan look most like some words.

    scan    -> detector, region encoder   features [R, F]
            -> @ pc_projection            embeddings [R, E], length 1
    queries -> prompts, text tower        one vector [E] a query, length 1
            -> cosines                    objects in order

Raw cosines say little: where they lie differs between encoders and between queries. So each comes
with a margin, the cosine less that of the best among other names (as zero-shot classification
compares names). A margin below 0 says that one of these names fits the object better, and the name
stands beside it. Margins do not change the order of the objects.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from o2s.errors import InputError
from o2s.loading import ModelSource, find_device, load_encoder, set_threads
from o2s.options import (
    ENCODER_CONFIG,
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    ScanArgument,
    SetOption,
    TextKind,
    TextKindOption,
    TextTokenizerOption,
    ThreadsOption,
    TrustOption,
    Unit,
    UnitOption,
    Up,
    UpOption,
    check_picture,
    check_text_options,
)
from o2s.terminal import boxes_json, out, print_json, progress_bar, read_scan, say_untrained, step
from o2s.words import without_article

if TYPE_CHECKING:
    from jaxtyping import Float, Float32
    from torch import Tensor

    from o2s.encoder import SceneEncoder
    from o2s.scene import Boxes, RegionFeatures, Scene
    from o2s.towers import TextTower

logger = logging.getLogger(__name__)

EXAMPLE = "Example: o2s find room.ply 'a chair' --picture found.png"
REGION_ENCODER = "region encoder"  # its name among the untrained parts


@dataclass(frozen=True)
class Found:
    """One object (its row) and how like the query it is; cosines, so from -1 to 1.

    `margin` is over the best other name, `over`; both None where there is no other name.
    """

    object: int
    similarity: float
    margin: float | None
    over: str | None


def find(
    scan: ScanArgument,
    queries: Annotated[list[str], typer.Argument(help="What to look for, one or several.")],
    top: Annotated[int, typer.Option(min=1, help="How many objects to show a query.")] = 5,
    json_output: JsonOption = False,
    picture: Annotated[
        Path | None,
        typer.Option(help="Also draw the scan with these objects marked: a .png file."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Other names for the margin: a file, one a line or a JSON list; furniture if not "
            "given."
        ),
    ] = None,
    text_model: Annotated[
        str | None,
        typer.Option(
            help="The text tower that the region encoder was trained with: a folder, file or hub "
            "name; MiniLM if not given."
        ),
    ] = None,
    text_kind: TextKindOption = None,
    text_tokenizer: TextTokenizerOption = None,
    model: ModelOption = None,
    config: ConfigOption = ENCODER_CONFIG,
    override: SetOption = None,
    up: UpOption = Up.auto,
    unit: UnitOption = Unit.auto,
    trust_pickle: TrustOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Find the objects of a scan that are most like some words.

    Similarity is a cosine and means little by itself. The margin tells how much more an object is
    like the query than like the best of other names; below 0, that name fits better.
    """
    queries = [query.encode(errors="replace").decode() for query in queries]  # no halves of letters
    phrases = [check_query(query, i) for i, query in enumerate(queries, start=1)]
    check_text_options(text_model, text_kind, text_tokenizer)
    check_picture(picture)
    names = _other_names(against)
    set_threads(threads)
    encoder, untrained = load_encoder(
        ModelSource(model, config, override or [], trust_pickle=trust_pickle)
    )
    encoder.to(find_device(device))
    with progress_bar() as progress:
        scene = read_scan(progress, scan, up, unit)
        with step(progress, "finding objects"):
            boxes = encoder.detect(scene)
        found: list[list[Found]] = [[] for _ in queries]
        if len(boxes):
            with step(progress, "loading the text tower"):
                tower = _load_tower(
                    text_model, text_kind, text_tokenizer, device, trust_pickle=trust_pickle
                )
            require_same_space(encoder.point_bert.config.embedding, tower)
            vectors, others = _embed_words(progress, phrases, names, tower)
            with step(progress, "encoding objects") as update:
                look = encoder.look(scene, boxes, update)
            numbers = rows_of(look.boxes, boxes)
            embeddings = embed_regions(encoder, look)
            for i, phrase in enumerate(phrases):
                rivals = [n for n, name in enumerate(names) if not is_same(phrase, name)]
                rival_names = [names[n] for n in rivals]
                best = rank_objects(embeddings, vectors[i], others[rivals], rival_names)[:top]
                found[i] = [replace(hit, object=numbers[hit.object]) for hit in best]
    parts = [part for part in untrained if part == REGION_ENCODER]
    say_untrained(parts)
    if json_output:
        print_json(_found_json(scan, scene, boxes, queries, found))
    elif len(boxes) == 0:
        out.print(f"no objects in {scan}", markup=False, highlight=False, soft_wrap=True)
    else:
        for query, best in zip(queries, found, strict=True):
            _print_found(scene, boxes, query, best)
    if picture is not None:
        from o2s.view.found import draw_found

        hits = [[(hit.object, hit.similarity) for hit in best] for best in found]
        note = " (by an untrained model)" if parts else ""
        draw_found(scene, boxes, picture, queries, hits, note=note)


def check_query(query: str, number: int) -> str:
    """What stands in prompts for a query: one space between words, no leading article.

    Raises:
        InputError: there is no word in it; `number` says which query it is.
    """
    text = " ".join(query.split())
    if not any(letter.isalnum() for letter in text):
        raise InputError(f"query {number} is {text!r}; expected words, such as 'a chair'")
    return without_article(text)


def embed_regions(encoder: "SceneEncoder", look: "RegionFeatures") -> "Float32[Tensor, 'R E']":
    """Unit vectors of encoded regions in the space of texts, on the CPU."""
    import torch.nn.functional as F

    projection = encoder.point_bert.pc_projection.detach().float().cpu()
    return F.normalize(look.features.float() @ projection, dim=-1)


def rows_of(part: "Boxes", whole: "Boxes") -> list[int]:
    """Where the boxes of a part stand among all: those that hold too few points are not encoded."""
    import torch

    everything, rows = whole.tensor, iter(range(len(whole)))
    return [next(row for row in rows if torch.equal(everything[row], box)) for box in part.tensor]


def rank_objects(
    embeddings: "Float32[Tensor, 'R E']",
    query: "Float32[Tensor, 'E']",
    others: "Float32[Tensor, 'C E']",
    names: Sequence[str],
) -> list[Found]:
    """All objects, the most similar first; of equals the one that the detector put first.

    Args:
        embeddings: unit vectors of the objects.
        query: a unit vector.
        others: unit vectors of other names; may be none.
        names: what `others` are called.
    """
    import torch

    similarities = embeddings @ query
    order = torch.argsort(similarities, descending=True, stable=True).tolist()
    if not len(others):
        return [Found(i, float(similarities[i]), None, None) for i in order]
    rivals, which = (embeddings @ others.T).max(dim=1)
    margins = similarities - rivals
    return [
        Found(i, float(similarities[i]), float(margins[i]), names[int(which[i])]) for i in order
    ]


def is_same(phrase: str, name: str) -> bool:
    """Whether one of two texts has all words of the other, in singular or plural.

    Then the one is a kind of the other ("office chair", "chair") and no rival to it.
    """
    ours, theirs = _words(phrase), _words(name)
    return ours <= theirs or theirs <= ours


def require_same_space(width: int, tower: "TextTower") -> None:
    """Raise InputError unless embeddings of regions are as wide as those of texts."""
    if width != tower.width:
        raise InputError(
            f"the region encoder's embeddings have width {width}, those of the text tower "
            f"{tower.name} width {tower.width}; give the text tower that this region encoder was "
            "trained with, by --text-model (and --text-kind)"
        )


def _other_names(file: Path | None) -> tuple[str, ...]:
    if file is not None:
        from o2s.evaluate.text_embeddings import read_classes

        return read_classes(file)
    from o2s.datasets.furniture_classes import CLASSES

    return tuple(CLASSES)


def _load_tower(
    path: str | None,
    kind: TextKind | None,
    tokenizer: str | None,
    device: str | None,
    *,
    trust_pickle: bool,
) -> "TextTower":
    from transformers.utils import logging as transformers_logging

    from o2s.towers import TowersConfig, text_tower

    transformers_logging.disable_progress_bar()
    config = TowersConfig()
    if path is not None:
        config = TowersConfig((kind or TextKind.clip).value, path, tokenizer)
    return text_tower(config, find_device(device), trust_pickle=trust_pickle)


def _embed_words(
    progress: Progress, phrases: Sequence[str], names: Sequence[str], tower: "TextTower"
) -> "tuple[Float[Tensor, 'Q E'], Float[Tensor, 'C E']]":
    """The queries' vectors and those of the other names, which are kept for the next time."""
    from o2s.evaluate.phrases import embed_phrases
    from o2s.evaluate.text_embeddings import read_templates
    from o2s.towers import cached_embeddings
    from o2s.weights import cache_folder

    templates = read_templates()

    with step(progress, "embedding words") as update:
        vectors = embed_phrases(phrases, templates, tower)
        # Some text towers count what was too long for them.
        if getattr(tower, "cut", 0):
            logger.warning("a query is longer than the text tower reads: its end was cut off")

        def cached(prompts: Sequence[str]) -> "Float[Tensor, 'M E']":
            folder = cache_folder() / "embeddings"
            return cached_embeddings(prompts, str, tower, tower.name, folder, progress=update)

        try:
            others = embed_phrases(names, templates, cached)
        except OSError as error:  # a cache that may only be read is no reason to fail
            logger.debug("embeddings are not kept: %s", error)
            others = embed_phrases(names, templates, tower)
    return vectors, others


def _words(text: str) -> set[str]:
    return {_singular(word) for word in re.findall(r"\w+", text.casefold())}


def _singular(word: str) -> str:
    """A word or its plural, as one: shelf of shelves, box of boxes, knif of knives and of knife."""
    if re.search(r"(?:[aeo]l|ar|ea|oa|[nlw]i)ves$", word):
        return word[:-3] + "f"
    if re.search(r"(?:x|ch|sh|ss)es$", word):
        return word[:-2]
    if len(word) > 3 and not word.endswith("ss"):
        word = word.removesuffix("s")
    return word[:-1] if word.endswith("ife") else word


def _found_json(
    scan: Path,
    scene: "Scene",
    boxes: "Boxes",
    queries: Sequence[str],
    found: Sequence[Sequence[Found]],
) -> dict[str, Any]:
    """Objects as `o2s detect --json` prints them, numbered from 1 as they come there."""
    entries = boxes_json(scan, scene, boxes)["boxes"]
    lists = [
        [
            {
                "rank": rank,
                "similarity": _rounded(hit.similarity),
                "margin": None if hit.margin is None else _rounded(hit.margin),
                "over": hit.over,
                "object": hit.object + 1,
            }
            | entries[hit.object]
            for rank, hit in enumerate(best, start=1)
        ]
        for best in found
    ]
    answers = [{"query": q, "found": best} for q, best in zip(queries, lists, strict=True)]
    return {"scan": str(scan), "objects": len(boxes), "queries": answers}


def _rounded(value: float) -> float:
    return round(value, 4) + 0.0  # no -0.0


def _print_found(scene: "Scene", boxes: "Boxes", query: str, best: Sequence[Found]) -> None:
    title = Text(f"{query} in {scene.name}: the best {len(best)} of {len(boxes)} objects")
    columns = ("#", "similarity", "margin over", "centre (m)", "size (m)")
    table = Table(*columns, title=title)
    centres = (boxes.centres.double() + scene.offset).tolist()
    for rank, hit in enumerate(best, start=1):
        margin = "" if hit.margin is None else f"{hit.margin:+z.2f} {hit.over}"
        centre, size = centres[hit.object], boxes.sizes[hit.object].tolist()
        shown = [" ".join(f"{v:.2f}" for v in values) for values in (centre, size)]
        table.add_row(str(rank), f"{hit.similarity:z.2f}", Text(margin), *shown)
    out.print(table)
