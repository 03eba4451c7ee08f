"""One run of detector training, from a recipe to a folder with the detector and its scores."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from o2s.detector_weights import write_detector
from o2s.errors import InputError
from o2s.files import write_json
from o2s.train.detector_recipe import DetectorRecipe, build
from o2s.train.detector_scans import DetectorScans, sizes_of_classes
from o2s.train.detectors import DetectorModel, DetectorTrainer, training_arguments, turns_boxes
from o2s.train.run_folder import SCORES, Step, begun, train_with_progress

DETECTOR = "detector.safetensors"


def train_detector(recipe: DetectorRecipe, folder: Path, step: Step) -> Mapping[str, float]:
    """Train a detector; a run that was interrupted goes on after its last epoch.

    Args:
        recipe: what to train on what, and how.
        folder: where everything goes: the detector, the scores and `checkpoints/`.
        step: draws lines of progress.

    Returns:
        The scores on val.

    Raises:
        InputError: data that cannot be read, or a folder that holds a run of another recipe.
    """
    args = training_arguments(recipe.optimisation, folder / "checkpoints")
    with begun(folder, args, asdict(recipe)) as first:
        data, scenes = recipe.data, Path(recipe.data.scenes)
        with step("reading train boxes") as update:
            sides = sizes_of_classes(scenes, "train", data.classes, data.leave_out, update)
        detector = build(recipe, sides)
        train, val = (
            DetectorScans(
                scenes,
                split,
                data.classes,
                detector.classes,
                augment=recipe.augment if split == "train" else None,
                repeats=recipe.optimisation.repeats if split == "train" else 1,
                yaw=turns_boxes(detector),
                seed=recipe.optimisation.seed,
            )
            for split in ("train", "val")
        )
        batch = recipe.optimisation.batch_size * args.world_size
        if len(train) < batch:
            raise InputError(
                f"{scenes}: {len(train)} draws an epoch of its scans of train; expected at least "
                f"{batch}, the optimisation.batch_size of all processes: raise "
                "optimisation.repeats or lower optimisation.batch_size"
            )
        model = DetectorModel(detector, recipe.set_loss)
        trainer = DetectorTrainer(model, train, val, recipe.optimisation, args)
        train_with_progress(trainer, step)
        scores = trainer.score(val)
        if first:
            facts = {
                "recipe": {key: v for key, v in asdict(recipe).items() if key != "data"},
                "scores": {"val": scores},
            }
            write_detector(folder / DETECTOR, detector, facts)
            write_json(folder / SCORES, {"val": scores})
    return scores
