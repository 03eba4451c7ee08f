"""o2s: let a language model see a 3D indoor scene.

A scan becomes objects, objects become scene tokens, a language model with routed LoRA experts
reads the tokens:

    scene = read_scene("room.ply")               # io: Scene
    answerer = SceneAnswerer.build(recipe)       # llm: encoder and language model
    look = answerer.model.encoder.look(scene)    # detect, regions, point_bert: RegionFeatures
    answerer.ask(look, "What is on the table?")  # aggregator, llm: Answer
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from o2s.encoder import EncoderConfig, SceneEncoder
    from o2s.errors import InputError
    from o2s.io import read_scene, write_scene
    from o2s.llm.answering import SceneAnswerer
    from o2s.llm.configuration import SceneLMRecipe
    from o2s.llm.modeling import SceneLM
    from o2s.scene import Boxes, RegionFeatures, Scene, SceneTokens

try:
    __version__ = version("o2s")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0"

__all__ = [
    "Boxes",
    "EncoderConfig",
    "InputError",
    "RegionFeatures",
    "Scene",
    "SceneAnswerer",
    "SceneEncoder",
    "SceneLM",
    "SceneLMRecipe",
    "SceneTokens",
    "read_scene",
    "write_scene",
]

# Loaded at first use: `import o2s` and `o2s --help` stay quick.
_HOMES = {
    "o2s.scene": ("Boxes", "RegionFeatures", "Scene", "SceneTokens"),
    "o2s.errors": ("InputError",),
    "o2s.io": ("read_scene", "write_scene"),
    "o2s.encoder": ("EncoderConfig", "SceneEncoder"),
    "o2s.llm.answering": ("SceneAnswerer",),
    "o2s.llm.configuration": ("SceneLMRecipe",),
    "o2s.llm.modeling": ("SceneLM",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'o2s' has no attribute {name!r}")
