"""The embeddings of objects: in files, and out of annotated scans by a region encoder."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from o2s.datasets.furniture_classes import SCAN_CLASSES
from o2s.datasets.preparation import read_index
from o2s.encoder import SceneEncoder, evaluating
from o2s.errors import InputError
from o2s.evaluate.answer_files import is_text
from o2s.evaluate.text_embeddings import name_list, read_classes, read_tensors, write_tensors
from o2s.io.cloud import quote
from o2s.io.labelled import LabelledScan, labelled_facts, labelled_scene, read_labelled
from o2s.regions import RegionConfig, crop_regions
from o2s.scene import Boxes, Scene

Cut = Literal["boxes", "instances"]
FURNITURE = "furniture"  # the list of `furniture_classes.SCAN_CLASSES`
_REGIONS = 8  # regions encoded at once: 256 MB in the largest public encoder


@dataclass(frozen=True)
class ObjectFeatures:
    """Embeddings of N objects and the numbers of their classes.

    `classes` names what the targets number, or is None where that is the order of the text
    embeddings; `scenes` names the scene of each object, if known; `untrained` names the parts of
    the encoder that held random numbers.
    """

    features: Float32[Tensor, "N D"]
    targets: Int64[Tensor, "N"]
    source: str
    classes: tuple[str, ...] | None = None
    scenes: tuple[str, ...] | None = None
    untrained: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    made_from: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AnnotatedScans:
    """The annotated scans of a folder, and the classes of their objects: one of their class lists,
    or, where `class_list` is a file, the names in it, which are compared with those that the
    annotation gives to objects.

    `first` is the number of the first class: class 0 of NYU40 is "unannotated".
    """

    folder: Path
    paths: tuple[Path, ...]
    class_list: str
    classes: tuple[str, ...]
    first: int
    facts: Mapping[str, Any]

    @classmethod
    def find(
        cls,
        folder: Path,
        class_list: str,
        split: str | None,
        known: Sequence[str] | None = None,
    ) -> "AnnotatedScans":
        """The scans with annotated objects; `class_list` is the name of a class list or a file, or
        `FURNITURE` for the classes that the region encoder of o2s knows, or those in `known`.

        Raises:
            InputError: there is no such class list, or no such scan.
        """
        index = read_index(folder)
        names = index["class_names"].get(class_list)
        file = Path(class_list)
        if not names and (
            class_list == FURNITURE or file.is_file() or file.suffix == ".safetensors"
        ):
            names = known or class_names(class_list)
        if not names:
            there = ", ".join([*index["class_names"], FURNITURE])
            raise InputError(
                f"{folder}: no class list {quote(class_list)}; there are {there}; or give a file"
            )
        scans = [s for s in index["scans"] if s["objects"] and split in (None, s["split"])]
        if not scans:
            where = "" if split is None else f" in the split {quote(split)}"
            raise InputError(f"{folder}: no scans with annotated objects{where}")
        first = 1 if class_list == "nyu40" else 0
        return cls(
            folder=folder,
            paths=tuple(folder / scan["file"] for scan in scans),
            class_list=class_list,
            classes=name_list(list(names)[first:], f"{folder}: class list {class_list}"),
            first=first,
            facts={"dataset": index["dataset"], "split": split or "all", "scans": len(scans)},
        )

    def numbers(self, path: Path, scan: LabelledScan) -> Int64[np.ndarray, "R"]:
        """The class of each object of a scan, negative for none.

        Raises:
            InputError: the scan lacks the class list.
        """
        assert scan.objects is not None
        if self.class_list in scan.objects.classes:
            return scan.objects.classes[self.class_list].astype(np.int64) - self.first
        if self.class_list != FURNITURE and not Path(self.class_list).is_file():
            raise InputError(f"{path}: objects without {self.class_list}; run `o2s prepare` again")
        place = {name: i for i, name in enumerate(self.classes)}
        return np.array([place.get(name, -1) for name in scan.objects.names], np.int64)


def class_names(classes: str) -> tuple[str, ...]:
    """The classes that `FURNITURE` stands for, or those of a file.

    Raises:
        InputError: it cannot be read, or a name is empty or stands there twice.
    """
    return SCAN_CLASSES if classes == FURNITURE else read_classes(Path(classes))


def read_features(path: Path) -> ObjectFeatures:
    """Read `features` [N, D] and `targets` int [N] of a .safetensors file.

    The metadata `o2s`, a JSON object, may hold `classes` (names of what the targets number),
    `scenes` (one name an object), `untrained` and `notes` (lists of texts).

    Raises:
        InputError: the file is missing or damaged, or its parts do not fit together.
    """
    tensors, facts = read_tensors(path, "features and targets")
    features, targets = tensors.get("features"), tensors.get("targets")
    if features is None or not features.is_floating_point() or features.dim() != 2:
        raise InputError(f"{path}: features: {_shown(features)}; expected numbers of [N, D]")
    whole = targets is not None and targets.dtype in _WHOLE
    if targets is None or not whole or targets.shape != features.shape[:1]:
        expected = f"whole numbers of [{len(features)}], one a feature"
        raise InputError(f"{path}: targets: {_shown(targets)}; expected {expected}")
    if 0 in features.shape:
        raise InputError(f"{path}: features: {_shown(features)}; expected at least one object")
    finite = features.float().isfinite().all(dim=1)
    if not finite.all():
        row = int((~finite).int().argmax())
        raise InputError(f"{path}: features[{row}] is not finite; expected numbers")
    classes = facts.get("classes")
    scenes = _texts(path, facts, "scenes")
    if scenes and len(scenes) != len(features):
        raise InputError(
            f"{path}: metadata scenes: {len(scenes)} names for {len(features)} objects; expected "
            "one for each"
        )
    made_from = facts.get("made_from")
    return ObjectFeatures(
        features=features.float(),
        targets=targets.long(),
        source=str(path),
        classes=None if classes is None else name_list(classes, f"{path}: metadata classes"),
        scenes=scenes or None,
        untrained=_texts(path, facts, "untrained"),
        notes=_texts(path, facts, "notes"),
        made_from=made_from if isinstance(made_from, dict) else {},
    )


def write_features(objects: ObjectFeatures, path: Path) -> None:
    """Write features as `read_features` takes them, whole or not at all."""
    names = ("classes", "scenes", "untrained", "notes", "made_from")
    tensors = {"features": objects.features, "targets": objects.targets}
    write_tensors(path, tensors, {name: getattr(objects, name) for name in names})


def embed_scans(
    scans: AnnotatedScans,
    encoder: SceneEncoder,
    *,
    cut: Cut,
    untrained: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ObjectFeatures:
    """Embed the objects that have a class; objects of no class, or too few points, are counted.

    Args:
        scans: whose objects.
        encoder: its region encoder embeds, its config says how regions are sampled.
        cut: all points inside an object's box, or the points that are labelled as the object.
        untrained: the parts of the encoder that hold random numbers.
        facts: further facts about what made the features.
        cache: a folder for the embeddings of each scan; those that are there are not made again.
        progress: called with the number of scans done and the number of all.

    Raises:
        InputError: a scan lacks the class list, or no object has a class of it.
    """
    weights = weights_checksum(encoder)
    made_from = encoder_checksum(encoder, cut, weights)
    features, targets, names, empty, other = [], [], [], 0, 0
    for done, path in enumerate(scans.paths):
        if progress is not None:
            progress(done, len(scans.paths))
        scan = read_labelled(path)
        if scan.objects is None:
            raise InputError(f"{path}: no annotated objects; run `o2s prepare` again")
        numbers = scans.numbers(path, scan)
        stored = None if cache is None else cache / path.name
        kept, embedded = _embed_scan(path, scan, encoder, cut, made_from, stored)
        found = torch.from_numpy(numbers)[kept]
        has_class = found >= 0
        empty += len(numbers) - len(kept)
        other += int((~has_class).sum())
        features.append(embedded[has_class])
        targets.append(found[has_class])
        names += [scan.name] * len(targets[-1])
    if not names:
        raise InputError(f"{scans.folder}: no object has a class of {scans.class_list}")
    reasons = {"too few points": empty, f"no class of {scans.class_list}": other}
    return ObjectFeatures(
        features=torch.cat(features),
        targets=torch.cat(targets),
        source=str(scans.folder),
        classes=scans.classes,
        scenes=tuple(names),
        untrained=("region encoder",) if "region encoder" in untrained else (),
        notes=tuple(f"{n} objects were left out: {why}" for why, n in reasons.items() if n),
        made_from={
            **scans.facts,
            "class_list": scans.class_list,
            "cut": cut,
            **(facts or {}),
            "encoder": made_from,
            "weights": weights,
        },
    )


def embed_objects(
    scene: Scene, scan: LabelledScan, encoder: SceneEncoder, cut: Cut
) -> tuple[Int64[Tensor, "R"], Float32[Tensor, "R E"]]:
    """The numbers of the annotated objects that hold enough points, and their embeddings.

    Args:
        scene, scan: the same scan, centred and with its labels.
        encoder: its region encoder embeds, its config says how regions are sampled.
        cut: all points inside an object's box, or the points that are labelled as the object.
    """
    bert = encoder.point_bert
    regions = encoder.config.regions
    kept, points = cut_objects(scene, scan, cut, regions, channels=bert.config.channels)
    return kept, embed_regions(points, encoder)


@torch.no_grad()
def embed_regions(
    points: Float32[Tensor, "R P C"], encoder: SceneEncoder
) -> Float32[Tensor, "R E"]:
    """Unit vectors of regions, on the CPU."""
    bert = encoder.point_bert
    found = [torch.zeros(0, bert.config.embedding)]
    with evaluating(bert):
        found += [bert.embed(p.to(encoder.device)).float().cpu() for p in points.split(_REGIONS)]
    return torch.cat(found)


def stored_tensors(
    path: Path | None, made_from: str, make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The tensors in a file if the same made them; otherwise they are made and written there."""
    if path is not None and path.is_file():
        # A damaged file is made anew.
        with contextlib.suppress(InputError):
            tensors, held = read_tensors(path, "embedded objects")
            if held.get("made_from") == made_from:
                return tensors
    made = make()
    if path is not None:
        write_tensors(path, made, {"made_from": made_from})
    return made


