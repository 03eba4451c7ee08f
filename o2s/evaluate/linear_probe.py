"""A linear probe: how well the classes of objects can be told from their features by a plane each.

    features of train -> mean 0, deviation 1    x [N, D], float64
                      -> softmax(W x + b)       of the mean cross-entropy + strength / 2 * |W|^2
                                                the minimum, by L-BFGS over all objects at once
    strength: of several the one with the best macro-averaged top-1 on a validation file, or on the
    objects of train that each of 5 folds leaves out

Multinomial logistic regression on frozen features is the protocol of CLIP (Radford et al., ICML
2021, arXiv 2103.00020, appendix A.3), with L-BFGS and a strength chosen on held-out objects. What
is scored is the same as in zero-shot classification, so that the tables can be compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from o2s.errors import InputError
from o2s.evaluate.bootstrap import DRAWS, Estimate
from o2s.evaluate.object_features import ObjectFeatures
from o2s.evaluate.report import Report, Row, Table, versions
from o2s.evaluate.zero_shot import confusion_table, score_tables

STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)  # strongest first
FOLDS = 5
_ROUGH, _EXACT = 1e-4, 1e-8  # largest gradients at which choosing and the last fit end
_STEPS = 1000


@dataclass(frozen=True)
class LinearProbe:
    """The classifier softmax(weight @ ((features - mean) / scale) + bias).

    `gradient` is the largest entry of the gradient where the fit ended.
    """

    mean: Float64[Tensor, "D"]
    scale: Float64[Tensor, "D"]
    weight: Float64[Tensor, "C D"]
    bias: Float64[Tensor, "C"]
    gradient: float

    def logits(self, features: Float[Tensor, "N D"]) -> Float64[Tensor, "N C"]:
        """The logarithms of the probabilities of classes, but for a number an object."""
        return (features.double() - self.mean) / self.scale @ self.weight.T + self.bias


@dataclass(frozen=True)
class ProbeScores:
    """A report; how many objects of class i were taken for class j, at [i, j]; the classes."""

    report: Report
    confusion: Int64[np.ndarray, "C C"]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """One file's objects, numbered by the classes of all files."""

    features: Float64[Tensor, "N D"]
    targets: Int64[Tensor, "N"]


@dataclass(frozen=True)
class _Rotated:
    """Objects standardised, and turned so that their D directions do not correlate."""

    mean: Float64[Tensor, "D"]
    scale: Float64[Tensor, "D"]
    basis: Float64[Tensor, "D D"]
    variances: Float64[Tensor, "D"]
    coordinates: Float64[Tensor, "N D"]

    @classmethod
    def of(cls, features: Float[Tensor, "N D"]) -> "_Rotated":
        features = features.double()
        mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0)
        # What float32 cannot tell from rounding must not be blown up to a deviation of 1.
        scale = torch.where(deviation > 1e-7 * mean.abs(), deviation, torch.inf)
        x = (features - mean) / scale
        variances, basis = torch.linalg.eigh(x.T @ x / len(x))
        return cls(mean, scale, basis, variances.clamp_min(0), x @ basis)


