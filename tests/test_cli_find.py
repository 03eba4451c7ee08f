"""`o2s find`: the order of the objects, the margins, what is printed, drawn and refused."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import typer
from command_line import o2s
from fakes import scene_of, small_encoder_config
from rooms_fake import room

from o2s import cli, cli_find, towers
from o2s.encoder import SceneEncoder
from o2s.io import Cloud, write_ply
from o2s.regions import crop_regions
from o2s.scene import Boxes, Scene
from o2s.towers import TowersConfig
from o2s.view import found

CONFIG = """
encoder:
  detector: clusters
  point_bert: {channels: 6, width: 16, depth: 2, heads: 2, groups: 8, group_width: 16, embedding: 8}
  regions: {points: 64}
  aggregator: {queries: 4, heads: 2}
"""


@dataclass
class FakeTower:
    """A vector a text, drawn with a seed made of its letters."""

    name: str = "fake"
    width: int = 8
    cut: int = 0

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        seeds = [int.from_bytes(text.encode(), "big") % 2**60 for text in texts]
        return torch.cat([units(seed, 1, self.width) for seed in seeds])


@dataclass
class Asked:
    """The tower that the command gets, and which ones it asked for."""

    tower: FakeTower
    configs: list[TowersConfig]


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    asked = Asked(FakeTower(), [])

    def text_tower(config: TowersConfig, device: torch.device, *, trust_pickle: bool) -> FakeTower:
        asked.configs.append(config)
        return asked.tower

    monkeypatch.setattr(towers, "text_tower", text_tower)
    monkeypatch.setenv("O2S_CACHE", str(tmp_path / "o2s cache"))
    return asked


@pytest.fixture(autouse=True)
def app(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command alone, with the exit codes of `o2s`."""
    alone = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
    alone.callback()(lambda: None)
    alone.command(epilog=cli_find.EXAMPLE)(cli_find.find)
    alone.command()(cli.detect)
    monkeypatch.setattr(cli, "app", alone)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    points = room(3, furniture=5).points + torch.tensor([20.0, -10.0, 0.0])
    return save(tmp_path_factory.mktemp("a scan") / "a room.ply", points)


@pytest.fixture
def find(capsys: pytest.CaptureFixture[str], scan: Path, config: str) -> Callable[..., Any]:
    """The command with the small config: exit code, standard output and standard error."""
    room = scan

    def run(*arguments: object, scan: Path = room) -> tuple[int, str, str]:
        return o2s(capsys, "find", scan, *arguments, "--config", config)

    return run


def save(path: Path, points: torch.Tensor) -> Path:
    write_ply(path, Cloud(np.asarray(points, dtype=np.float64)))
    return path


def units(seed: int, rows: int, width: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator), dim=-1)


@pytest.mark.parametrize("objects", [0, 1, 30])
@pytest.mark.parametrize("names", [0, 1, 7])
def test_ranking_is_that_of_a_loop(objects: int, names: int) -> None:
    embeddings, query, others = units(0, objects), units(1, 1)[0], units(2, names)
    called = [f"name {i}" for i in range(names)]
    expected = []
    for i, embedding in enumerate(embeddings.tolist()):
        similarity = sum(a * b for a, b in zip(embedding, query.tolist(), strict=True))
        rivals = [
            (sum(a * b for a, b in zip(embedding, other, strict=True)), name)
            for other, name in zip(others.tolist(), called, strict=True)
        ]
        best = max(rivals, default=None)
        margin = None if best is None else similarity - best[0]
        expected.append((similarity, i, margin, None if best is None else best[1]))
    expected.sort(key=lambda entry: -entry[0])
    found = cli_find.rank_objects(embeddings, query, others, called)
    assert [hit.object for hit in found] == [i for _, i, _, _ in expected]
    assert [hit.over for hit in found] == [name for *_, name in expected]
    for hit, (similarity, _, margin, _) in zip(found, expected, strict=True):
        assert hit.similarity == pytest.approx(similarity, abs=1e-5)
        assert hit.margin == (None if margin is None else pytest.approx(margin, abs=1e-5))