def cut_objects(
    scene: Scene, scan: LabelledScan, cut: Cut, config: RegionConfig, *, channels: int
) -> tuple[Int64[Tensor, "R"], Float32[Tensor, "R P C"]]:
    """The numbers of the objects that hold enough points, and their points as regions.

    `scene` is the same scan as a Scene, centred: object boxes are moved into its coordinates.
    """
    objects = scan.objects
    assert objects is not None
    boxes = Boxes(
        centres=torch.from_numpy(objects.boxes[:, :3] - scene.offset.numpy()).float(),
        sizes=torch.from_numpy(objects.boxes[:, 3:]).float(),
        headings=torch.zeros(len(objects)),
        scores=torch.ones(len(objects)),
        labels=tuple(map(str, range(len(objects)))),
    )
    # Boxes end at their outermost vertices, which must not be lost by rounding.
    roomy = replace(config, margin=config.margin + 1e-5)
    if cut == "boxes":
        regions = [crop_regions(scene, boxes, roomy, channels=channels)]
    else:
        regions = []
        for i, identity in enumerate(objects.ids):
            assert scan.instance is not None
            own = scene.select(torch.from_numpy(scan.instance == identity))
            box = boxes.select(torch.tensor([i]))
            regions.append(crop_regions(own, box, roomy, channels=channels))
    kept = [int(label) for found in regions for label in found.boxes.labels]
    points = [torch.zeros(0, config.points, channels), *(found.points for found in regions)]
    return torch.tensor(kept, dtype=torch.int64), torch.cat(points)