def score_probe(
    train: ObjectFeatures,
    test: ObjectFeatures,
    *,
    val: ObjectFeatures | None = None,
    strengths: Sequence[float] = STRENGTHS,
    resample: Literal["objects", "scenes"] = "objects",
    seed: int = 0,
    draws: int = DRAWS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ProbeScores:
    """Fit a probe on one set of objects and score it on another; classes are matched by name.

    Objects of classes that `train` has no objects of count as wrong.

    Args:
        train: what the probe is fitted on.
        test: what is scored.
        val: what the strength is chosen on; if not given, left-out folds of `train`, none of
            which shares a scene with the others, if the scenes are known.
        strengths: of the regularisation, to choose from.
        resample: what the bootstrap draws; scenes where objects of a scene resemble each other.
        seed: of the folds and of the bootstrap.
        draws: of the bootstrap; with 0 there are no intervals.
        progress: called with the number of fits done and of all.

    Raises:
        InputError: the sets do not fit together, or train is too small.
    """
    given = [train, test] if val is None else [train, test, val]
    names, parts = _numbered(given)
    learned = int(parts[0].targets.max()) + 1
    if learned < 2:
        raise InputError(f"{train.source}: objects of one class; expected two classes or more")
    if resample == "scenes" and test.scenes is None:
        raise InputError(f"{test.source}: does not say which scenes its objects are of")
    shown = max(learned, int(parts[1].targets.max()) + 1)
    if val is None:
        fold = folds_of(parts[0].targets, train.scenes, seed=seed, source=train.source)
        trials = [
            (_rows(parts[0], fold != i), _rows(parts[0], fold == i)) for i in range(fold.max() + 1)
        ]
    else:
        trials = [(parts[0], parts[2])]
    fits = len(trials) * len(strengths) + 1
    reached = _try(trials, strengths, lambda done: progress(done, fits))
    strength = strengths[int(np.argmax(reached))]
    progress(fits - 1, fits)
    probe = fit_probe(parts[0].features, parts[0].targets, learned, strength=strength)
    ranks, predicted = _rank(probe.logits(parts[1].features), parts[1].targets, missing=shown)
    true, classes = parts[1].targets.numpy(), names[:shown]
    confusion = np.zeros((shown, shown), np.int64)
    np.add.at(confusion, (true, predicted), 1)
    scenes = test.scenes if resample == "scenes" else None
    report = Report(
        task="linear probe",
        tables=[
            *score_tables(ranks, true, classes, scenes=scenes, seed=seed, draws=draws),
            confusion_table(confusion, classes),
            _strength_table(strengths, reached),
        ],
        notes=_notes(given, classes, learned, confusion, probe),
        made_from={
            **{role: _facts(objects) for role, objects in _named(given)},
            "untrained": sorted({part for objects in given for part in objects.untrained}),
            "classes": learned,
            "strength": strength,
            "chosen on": f"{len(trials)} folds of train" if val is None else "val",
            "intervals": {"resampled": resample, "draws": draws},
            "seed": seed,
            "versions": versions("torch"),
        },
    )
    return ProbeScores(report, confusion, classes)


def fit_probe(
    features: Float[Tensor, "N D"],
    targets: Int64[Tensor, "N"],
    classes: int,
    *,
    strength: float,
    tolerance: float = _EXACT,
) -> LinearProbe:
    """The classifier of the least mean cross-entropy + strength / 2 * |weight|^2.

    Args:
        features: any finite numbers; what does not vary is left out.
        targets: numbers below `classes`.
        classes: C.
        strength: of the regularisation, more than 0, which leaves the bias free.
        tolerance: the largest entry of the gradient at which the fit ends.
    """
    return _fit(_Rotated.of(features), targets, classes, strength, tolerance)


def folds_of(
    targets: Int64[Tensor, "N"],
    scenes: Sequence[str] | None,
    *,
    seed: int,
    source: str = "train",
) -> Int64[np.ndarray, "N"]:
    """The fold of each object, 0 to 4, or fewer where there are fewer scenes or objects.

    Objects of a scene are in one fold, and folds hold as many objects as that allows. Without
    scenes, the objects of each class are spread over the folds.

    Raises:
        InputError: there is one scene, or one object, alone; `source` begins the message.
    """
    rng = np.random.default_rng(seed)
    numbers = {scene: i for i, scene in enumerate(dict.fromkeys(scenes or ()))}
    count = min(FOLDS, len(numbers) if scenes else len(targets))
    if count < 2:
        what = "scene" if scenes else "object"
        raise InputError(
            f"{source}: one {what} alone; expected several for cross-validation, or a file to "
            "choose the strength on"
        )
    if not scenes:
        shuffled = rng.permutation(len(targets))
        order = shuffled[np.argsort(targets.numpy()[shuffled], kind="stable")]
        fold = np.zeros(len(targets), np.int64)
        fold[order] = np.arange(len(targets)) % count
        return fold
    scene_of = np.array([numbers[scene] for scene in scenes])
    sizes = np.bincount(scene_of)
    shuffled = rng.permutation(len(sizes))
    filled, fold_of_scene = np.zeros(count), np.zeros(len(sizes), np.int64)
    # The largest scenes first, each to the fold with the fewest objects.
    for scene in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold_of_scene[scene] = filled.argmin()
        filled[filled.argmin()] += sizes[scene]
    return fold_of_scene[scene_of]


def _numbered(given: Sequence[ObjectFeatures]) -> tuple[tuple[str, ...], list[_Part]]:
    """The classes that have objects, first those of the first set, and the sets in their numbers.

    Raises:
        InputError: a set does not name its classes, a target is none of them, or widths differ.
    """
    numbers: dict[str, int] = {}
    parts = []
    for objects in given:
        known, first = objects.classes, given[0]
        if known is None:
            raise InputError(
                f"{objects.source}: metadata classes: missing; expected the names of what the "
                "targets number, by which files are matched"
            )
        if objects.features.shape[1] != first.features.shape[1]:
            raise InputError(
                f"{objects.source}: features of width {objects.features.shape[1]}, and "
                f"{first.source} of width {first.features.shape[1]}; expected the same width"
            )
        outside = (objects.targets < 0) | (objects.targets >= len(known))
        if outside.any():
            row = int(outside.int().argmax())
            raise InputError(
                f"{objects.source}: targets[{row}] is {int(objects.targets[row])}; expected 0 to "
                f"{len(known) - 1}, for {len(known)} classes"
            )
        for number in objects.targets.unique().tolist():
            numbers.setdefault(known[number], len(numbers))
        lookup = torch.tensor([numbers.get(name, -1) for name in known])
        parts.append(_Part(objects.features.double(), lookup[objects.targets]))
    return tuple(numbers), parts


def _rows(part: _Part, mask: np.ndarray) -> _Part:
    chosen = torch.from_numpy(mask)
    return _Part(part.features[chosen], part.targets[chosen])


def _fit(
    x: "_Rotated",
    targets: Int64[Tensor, "N"],
    classes: int,
    strength: float,
    tolerance: float,
    start: LinearProbe | None = None,
) -> LinearProbe:
    """`fit_probe` in coordinates in which all second derivatives are about 1 where weights are 0.

    There the Hessian is variance / C + strength in each direction, and 1 / C for the bias. It makes
    the fit several times as fast, and changes nothing of where it ends.
    """
    stretch = (x.variances / classes + strength).rsqrt()
    inputs = F.pad(x.coordinates * stretch, (0, 1), value=classes**0.5)
    penalties = strength * F.pad(stretch.square(), (0, 1))
    places = torch.zeros(classes, inputs.shape[1], dtype=torch.float64)
    if start is not None:
        places[:, :-1] = start.weight @ x.basis / stretch
        places[:, -1] = start.bias / classes**0.5
    places.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [places],
        max_iter=_STEPS,
        max_eval=2 * _STEPS,
        tolerance_grad=tolerance,
        tolerance_change=1e-15,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(inputs @ places.T, targets)
        value = value + (penalties * places.square()).sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    loss()
    assert places.grad is not None
    gradient = float(places.grad.abs().max())
    found = places.detach()
    weight = found[:, :-1] * stretch @ x.basis.T
    return LinearProbe(x.mean, x.scale, weight, found[:, -1] * classes**0.5, gradient)


def _try(
    trials: Sequence[tuple[_Part, _Part]],
    strengths: Sequence[float],
    progress: Callable[[int], None],
) -> Float64[np.ndarray, "S"]:
    """Macro-averaged top-1 on what is held out, for each strength."""
    right: list[list[np.ndarray]] = [[] for _ in strengths]
    for t, (fitted, held) in enumerate(trials):
        # A class whose objects are all held out cannot be learned.
        present, targets = fitted.targets.unique(return_inverse=True)
        rotated, probe = _Rotated.of(fitted.features), None
        for s, strength in enumerate(strengths):
            progress(t * len(strengths) + s)
            probe = _fit(rotated, targets, len(present), strength, _ROUGH, probe)
            predicted = present[probe.logits(held.features).argmax(dim=1)]
            right[s].append((predicted == held.targets).numpy())
    true = torch.cat([held.targets for _, held in trials]).numpy()
    classes = np.unique(true)
    hits = np.stack([np.concatenate(parts) for parts in right])
    return np.stack([hits[:, true == c].mean(axis=1) for c in classes]).mean(axis=0)


def _rank(
    logits: Float64[Tensor, "N C"], targets: Int64[Tensor, "N"], *, missing: int
) -> tuple[Int64[np.ndarray, "N"], Int64[np.ndarray, "N"]]:
    """How many classes come before the true one, `missing` if it was not learned, and the first."""
    learned = targets < logits.shape[1]
    own = torch.where(learned, targets, 0)[:, None]
    reached = logits.gather(1, own)
    lower = torch.arange(logits.shape[1]) < own
    before = ((logits > reached) | ((logits == reached) & lower)).sum(dim=1)
    return torch.where(learned, before, missing).numpy(), logits.argmax(dim=1).numpy()


def _strength_table(strengths: Sequence[float], reached: Float64[np.ndarray, "S"]) -> Table:
    pairs = zip(strengths, reached, strict=True)
    rows = [Row(f"{s:g}", {}, {"macro top-1": Estimate(float(value))}) for s, value in pairs]
    return Table("choice of the strength", rows)


def _named(given: Sequence[ObjectFeatures]) -> list[tuple[str, ObjectFeatures]]:
    return list(zip(("train", "test", "val"), given, strict=False))


def _facts(objects: ObjectFeatures) -> dict[str, Any]:
    name = Path(objects.source).name
    return {"source": name, "objects": len(objects.targets), **objects.made_from}


def _notes(
    given: Sequence[ObjectFeatures],
    classes: Sequence[str],
    learned: int,
    confusion: Int64[np.ndarray, "C C"],
    probe: LinearProbe,
) -> list[str]:
    notes = []
    for role, objects in _named(given):
        if objects.untrained:
            parts = ", ".join(objects.untrained)
            notes.append(
                f"untrained: {parts} of {role}. These hold random numbers: the scores tell what a "
                "probe reads out of such features"
            )
        notes += [f"{role}: {note}" for note in objects.notes]
    made = {str([o.made_from.get(key) for key in ("model", "overrides")]) for o in given}
    weights = {o.made_from["weights"] for o in given if "weights" in o.made_from}
    if max(len(made), len(weights)) > 1:
        notes.append("the files name different models, whose features do not mean the same")
    counts = confusion.sum(axis=1)
    if len(classes) > learned:
        notes.append(
            f"{counts[learned:].sum()} test objects count as wrong, for train has no objects of "
            f"their {len(classes) - learned} classes: {', '.join(classes[learned:])}"
        )
    empty = [classes[i] for i in np.flatnonzero(counts[:learned] == 0).tolist()]
    if empty:
        notes.append(
            f"{len(empty)} classes have no test objects. They can be predicted, and count nowhere "
            f"in the macro average: {', '.join(empty)}"
        )
    if probe.gradient > _ROUGH:
        notes.append(f"the last fit ended early, at a gradient of {probe.gradient:.1e}")
    return notes