def test_equal_objects_stay_in_the_detectors_order() -> None:
    one = units(0, 1)
    found = cli_find.rank_objects(one.repeat(40, 1), one[0], units(1, 0), [])
    assert [hit.object for hit in found] == list(range(40))


@pytest.mark.parametrize(
    "query, phrase",
    [
        ("a chair", "chair"),
        ("An armchair", "armchair"),
        ("the  old\tchair ", "old chair"),
        ("another chair", "another chair"),
        ("theatre seat", "theatre seat"),
        ("a", "a"),
    ],
)
def test_a_leading_article_is_left_out(query: str, phrase: str) -> None:
    assert cli_find.check_query(query, 1) == phrase


def test_regions_are_embedded_as_the_region_encoder_embeds() -> None:
    encoder = SceneEncoder.build(small_encoder_config())
    fake = room(3, furniture=3)
    scene = scene_of(fake.points, fake.colors)
    look = encoder.look(scene)
    assert len(look.boxes)
    points = crop_regions(scene, look.boxes, encoder.config.regions, channels=6).points
    expected = encoder.point_bert.embed(points).detach()
    torch.testing.assert_close(cli_find.embed_regions(encoder, look), expected)


@pytest.mark.parametrize(
    "phrase, name, same",
    [
        ("chair", "chair", True),
        ("Chairs", "chair", True),
        ("red chair", "chair", True),
        ("table", "coffee table", True),
        ("chair", "armchair", False),
        ("bed", "bedside table", False),
        ("bookshelves, boxes", "box bookshelf", True),
        ("knives and couches", "knife and couch", True),
        ("stoves", "stove", True),
        ("glass vases", "glass", True),
    ],
)
def test_a_kind_of_the_query_is_no_rival(phrase: str, name: str, same: bool) -> None:
    assert cli_find.is_same(phrase, name) is same
    assert cli_find.is_same(name, phrase) is same


def test_help_has_an_example(find):
    assert "Example: o2s find" in find("--help")[1]


def test_the_command_does_not_load_torch_before_it_runs() -> None:
    code = "import sys; import o2s.cli_find; assert 'torch' not in sys.modules, 'loaded'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_objects_are_those_of_detect_in_order_of_similarity(capsys, scan, config, find, asked):
    boxes = json.loads(o2s(capsys, "detect", scan, "--json", "--config", config)[1])["boxes"]
    words = ("a chair", "the lamp")
    code, out, err = find(*words, "--top", 100, "--json")
    answer = json.loads(out)
    assert code == 0
    assert err.count("untrained: region encoder. ") == 1
    assert set(answer) == {"scan", "objects", "queries"}
    assert answer["scan"] == str(scan)
    assert answer["objects"] == len(boxes) > 2
    assert [entry["query"] for entry in answer["queries"]] == list(words)
    ours = {"rank", "similarity", "margin", "over", "object"}
    for entry, phrase in zip(answer["queries"], ("chair", "lamp"), strict=True):
        found = entry["found"]
        assert [hit["rank"] for hit in found] == list(range(1, len(boxes) + 1))
        assert sorted(hit["object"] for hit in found) == list(range(1, len(boxes) + 1))
        similarities = [hit["similarity"] for hit in found]
        assert similarities == sorted(similarities, reverse=True)
        for hit in found:
            box = {key: value for key, value in hit.items() if key not in ours}
            assert box == boxes[hit["object"] - 1]
            assert hit["over"] != phrase
    assert asked.configs == [TowersConfig()]
    few = json.loads(find("a chair", "--top", 2, "--json")[1])
    assert few["queries"][0]["found"] == answer["queries"][0]["found"][:2]