def _embed_scan(
    path: Path,
    scan: LabelledScan,
    encoder: SceneEncoder,
    cut: Cut,
    checksum: str,
    cache: Path | None,
) -> tuple[Tensor, Tensor]:
    """Numbers of objects, and their embeddings; from the cache if the same made them."""
    made_from = f"{checksum} {(labelled_facts(path) or {}).get('made_from')}"

    def embed() -> dict[str, Tensor]:
        kept, features = embed_objects(labelled_scene(path), scan, encoder, cut)
        return {"objects": kept, "features": features}

    tensors = stored_tensors(cache, made_from, embed)
    return tensors["objects"], tensors["features"]


def encoder_checksum(encoder: SceneEncoder, cut: str, weights: str) -> str:
    """Of all that the embedding of an object depends on beside its scan; `weights` is the
    checksum of those."""
    config = {"regions": asdict(encoder.config.regions), "cut": cut}
    config["size"] = asdict(encoder.point_bert.config)
    text = json.dumps(config, sort_keys=True) + weights
    return hashlib.sha256(text.encode()).hexdigest()


def weights_checksum(encoder: SceneEncoder) -> str:
    """Of the weights of the region encoder alone."""
    digest = hashlib.sha256()
    for name, value in sorted(encoder.point_bert.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy(force=True).tobytes())
    return digest.hexdigest()


def _texts(path: Path, facts: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts of the metadata; empty where there is none."""
    held = facts.get(key) or []
    if not isinstance(held, list) or not all(is_text(text) for text in held):
        raise InputError(f"{path}: metadata {key}: {quote(held)}; expected a list of texts")
    return tuple(held)


def _shown(tensor: Tensor | None) -> str:
    if tensor is None:
        return "missing"
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {list(tensor.shape)}"


_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
