"""Steps that several commands take, each with a line of progress."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import Progress

from o2s.loading import ModelSource, load_answerer
from o2s.options import Unit, Up
from o2s.terminal import read_scan, step

if TYPE_CHECKING:
    from o2s.encoder import SceneEncoder
    from o2s.llm.answering import SceneAnswerer
    from o2s.scene import RegionFeatures, Scene


def see(
    progress: Progress, scan: Path, up: Up, unit: Unit, source: ModelSource, device: str | None
) -> tuple["Scene", "SceneAnswerer", "RegionFeatures"]:
    """The scan, the model, and the scan as the model's encoder sees it."""
    scene = read_scan(progress, scan, up, unit)
    with step(progress, "loading the language model"):
        answerer = load_answerer(source, device)
    return scene, answerer, look_at(progress, answerer.model.encoder, scene)


def look_at(progress: Progress, encoder: "SceneEncoder", scene: "Scene") -> "RegionFeatures":
    with step(progress, "finding objects"):
        boxes = encoder.detect(scene)
    with step(progress, "encoding objects") as update:
        return encoder.look(scene, boxes, update)


def caption_all(
    progress: Progress, answerer: "SceneAnswerer", look: "RegionFeatures", max_new_tokens: int
) -> list[str]:
    with step(progress, "describing objects") as update:
        return answerer.caption(look, max_new_tokens=max_new_tokens, progress=update)