def test_the_object_that_the_words_describe_comes_first(find, tmp_path, monkeypatch):
    chair, lamp, third = torch.eye(8)[[1, 2, 7]]

    def tower(self: FakeTower, texts: Sequence[str]) -> torch.Tensor:
        vectors = [3 * chair + lamp if "chair" in text else lamp + third for text in texts]
        return F.normalize(torch.stack(vectors), dim=-1)

    monkeypatch.setattr(FakeTower, "__call__", tower)
    monkeypatch.setattr(
        cli_find, "embed_regions", lambda encoder, look: torch.eye(8)[: len(look.boxes)]
    )
    names = tmp_path / "names.txt"
    names.write_text("chair\nlamp\n")
    found = json.loads(find("a chair", "a lamp", "--json", "--against", names)[1])["queries"]
    chairs, lamps = (entry["found"][0] for entry in found)
    assert (chairs["object"], lamps["object"]) == (2, 3)
    assert chairs["similarity"] == pytest.approx(3 / math.sqrt(10), abs=1e-4)
    assert (chairs["over"], chairs["margin"]) == ("lamp", chairs["similarity"])
    assert lamps["similarity"] == pytest.approx(math.sqrt(0.5), abs=1e-4)
    assert lamps["over"] == "chair"
    assert lamps["margin"] == pytest.approx(math.sqrt(0.5) - 1 / math.sqrt(10), abs=2e-4)


def test_objects_keep_their_numbers_where_a_box_holds_no_points(find, monkeypatch):
    code, out, _ = find("a chair", "--json", "--top", 99)
    whole = json.loads(out)
    usual = SceneEncoder.detect

    def with_a_ghost(self: SceneEncoder, scene: Scene) -> Boxes:
        boxes = usual(self, scene)
        twice = boxes.select(torch.tensor([0, *range(len(boxes))]))
        far = torch.where(torch.arange(len(twice))[:, None] == 0, 50.0, twice.centres)
        return replace(twice, centres=far)

    monkeypatch.setattr(SceneEncoder, "detect", with_a_ghost)
    assert code == 0
    haunted = json.loads(find("a chair", "--json", "--top", 99)[1])
    before, after = (
        {hit["object"]: hit["centre"] for hit in held["queries"][0]["found"]}
        for held in (whole, haunted)
    )
    assert len(before) > 3
    assert after == {number + 1: centre for number, centre in before.items()}


def test_without_other_names_there_is_no_margin(find, tmp_path):
    names = tmp_path / "names.json"
    names.write_text('["chair"]')
    hits = json.loads(find("a chair", "--against", names, "--json")[1])["queries"][0]["found"]
    assert hits
    assert all(hit["margin"] is None and hit["over"] is None for hit in hits)
    assert "similarity" in find("a chair", "--against", names)[1]


def test_a_table_a_query(find):
    code, out, err = find("[red] chair", "a lamp")
    assert code == 0
    assert "[red] chair in a room: the best" in out
    assert "a lamp in a room: the best" in out
    assert out.count("margin over") == 2
    assert "untrained: region encoder." in err
    assert "aggregator" not in err


def test_a_trained_region_encoder_is_not_called_untrained(find, monkeypatch):
    load = cli_find.load_encoder
    monkeypatch.setattr(cli_find, "load_encoder", lambda source: (load(source)[0], ["aggregator"]))
    assert "untrained" not in find("a chair")[2]


def test_the_picture_marks_what_is_printed(find, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        found, "draw_found", lambda *given, **options: calls.append((given, options))
    )
    words, picture = ["a chair", "a lamp"], tmp_path / "found.png"
    answer = json.loads(find(*words, "--top", 2, "--json", "--picture", picture)[1])
    (((_, boxes, path, queries, hits), options),) = calls
    assert (len(boxes), path, queries) == (answer["objects"], picture, words)
    assert options == {"note": " (by an untrained model)"}
    for entry, best in zip(answer["queries"], hits, strict=True):
        assert [row + 1 for row, _ in best] == [hit["object"] for hit in entry["found"]]
        similarities = [hit["similarity"] for hit in entry["found"]]
        assert [similarity for _, similarity in best] == pytest.approx(similarities, abs=1e-4)


def test_no_objects_is_an_answer(find, tmp_path, asked):
    floor = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0)) * 4
    floor[:, 2] = 0
    empty = save(tmp_path / "empty.ply", floor)
    options = ("--up", "z", "--picture", tmp_path / "found.png")
    code, out, _ = find("a chair", *options, scan=empty)
    assert code == 0
    assert out.strip() == f"no objects in {empty}"
    assert (tmp_path / "found.png").is_file()
    code, out, _ = find("a chair", "a lamp", "--json", *options, scan=empty)
    assert code == 0
    assert json.loads(out) == {
        "scan": str(empty),
        "objects": 0,
        "queries": [{"query": "a chair", "found": []}, {"query": "a lamp", "found": []}],
    }
    assert asked.configs == []


