"""Configs: what is read, what is refused, and in which words."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from fakes import small_encoder_config

from o2s import config
from o2s.encoder import EncoderConfig
from o2s.errors import InputError
from o2s.llm.configuration import SceneLMRecipe
from o2s.point_bert import PointBertConfig
from o2s.train.detector_recipe import DetectorRecipe
from o2s.train.region_recipe import RegionRecipe
from o2s.train.scene_lm_recipe import InstructionRecipe


@dataclass(frozen=True)
class Wheel:
    radius: float = 0.3
    spokes: int = 32

    def __post_init__(self) -> None:
        if self.spokes < 3:
            raise ValueError(f"spokes is {self.spokes}, expected at least 3")


@dataclass(frozen=True)
class Bicycle:
    name: str
    front: Wheel = field(default_factory=Wheel)
    rear: Literal["road", "track"] | Wheel = "road"
    bell: bool = False
    gears: list[int] = field(default_factory=lambda: [1])
    price: float | None = None
    basket: Wheel | None = None


def load(folder: Path, text: str, *overrides: str) -> Bicycle:
    path = folder / "bicycle.yaml"
    path.write_text(text, encoding="utf-8")
    return config.load(str(path), Bicycle, overrides)


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(folder, text, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{folder / 'bicycle.yaml'}: ")
    return message.removeprefix(f"{folder / 'bicycle.yaml'}: ").split("; ")


def test_values_stand_where_their_keys_say_and_the_rest_keeps_its_defaults(tmp_path: Path) -> None:
    text = "name: racer\nfront: {spokes: 20}\ngears: [3, 8]\nbell: true\nprice: 1200.5"
    expected = Bicycle("racer", Wheel(spokes=20), bell=True, gears=[3, 8], price=1200.5)
    assert load(tmp_path, text) == expected


def test_all_mistakes_are_reported_at_once_each_with_its_key(tmp_path: Path) -> None:
    text = "front: {radius: wide, spoke: 3}\nbell: 1\ngears: [1, two]\ncolour: red"
    assert problems(tmp_path, text) == [
        "front.radius: 'wide' is a text, expected a number",
        "front.spoke: unknown key, expected one of radius, spokes",
        "bell: 1 is a whole number, expected true or false",
        "gears: [1, 'two'] is a list, expected a list (each a whole number)",
        "colour: unknown key, expected one of name, front, rear, bell, gears, price, basket",
        "name: missing, expected a text",
    ]


def test_what_a_dataclass_itself_refuses_is_reported_beside_the_rest(tmp_path: Path) -> None:
    assert problems(tmp_path, "name: 3\nfront: {spokes: 2}\nrear: {spokes: 1}") == [
        "name: 3 is a whole number, expected a text",
        "front: spokes is 2, expected at least 3",
        "rear: spokes is 1, expected at least 3",
    ]


@pytest.mark.parametrize(
    "line, problem",
    [
        ("front: null", "front: None is a null, expected a group of keys"),
        ("front: 3", "front: 3 is a whole number, expected a group of keys"),
        ("front: {spokes: 3.5}", "front.spokes: 3.5 is a number, expected a whole number"),
        ("front: {spokes: true}", "front.spokes: True is a truth value, expected a whole number"),
        ("price: true", "price: True is a truth value, expected a number or null"),
        ("bell: 'yes'", "bell: 'yes' is a text, expected true or false"),
        ("gears: 3", "gears: 3 is a whole number, expected a list (each a whole number)"),
        ("rear: mud", "rear: 'mud' is a text, expected one of road, track or a group of keys"),
        (
            "rear: [road]",
            "rear: ['road'] is a list, expected one of road, track or a group of keys",
        ),
        ("basket: big", "basket: 'big' is a text, expected a group of keys or null"),
        ("1: one", "1: unknown key, expected one of name, front, rear, bell, gears, price, basket"),
    ],
)
def test_a_wrong_type_names_what_was_found_and_expected(
    tmp_path: Path, line: str, problem: str
) -> None:
    assert problems(tmp_path, f"name: racer\n{line}") == [problem]


@pytest.mark.parametrize("price", ["2", "2.0", "2e0", "+2E+0", "20e-1", "0.2e1"])
def test_whole_numbers_and_powers_of_ten_serve_as_numbers(tmp_path: Path, price: str) -> None:
    made = load(tmp_path, f"name: racer\nprice: {price}")
    assert made.price == 2.0
    assert isinstance(made.price, float)


@pytest.mark.parametrize("name", ["e3", "1e", "1e3x", "2-1", "3.2.1e4", "v1e3"])
def test_texts_that_look_a_little_like_numbers_stay_texts(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, f"name: {name}").name == name


def test_a_union_with_null_takes_null_and_the_other(tmp_path: Path) -> None:
    text = "name: racer\nprice: null\nbasket: "
    assert load(tmp_path, f"{text}null") == Bicycle("racer")
    assert load(tmp_path, f"{text}{{spokes: 5}}").basket == Wheel(spokes=5)


def test_a_union_of_names_and_a_dataclass_takes_both(tmp_path: Path) -> None:
    assert load(tmp_path, "name: racer\nrear: track").rear == "track"
    assert load(tmp_path, "name: racer\nrear: {spokes: 5}").rear == Wheel(spokes=5)
    size = config.load("tiny", SceneLMRecipe, ["encoder.point_bert={width: 64, heads: 1}"])
    assert size.encoder.point_bert == PointBertConfig(width=64, heads=1)
    named = config.load("tiny", SceneLMRecipe, ["encoder.point_bert=ulip2"])
    assert named.encoder.point_bert == "ulip2"


def test_overrides_win_over_the_file_and_the_later_over_the_earlier(tmp_path: Path) -> None:
    text = "name: racer\nfront: {spokes: 20, radius: 0.2}\nprice: 3"
    overrides = "front.spokes=9", "front.spokes=10", "rear.spokes=7", "price=null", "name=a=b"
    made = load(tmp_path, text, *overrides)
    assert made == Bicycle("a=b", Wheel(0.2, 10), Wheel(spokes=7))
    assert load(tmp_path, text, "front={radius: 1}").front == Wheel(1.0)


@pytest.mark.parametrize("override", ["bell", "=true", "", "name.first=x", "bell=[1", "price=0b_"])
def test_a_bad_override_is_named(tmp_path: Path, override: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, "name: racer", override)
    assert repr(override) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_are_as_strict_as_the_file(tmp_path: Path) -> None:
    assert problems(tmp_path, "name: racer", "front.spoke=1", "bell=1") == [
        "front.spoke: unknown key, expected one of radius, spokes",
        "bell: 1 is a whole number, expected true or false",
    ]


def test_a_missing_file_lists_the_configs_that_come_with_o2s(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.yaml")
    with pytest.raises(InputError, match=r"missing\.yaml: no such config; .* one of .*tiny"):
        config.load(missing, Bicycle)


BROKEN = [
    *("name: [", "a: b: c", "\tname: x", "{[1]: 2}", "name: 2024-13-45", "name: !!int x"),
    *("name: !!python/object/apply:os.getcwd []", "[" * 1000),
]


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: text[:20])
def test_what_is_not_yaml_is_one_line_that_says_so(tmp_path: Path, text: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.startswith("not YAML (")


def test_a_binary_file_is_not_yaml(tmp_path: Path) -> None:
    path = tmp_path / "picture.yaml"
    path.write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(InputError, match=r"picture.yaml: not YAML \("):
        config.load(str(path), Bicycle)


@pytest.mark.parametrize("text, kind", [("- 1\n- 2", "list"), ("racer", "text"), ("7", "whole")])
def test_what_is_not_keys_and_values_is_said(tmp_path: Path, text: str, kind: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(f"holds a {kind}")
    assert problem.endswith("expected keys and values")


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "", "name=racer") == Bicycle("racer")


@pytest.mark.parametrize("weights", ["5", "null", "{VQA3D: often}", "[VQA3D]"])
def test_numbers_by_name_are_checked(weights: str) -> None:
    with pytest.raises(InputError, match=r"data\.weights: .* expected keys with a number"):
        config.load("scene_lm_tiny", InstructionRecipe, [f"data.weights={weights}"])


REGION_RECIPES = ("regions_tiny", "ulip1_scannet", "ulip2_objaverse")
INSTRUCTION_RECIPES = ("scene_lm_tiny", "octavius_3d")
DETECTOR_RECIPES = ("tr3d_tiny", "tr3d_scannet", "3detr_scannet")


@pytest.mark.parametrize("name", config.bundled())
def test_every_config_that_comes_with_o2s_loads(name: str) -> None:
    kinds = dict.fromkeys(REGION_RECIPES, RegionRecipe)
    kinds |= dict.fromkeys(DETECTOR_RECIPES, DetectorRecipe)
    kinds |= dict.fromkeys(INSTRUCTION_RECIPES, InstructionRecipe)
    kind = kinds.get(name, SceneLMRecipe)
    assert isinstance(config.load(name, kind), kind)
    assert config.find(name).name == f"{name}.yaml"


ENCODERS = [
    EncoderConfig(),
    small_encoder_config(),
    small_encoder_config(point_bert="ulip1", point_bert_weights="ulip.pt", seed=3),
]


@pytest.mark.parametrize("original", ENCODERS, ids=["defaults", "spelled out", "by name"])
def test_an_encoder_config_comes_back_from_json(original: EncoderConfig) -> None:
    values = json.loads(json.dumps(config.to_dict(original)))
    assert config.from_dict(values, EncoderConfig) == original


def test_values_out_of_json_are_checked_as_strictly() -> None:
    values: dict[str, Any] = config.to_dict(EncoderConfig())
    values["regions"]["points"] = 0
    values["sed"] = 1
    with pytest.raises(
        InputError, match=r"EncoderConfig: regions: points is 0.*; sed: unknown key, .*seed"
    ):
        config.from_dict(values, EncoderConfig)
