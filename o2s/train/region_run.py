"""One run of region pretraining, from a recipe to a folder with the encoder and its scores."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from o2s.alignment import RegionAligner
from o2s.errors import InputError
from o2s.evaluate.text_embeddings import TextEmbeddings, write_text_embeddings
from o2s.files import write_json
from o2s.point_bert import PointBert
from o2s.region_weights import load_region_encoder, write_region_encoder
from o2s.towers import image_tower, text_tower
from o2s.train.region_batches import EmbeddedImages, RegionBatches
from o2s.train.region_recipe import (
    RegionRecipe,
    embed_images,
    embed_texts,
    images_of,
    open_splits,
)
from o2s.train.regions import RegionClassifier, RegionTrainer, training_arguments
from o2s.train.run_folder import SCORES, Step, begun, train_with_progress

ENCODER, CLASSES = "region_encoder.safetensors", "classes.safetensors"


@dataclass(frozen=True)
class RegionReport:
    """Scores on val: of all its objects, and of each source alone."""

    scores: Mapping[str, Mapping[str, float]]


def train_regions(
    recipe: RegionRecipe, folder: Path, step: Step, *, trust_pickle: bool = False
) -> RegionReport:
    """Train a region encoder; a run that was interrupted goes on after its last epoch, and several
    processes (`torchrun`) share the work: their batches are one in the loss, while normalisation
    keeps to the batch of each.

    Args:
        recipe: what to train on what, and how.
        folder: where everything goes: the encoder, the embedded names of the classes, the scores
            and `checkpoints/`.
        step: draws lines of progress.
        trust_pickle: let towers and `weights` of others run code (`weights.load_checkpoint`).

    Raises:
        InputError: data or towers that cannot be read, too few objects for one batch, towers of
            another width than the encoder's embedding, or a folder of another recipe's run.
    """
    args = training_arguments(recipe.optimisation, folder / "checkpoints")
    with begun(folder, args, asdict(recipe)) as first:
        with args.main_process_first():  # the others take what it has put into the cache
            train, val, words, candidates = _batches(recipe, step, args.device, trust_pickle)
        batch = recipe.optimisation.batch_size * args.world_size
        if (recipe.optimisation.draws or len(train)) < batch:
            raise InputError(
                f"data: {recipe.optimisation.draws or len(train)} draws an epoch, of {len(train)} "
                f"objects of train; expected at least {batch}, the optimisation.batch_size of all "
                "processes: see optimisation.draws"
            )
        model = _model(recipe, len(train.classes), trust_pickle)
        trainer = RegionTrainer(
            model,
            train,
            val,
            words.vectors(),
            candidates,
            recipe.optimisation,
            args,
        )
        train_with_progress(trainer, step)
        scores = {"val": trainer.score(val)}
        if len(val.sources) > 1:
            for number, source in enumerate(val.sources):
                scores[f"val, {source.name}"] = trainer.score(val.of(number))
        facts = {
            "classes": list(train.classes),
            "points": recipe.points,
            "recipe": {key: v for key, v in asdict(recipe).items() if key != "data"},
            "scores": scores,
        }
        if first:
            write_region_encoder(folder / ENCODER, model.point_bert, facts)
            write_text_embeddings(words, folder / CLASSES)
            write_json(folder / SCORES, scores)
    return RegionReport(scores)


def _batches(
    recipe: RegionRecipe, step: Step, device: torch.device, trust_pickle: bool = False
) -> tuple[RegionBatches, RegionBatches, TextEmbeddings, Int64[Tensor, "K"]]:
    """Train, val, the embedded names of the classes of both, and the numbers of those that val's
    objects are told apart from: all that have names, and those of val."""
    cache = Path(recipe.data.cache)
    sources, said, everything = open_splits(recipe.data, step)
    classes = tuple(said)
    tower = text_tower(recipe.towers, device, trust_pickle=trust_pickle)
    width = recipe.size.embedding
    if recipe.objective == "alignment" and tower.width != width:
        raise InputError(
            f"towers: the text tower is {tower.width} wide and point_bert.embedding {width}; "
            "expected the same"
        )
    texts = embed_texts(everything, tower, cache, step)
    images = EmbeddedImages({}, torch.zeros(0, tower.width))
    shown = images_of(sources["train"]) if recipe.alignment.image_weight else []
    if recipe.objective == "alignment" and shown:
        shower = image_tower(recipe.towers, device, trust_pickle=trust_pickle)
        images = embed_images(shown, shower, cache, step)
    names = texts.vectors[[texts.number[text] for text in said.values()]]
    words = TextEmbeddings(classes, (), names[:, None], tower.name)
    train, val = (
        RegionBatches(
            sources[split],
            classes,
            texts,
            images,
            points=recipe.points,
            channels=recipe.size.channels,
            augment=recipe.augment if split == "train" else None,
            label_share=recipe.optimisation.label_share,
            seed=recipe.optimisation.seed,
        )
        for split in ("train", "val")
    )
    asked = {label for source in sources["val"] for label in source.classes}
    candidates = [i for i, name in enumerate(classes) if said[name] == name or name in asked]
    return train, val, words, torch.tensor(candidates)


def _model(
    recipe: RegionRecipe, classes: int, trust_pickle: bool = False
) -> RegionAligner | RegionClassifier:
    point_bert = PointBert(recipe.size)
    if recipe.weights is not None:
        begun_from = load_region_encoder(recipe.weights, trust_pickle)
        size = replace(recipe.size, up=begun_from.config.up)
        if replace(begun_from.config, drop_path=size.drop_path) != size:
            raise InputError(
                f"weights: {recipe.weights} is an encoder of another size than point_bert says"
            )
        point_bert = PointBert(size)
        point_bert.load_state_dict(begun_from.state_dict())
    if recipe.objective == "labels":
        return RegionClassifier(point_bert, classes)
    return RegionAligner(point_bert, recipe.alignment)