def test_another_text_tower(find, asked):
    assert find("a chair", "--text-model", "some/clip")[0] == 0
    assert find("a chair", "--text-model", "some/clip", "--text-kind", "open_clip")[0] == 0
    slip = ("--text-model", "slip.pt", "--text-kind", "slip", "--text-tokenizer", "some/clip")
    assert find("a chair", *slip)[0] == 0
    assert asked.configs == [
        TowersConfig("clip", "some/clip"),
        TowersConfig("open_clip", "some/clip"),
        TowersConfig("slip", "slip.pt", "some/clip"),
    ]


def test_widths_that_do_not_fit_are_named(find, asked, tmp_path):
    asked.tower = FakeTower("narrow", 5)
    code, out, err = find("a chair", "--picture", tmp_path / "found.png")
    assert (code, out) == (2, "")
    (line,) = err.strip().splitlines()
    assert "embeddings have width 8, those of the text tower narrow width 5; give the text" in line
    assert not (tmp_path / "found.png").exists()


def test_only_other_names_are_kept_for_the_next_time(find, tmp_path, monkeypatch):
    prompts = []
    draw = FakeTower.__call__
    monkeypatch.setattr(
        FakeTower, "__call__", lambda *given: prompts.extend(given[1]) or draw(*given)
    )
    first = find("a blue zebra", "--json")
    assert [path.parent.name for path in tmp_path.rglob("*.safetensors")] == ["embeddings"]
    assert "chair" in prompts
    prompts.clear()
    assert find("a blue zebra", "--json") == first
    assert prompts
    assert all("blue zebra" in prompt for prompt in prompts)


def test_a_cache_that_cannot_be_written_changes_nothing(find, monkeypatch):
    expected = find("a chair", "--json")

    def fails(*arguments: object, **options: object) -> torch.Tensor:
        raise PermissionError(13, "Permission denied", "cache")

    monkeypatch.setattr(towers, "cached_embeddings", fails)
    assert find("a chair", "--json") == expected


def test_a_query_that_was_cut_is_said(find, asked):
    assert "cut off" not in find("a chair")[2]
    asked.tower.cut = 1
    assert "its end was cut off" in find("a chair")[2]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("a chair", ""), "query 2 is ''; expected words, such as 'a chair'"),
        ((" \n ",), "query 1 is ''; expected words"),
        (("?!",), "query 1 is '?!'; expected words"),
        (("chair", "--text-kind", "slip"), "--text-kind says what --text-model is"),
        (("chair", "--text-model", "c", "--text-tokenizer", "t"), "--text-tokenizer goes with"),
        (("chair", "--text-model", ""), "--text-model is empty"),
        (("chair", "--picture", "."), "--picture .: is a folder; expected the name of a .png file"),
        (("chair", "--against", "nowhere.txt"), "nowhere.txt: no such file"),
        (("chair", "--model", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_are_one_line(capsys, scan, arguments, says):
    code, out, err = o2s(capsys, "find", scan, *arguments)
    assert (code, out) == (2, "")
    (line,) = err.strip().splitlines()
    assert line.startswith("o2s: ")
    assert says in line


@pytest.mark.parametrize("name", ["missing.ply", "text.ply", "."])
def test_a_scan_that_cannot_be_read_is_one_line(find, tmp_path, asked, name):
    (tmp_path / "text.ply").write_text("no scan")
    code, out, err = find("a chair", scan=tmp_path / name)
    assert (code, out) == (2, "")
    (line,) = err.strip().splitlines()
    assert str(tmp_path / name) in line
    assert asked.configs == []


@pytest.mark.parametrize("arguments", [(), ("a chair", "--top", "0")])
def test_usage_errors(find, arguments):
    assert find(*arguments)[0] == 2
