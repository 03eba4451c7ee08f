"""The recipe of a region encoder: a YAML file as a dataclass, and what is built from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jaxtyping import Float32
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from o2s.alignment import AlignmentConfig
from o2s.datasets.furniture import FurnitureLibrary
from o2s.datasets.furniture_objects import FurnitureObjects
from o2s.datasets.openshape import OpenShape
from o2s.datasets.scan_objects import ScanObjects
from o2s.datasets.triplets import Triplet, TripletSource
from o2s.datasets.ulip import ShapeNet55, UlipObjaverse
from o2s.errors import InputError
from o2s.evaluate.phrases import embed_phrases
from o2s.evaluate.text_embeddings import read_templates
from o2s.point_bert import SIZES, PointBertConfig
from o2s.towers import ImageTower, TextTower, TowersConfig, cached_embeddings
from o2s.train.region_augmentation import RegionAugmentation
from o2s.train.region_batches import EmbeddedImages, EmbeddedTexts
from o2s.train.regions import RegionOptimisation
from o2s.train.run_folder import Step


@dataclass(frozen=True)
class RegionData:
    """Where triplets come from; every source that is given is used.

    Args:
        scenes: prepared scans, with `crops/` if images are wanted.
        descriptions: files in ScanRefer's format, of the scans.
        rooms: the folder of `o2s rooms` that the scans were prepared from.
        furniture: the library of meshes that the rooms were made of.
        sketched: further libraries, all of them for train, such as that of `o2s furniture`; their
            texts are used, and no images of them.
        shapenet: the folder `shapenet-55` in ULIP's layout.
        objaverse: the folder `ULIP-Objaverse_triplets`.
        openshape: the folder of OpenShape's objects, with `openshape_split`, one of its JSON files.
        val_share: of the last three, how much is held out for val.
        cache: a folder for embeddings of the towers and rendered views.
    """

    scenes: str | None = None
    descriptions: list[str] = field(default_factory=list)
    rooms: str | None = None
    furniture: str | None = None
    sketched: list[str] = field(default_factory=list)
    shapenet: str | None = None
    objaverse: str | None = None
    openshape: str | None = None
    openshape_split: str | None = None
    val_share: float = 0.02
    cache: str = "cache"

    def __post_init__(self) -> None:
        if not 0 < self.val_share < 1:
            raise ValueError(f"val_share is {self.val_share}, expected between 0 and 1")
        if (self.openshape is None) != (self.openshape_split is None):
            raise ValueError("openshape and openshape_split go together, expected both or neither")


@dataclass(frozen=True)
class RegionRecipe:
    """All that `o2s train regions` does.

    `weights` are those of a region encoder of the same size that training goes on from: a file, or
    "tiny" for those that come with o2s. Without them it begins at random.
    """

    data: RegionData = field(default_factory=RegionData)
    towers: TowersConfig = field(default_factory=TowersConfig)
    point_bert: str | PointBertConfig = "tiny"
    weights: str | None = None
    points: int = 1024
    objective: Literal["alignment", "labels"] = "alignment"
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    augment: RegionAugmentation = field(default_factory=RegionAugmentation)
    optimisation: RegionOptimisation = field(default_factory=RegionOptimisation)

    def __post_init__(self) -> None:
        if isinstance(self.point_bert, str) and self.point_bert not in SIZES:
            raise ValueError(
                f"point_bert is {self.point_bert!r}, expected one of {', '.join(SIZES)}"
            )
        if self.points < 1:
            raise ValueError(f"points is {self.points}, expected at least 1")

    @property
    def size(self) -> PointBertConfig:
        """The size of the encoder."""
        return SIZES[self.point_bert] if isinstance(self.point_bert, str) else self.point_bert


def open_sources(data: RegionData, split: str, step: Step) -> list[TripletSource]:
    """The sources of one split, read.

    Raises:
        InputError: none is given, or one cannot be read.
    """
    sources: list[TripletSource] = []
    if data.scenes is not None:
        with step(f"reading {split} scans") as update:
            scans = ScanObjects(
                Path(data.scenes),
                split=split,
                descriptions=[Path(path) for path in data.descriptions],
                rooms=None if data.rooms is None else Path(data.rooms),
                progress=update,
            )
        sources.append(scans)
    libraries: list[tuple[FurnitureLibrary, Path | None]] = []
    main = None if data.furniture is None else FurnitureLibrary.open(Path(data.furniture))
    if main is not None:
        libraries.append((main, Path(data.cache) / "views"))
    if split == "train":
        for folder in data.sketched:
            drawn = FurnitureLibrary.open(Path(folder))
            libraries.append((drawn.all_for_train(beside=main), None))
    for library, views in libraries:
        with step(f"sampling {split} meshes") as update:
            sources.append(FurnitureObjects(library, split=split, images=views, progress=update))
    shapes: list[TripletSource] = []
    if data.shapenet is not None:
        shapes.append(ShapeNet55(Path(data.shapenet), "train"))
    if data.objaverse is not None:
        shapes.append(UlipObjaverse(Path(data.objaverse)))
    if data.openshape is not None and data.openshape_split is not None:
        shapes.append(OpenShape(Path(data.openshape), Path(data.openshape_split)))
    sources += [held_out(source, split, data.val_share) for source in shapes]
    if not sources:
        raise InputError("data: no source of triplets; give data.scenes, data.furniture, ...")
    return sources


def open_splits(
    data: RegionData, step: Step
) -> tuple[dict[str, list[TripletSource]], dict[str, str], list[str]]:
    """The sources of train and val; what is said of each of their classes; all their texts.

    Of a class its name is said. Objects without a class are classes of their own, called by an id:
    of these the first text is said. Classes and texts each once, sorted.

    Raises:
        InputError: as `open_sources`.
    """
    sources = {split: open_sources(data, split, step) for split in ("train", "val")}
    every = [source for found in sources.values() for source in found]
    said: dict[str, str] = {}
    texts: set[str] = set()
    for source in every:
        for i in range(len(source)):
            label, own = source.label(i), source.texts(i)
            said.setdefault(label, label if label in own else own[0])
            texts.update(own)
    return sources, dict(sorted(said.items())), sorted(texts)


class Part(TripletSource):
    """Some of the objects of a source."""

    def __init__(self, source: TripletSource, rows: Sequence[int]) -> None:
        self.source, self.rows = source, list(rows)
        self.metric = source.metric
        self.classes = tuple(sorted({source.label(row) for row in self.rows}))

    @property
    def name(self) -> str:
        return self.source.name

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Triplet:
        return self.source[self.rows[index]]

    def label(self, index: int) -> str:
        return self.source.label(self.rows[index])

    def texts(self, index: int) -> tuple[str, ...]:
        return self.source.texts(self.rows[index])

    def images(self, index: int) -> tuple[Path, ...]:
        return self.source.images(self.rows[index])


def held_out(source: TripletSource, split: str, share: float) -> Part:
    """The train or val part of a source that has none of its own: every so many-th is val.

    Raises:
        InputError: there are too few objects for one of val.
    """
    every = max(2, round(1 / share))
    if len(source) < every:
        raise InputError(
            f"data.val_share is {share} of {len(source)} objects, which is none; expected more"
        )
    rows = range(len(source))
    return Part(source, [row for row in rows if (row % every == every - 1) == (split == "val")])


def embed_texts(texts: Sequence[str], tower: TextTower, cache: Path, step: Step) -> EmbeddedTexts:
    """The embedding of each of some distinct texts: names averaged over the prompt templates, as in
    zero-shot classification, sentences as they are."""
    with step("embedding texts") as update:
        vectors = embed_phrases(
            texts,
            read_templates(),
            lambda prompts: cached_embeddings(
                prompts, str, tower, tower.name, cache, progress=update
            ),
        )
    return EmbeddedTexts({text: i for i, text in enumerate(texts)}, vectors)


def images_of(sources: Sequence[TripletSource]) -> list[Path]:
    """All images of the sources, each once, sorted."""
    return sorted({path for s in sources for i in range(len(s)) for path in s.images(i)})


def embed_images(
    paths: Sequence[Path], tower: ImageTower, cache: Path, step: Step
) -> EmbeddedImages:
    """The embedding of each of some distinct images."""
    vectors = embed_files(paths, tower, tower.name, cache, step)
    return EmbeddedImages({path: i for i, path in enumerate(paths)}, vectors)


def embed_files(
    paths: Sequence[Path],
    embed: Callable[[Sequence[Image.Image]], Float32[Tensor, "_ D"]],
    name: str,
    cache: Path,
    step: Step,
) -> Float32[Tensor, "V D"]:
    """What `embed` says of image files, kept in the cache under a name."""
    with step("embedding images") as update:
        return cached_embeddings(
            paths,
            image_key,
            lambda batch: embed([open_image(path) for path in batch]),
            name,
            cache,
            progress=update,
        )


def image_key(path: Path) -> str:
    """What tells an image from others: its name, size and time of change."""
    facts = path.stat()
    return f"{path} {facts.st_size} {facts.st_mtime_ns}"


def open_image(path: Path) -> Image.Image:
    """An image file, transparent where it is: towers know what ground to see it on.

    Raises:
        InputError: it is no whole image.
    """
    try:
        with Image.open(path) as image:
            return image.copy()
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise InputError(f"{path}: not a whole image ({error})") from None
