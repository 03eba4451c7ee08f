"""Random changes of a region's points in training, in ULIP's order (github.com/salesforce/ULIP,
data/dataset_3d.py, `customized_collate_fn` and `ShapeNet`), with what simulated scans need."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float32, Float64

from o2s.regions import GREY


@dataclass(frozen=True)
class RegionAugmentation:
    """What is changed, in this order; every change can be switched off with 0, or (1, 1).

    The first three are for objects in scans; `dropout`, `scale`, `shift`, `perturb` and `turn` are
    ULIP's with its values. A drop of points puts them all onto the first point, as there.

    Args:
        on_normalised: change the normalised points, as ULIP does, so that sizes and shifts stay; or
            change them in metres and normalise afterwards, as an encoder in use always does.
        box_jitter: standard deviation of the move of each face of an object's box, as a share of
            the side's length; what lies in the moved box is the region.
        occlusion: probability that points beyond a random plane are missing, at most half.
        warp: largest move of a point, of the region's radius, as the region is bent by smooth waves
            at least as long as itself: a few shapes of a class stand for others unseen.
        dropout: largest share of the points that is dropped.
        scale: least and greatest factor of all lengths.
        stretch: least and greatest factor of each axis of its own.
        shift: largest shift along each axis, of the region's radius.
        perturb: standard deviation, in radians, of a small turn about each axis, cut off at three
            times that.
        turn: largest turn about z in radians, either way.
        mirror: probability of mirroring x.
        jitter: standard deviation of each coordinate's noise, of the region's radius.
        color_shift: largest change of each colour channel of a region, of 1.
        color_gain: largest change of the contrast of a region, of 1.
        color_jitter: standard deviation of the change of each point's colour, of 1.
        color_dropout: probability that a region has no colour but `regions.GREY`.

    Raises:
        ValueError: a value is out of its range.
    """

    on_normalised: bool = True
    box_jitter: float = 0.0
    occlusion: float = 0.0
    warp: float = 0.0
    dropout: float = 0.875
    scale: Sequence[float] = (0.8, 1.25)
    stretch: Sequence[float] = (1.0, 1.0)
    shift: float = 0.1
    perturb: float = 0.06
    turn: float = np.pi
    mirror: float = 0.0
    jitter: float = 0.0
    color_shift: float = 0.0
    color_gain: float = 0.0
    color_jitter: float = 0.0
    color_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.name != "on_normalised"):
            value = getattr(self, name)
            if name in ("scale", "stretch"):
                if len(value) != 2 or not 0 < value[0] <= value[1] < 100:
                    raise ValueError(
                        f"{name} is {value}, expected two factors above 0, the less first"
                    )
            elif not 0 <= value <= (7 if name == "turn" else 1):
                raise ValueError(f"{name} is {value}, expected 0 to {7 if name == 'turn' else 1}")


def move_box(
    rng: np.random.Generator,
    points: Float32[np.ndarray, "N 3"],
    box: Float32[np.ndarray, "6"],
    spread: float,
) -> Bool[np.ndarray, "N"]:
    """Which points lie in the box (centre and size) after each of its faces has moved.

    A face moves by at most two standard deviations; with 0 these are the points of the box.
    """
    moves = spread * box[3:] * np.clip(rng.standard_normal((2, 3)), -2, 2)
    low = box[:3] - box[3:] / 2 - moves[0] - 1e-5
    high = box[:3] + box[3:] / 2 + moves[1] + 1e-5
    return ((points >= low) & (points <= high)).all(axis=1)


def occlude(rng: np.random.Generator, points: Float32[np.ndarray, "N 3"]) -> Bool[np.ndarray, "N"]:
    """Which points stay when those beyond a plane go: at least half of them."""
    normal = rng.standard_normal(3)
    along = points @ (normal / np.linalg.norm(normal)).astype(np.float32)
    return along <= np.quantile(along, rng.uniform(0.5, 1.0))


def change_shape(
    rng: np.random.Generator, points: Float32[np.ndarray, "P 3"], augment: RegionAugmentation
) -> tuple[Float32[np.ndarray, "P 3"], Bool[np.ndarray, "P"]]:
    """Points after all changes of geometry from `warp` to `jitter`, and which were dropped.

    Points come in any unit, about any origin; scaling and turning are about their mean.
    """
    middle = points.mean(axis=0)
    local = points - middle
    radius = max(float(np.linalg.norm(local, axis=1).max()), 1e-6)
    dropped = rng.random(len(points)) <= rng.uniform(0, augment.dropout)
    dropped[0] = False
    if augment.warp:
        local += warp(rng, local / radius, augment.warp) * radius
    local[dropped] = local[0]
    (least, most), (low, high) = augment.scale, augment.stretch
    factors = rng.uniform(least, most) * rng.uniform(low, high, 3)
    factors[0] *= -1 if rng.random() < augment.mirror else 1
    shift = rng.uniform(-augment.shift, augment.shift, 3) * radius
    most = 3 * augment.perturb
    x, y, z = (
        turn_about(axis, float(np.clip(augment.perturb * deviation, -most, most)))
        for axis, deviation in enumerate(rng.standard_normal(3))
    )
    turn = turn_about(2, rng.uniform(-augment.turn, augment.turn)) @ (z @ y @ x)
    moved = local @ (turn @ np.diag(factors)).T + turn @ shift
    moved += augment.jitter * radius * rng.standard_normal(moved.shape, np.float32)
    return (moved + middle).astype(np.float32), dropped


def warp(
    rng: np.random.Generator, points: Float32[np.ndarray, "P 3"], most: float, waves: int = 3
) -> Float32[np.ndarray, "P 3"]:
    """How far each point of a ball of radius 1 moves in a smooth random warp: never beyond `most`.

    Each wave has a length of at least pi, half of it about the ball's size, and a direction of its
    own in which points move.
    """
    directions, moves = rng.standard_normal((2, waves, 3))
    directions *= rng.uniform(0.5, 2.0, (waves, 1)) / np.linalg.norm(directions, axis=1)[:, None]
    moves *= rng.uniform(0, most / waves, (waves, 1)) / np.linalg.norm(moves, axis=1)[:, None]
    phases = points @ directions.T + rng.uniform(0, 2 * np.pi, waves)
    return (np.sin(phases) @ moves).astype(np.float32)


def change_colors(
    rng: np.random.Generator, colors: Float32[np.ndarray, "P 3"], augment: RegionAugmentation
) -> Float32[np.ndarray, "P 3"]:
    """Colours, RGB in [0, 1], after all changes of colour."""
    if rng.random() < augment.color_dropout:
        return np.full_like(colors, GREY)
    gain = 1 + rng.uniform(-augment.color_gain, augment.color_gain)
    shift = rng.uniform(-augment.color_shift, augment.color_shift, 3)
    mean = colors.mean(axis=0)
    changed = (colors - mean) * gain + mean + shift
    changed = changed + augment.color_jitter * rng.standard_normal(colors.shape)
    return np.clip(changed, 0, 1).astype(np.float32)


def turn_about(axis: int, angle: float) -> Float64[np.ndarray, "3 3"]:
    """The rotation by `angle` radians about an axis, counter-clockwise seen from its tip."""
    matrix = np.eye(3)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[b, a], matrix[a, b] = np.sin(angle), -np.sin(angle)
    return matrix
