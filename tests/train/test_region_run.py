"""Pretraining of the region encoder on made-up scans, from a recipe to a folder and back."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from furniture_fake import box, write_table
from PIL import Image
from safetensors.torch import load_file
from scannet_fake import make_scan, write_download, write_stream

from o2s import config
from o2s.alignment import AlignmentConfig, RegionAligner
from o2s.datasets.frames import Crops
from o2s.datasets.furniture_objects import FurnitureObjects
from o2s.datasets.preparation import prepare
from o2s.datasets.scan_objects import ScanObjects
from o2s.datasets.scannet import ScanNet
from o2s.datasets.triplets import Triplet, TripletSource
from o2s.errors import InputError
from o2s.evaluate.text_embeddings import read_text_embeddings
from o2s.point_bert import PointBert
from o2s.region_weights import read_region_encoder
from o2s.towers.images import in_rgb
from o2s.train import region_recipe, region_run, run_folder
from o2s.train.region_recipe import RegionData, RegionRecipe, embed_files, open_sources
from o2s.train.region_run import train_regions
from o2s.train.regions import RegionTrainer, top_k

WIDTH = 8
SIZE = "{channels: 7, width: 32, depth: 1, heads: 2, groups: 8, neighbours: 4, group_width: 16, "
SIZE += f"embedding: {WIDTH}}}"


class FakeTower:
    """Vectors that depend on nothing but the text, or on nothing but the image's size."""

    name, width = "fake", WIDTH

    def __call__(self, items: Sequence[object]) -> torch.Tensor:
        rows = []
        for item in items:
            text = item if isinstance(item, str) else str(getattr(item, "size", item))
            seed = int(hashlib.sha256(text.split()[-1].encode()).hexdigest()[:8], 16)
            rows.append(torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)))
        return F.normalize(torch.stack(rows), dim=1)


@pytest.fixture(autouse=True)
def towers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region_run, "text_tower", lambda *_, **__: FakeTower())
    monkeypatch.setattr(region_run, "image_tower", lambda *_, **__: FakeTower())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    names = [f"scene000{i}_00" for i in range(4)]
    raw = write_download(folder / "raw", {"train": names[:3], "val": names[3:]}, detail=8)
    for seed, name in enumerate(names):
        write_stream(make_scan(name, seed, detail=8), raw / "scans")
    prepare(ScanNet(raw), folder / "prepared", extras=[Crops(1, 2)])
    return folder / "prepared"


@contextlib.contextmanager
def step(what: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None


def recipe(prepared: Path, cache: Path, *overrides: str) -> RegionRecipe:
    short = ["optimisation.epochs=3", "optimisation.batch_size=6", "optimisation.draws=18"]
    short += ["optimisation.bf16=false"]
    short += [f"point_bert={SIZE}", "points=64", f"data.scenes={prepared}", f"data.cache={cache}"]
    return config.load("regions_tiny", RegionRecipe, [*short, *overrides])


def test_sketched_furniture_is_for_train_alone(prepared: Path, tmp_path: Path) -> None:
    rows = [
        "file,name,class,creator,licence",
        "box.obj,Cube,box,Ann,CC0",
        "b.obj,Crate,box,Ann,CC0",
    ]
    library = write_table(tmp_path / "made", rows, {"box.obj": box(), "b.obj": box() + "# another"})
    data = RegionData(scenes=str(prepared), sketched=[str(library)], cache=str(tmp_path / "cache"))
    (_, drawn), (scans,) = (open_sources(data, split, step) for split in ("train", "val"))
    assert isinstance(drawn, FurnitureObjects)
    assert {piece.name for piece in drawn.pieces} == {"Cube", "Crate"}
    assert isinstance(scans, ScanObjects)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return read_region_encoder(folder / region_run.ENCODER)[0].state_dict()


def test_a_run_leaves_an_encoder_its_classes_and_its_scores(prepared: Path, tmp_path: Path) -> None:
    report = train_regions(recipe(prepared, tmp_path / "cache"), tmp_path / "run", step)
    encoder, facts = read_region_encoder(tmp_path / "run" / region_run.ENCODER)
    assert encoder.config.width == 32
    assert facts["points"] == 64
    words = read_text_embeddings(tmp_path / "run" / region_run.CLASSES)
    assert list(words.classes) == facts["classes"]
    scores = json.loads((tmp_path / "run" / region_run.SCORES).read_text())
    assert scores == report.scores == facts["scores"]
    assert set(scores["val"]) == {"top1", "top5", "macro_top1", "macro_top5"}


@pytest.mark.parametrize("trusted", [False, True])
def test_pickles_are_trusted_when_told_so(
    trusted: bool, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []

    def tower(*_: object, trust_pickle: bool) -> FakeTower:
        told.append(trust_pickle)
        return FakeTower()

    def encoder(name: str, trust_pickle: bool) -> None:
        told.append(trust_pickle)
        raise InputError(name)

    monkeypatch.setattr(region_run, "text_tower", tower)
    monkeypatch.setattr(region_run, "image_tower", tower)
    monkeypatch.setattr(region_run, "load_region_encoder", encoder)
    made = recipe(prepared, tmp_path / "cache", "weights=others.pt")
    with pytest.raises(InputError, match=r"others\.pt"):
        train_regions(made, tmp_path / "run", step, trust_pickle=trusted)
    assert told == [trusted, trusted]  # of the text tower and the encoder


def test_images_are_learned_from_and_towers_run_once(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = tmp_path / "crop.png"
    Image.new("RGB", (9, 7)).save(shown)
    take = ScanObjects.__getitem__
    monkeypatch.setattr(ScanObjects, "images", lambda self, index: (shown,))
    monkeypatch.setattr(
        ScanObjects, "__getitem__", lambda self, index: replace(take(self, index), images=(shown,))
    )
    asked: list[object] = []
    seen: list[bool] = []

    class Tower(FakeTower):
        def __call__(self, items: Sequence[object]) -> torch.Tensor:
            asked.extend(items)
            return super().__call__(items)

    forward = RegionAligner.forward

    def watched(self: RegionAligner, **batch: torch.Tensor) -> object:
        seen.append(bool(batch["has_image"].any()))
        return forward(self, **batch)

    monkeypatch.setattr(region_run, "text_tower", lambda *_, **__: Tower())
    monkeypatch.setattr(region_run, "image_tower", lambda *_, **__: Tower())
    monkeypatch.setattr(RegionAligner, "forward", watched)
    made = recipe(prepared, tmp_path / "cache", "optimisation.epochs=1")
    train_regions(made, tmp_path / "run", step)
    assert seen == [True] * len(seen) != []
    assert {type(item) for item in asked} == {str, Image.Image}
    asked.clear()
    train_regions(made, tmp_path / "again", step)
    assert not asked


def test_training_moves_points_towards_their_texts(prepared: Path, tmp_path: Path) -> None:
    longer = ["optimisation.epochs=40", "optimisation.learning_rate=0.003"]
    made = recipe(prepared, tmp_path / "cache", *longer)
    train_regions(made, tmp_path / "run", step)
    states = (tmp_path / "run" / "checkpoints").glob("checkpoint-*/trainer_state.json")
    history = max((json.loads(path.read_text())["log_history"] for path in states), key=len)
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]


def test_a_killed_run_goes_on_to_the_same_result(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    averaged = "optimisation.average=0.5"
    whole, halved = (recipe(prepared, tmp_path / "cache", averaged) for _ in range(2))
    train_regions(whole, tmp_path / "whole", step)
    usual = run_folder._Progress.on_epoch_begin

    def killed(self: object, args: object, state: object, control: object, **_: object) -> None:
        if state.epoch >= 2:  # pyright: ignore
            raise KeyboardInterrupt

    monkeypatch.setattr(run_folder._Progress, "on_epoch_begin", killed)
    with pytest.raises(KeyboardInterrupt):
        train_regions(halved, tmp_path / "halved", step)
    assert not (tmp_path / "halved" / region_run.ENCODER).exists()
    monkeypatch.setattr(run_folder._Progress, "on_epoch_begin", usual)
    train_regions(halved, tmp_path / "halved", step)
    expected, found = weights_of(tmp_path / "whole"), weights_of(tmp_path / "halved")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=name)


TWO = """
import sys
from pathlib import Path
import test_region_run
from o2s.train import region_run
from o2s.train.run_folder import leave_together
region_run.text_tower = region_run.image_tower = lambda *_, **__: test_region_run.FakeTower()
made = test_region_run.recipe(Path(sys.argv[1]), Path(sys.argv[2]), "optimisation.epochs=2")
region_run.train_regions(made, Path(sys.argv[3]), test_region_run.step)
leave_together()
"""


@pytest.mark.slow
def test_two_processes_share_a_run(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    here = Path(__file__).parent
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-port", "29621", str(tmp_path / "two.py"), str(prepared)),
            *(str(tmp_path / "cache"), str(tmp_path / "run")),
        ],
        env={**os.environ, "PYTHONPATH": f"{here}:{here.parent}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, facts = read_region_encoder(tmp_path / "run" / region_run.ENCODER)
    assert facts["scores"] == json.loads((tmp_path / "run" / region_run.SCORES).read_text())
    state = json.loads((tmp_path / "run/checkpoints/checkpoint-2/trainer_state.json").read_text())
    assert (state["global_step"], state["epoch"]) == (2, 2)  # 18 draws, two batches of 6 a step


def test_what_is_kept_is_the_average_of_the_weights(prepared: Path, tmp_path: Path) -> None:
    small = ["optimisation.epochs=1", "optimisation.average=0.5"]
    train_regions(recipe(prepared, tmp_path / "cache", *small), tmp_path / "run", step)
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("checkpoint-*")
    kept, last = (
        load_file(checkpoint / name) for name in ("average.safetensors", "model.safetensors")
    )
    for name, tensor in weights_of(tmp_path / "run").items():
        assert torch.equal(tensor, kept[f"point_bert.{name}"].half().float())
    assert not torch.equal(kept["point_bert.pc_projection"], last["point_bert.pc_projection"])


def test_a_checkpoint_that_was_half_written_is_passed_over(prepared: Path, tmp_path: Path) -> None:
    made = recipe(prepared, tmp_path / "cache", "optimisation.average=0.5")
    train_regions(made, tmp_path / "whole", step)
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    (tmp_path / "killed" / region_run.ENCODER).unlink()
    newest = tmp_path / "killed/checkpoints/checkpoint-9"
    for name in ("trainer_state.json", "optimizer.pt"):
        (newest / name).unlink()
    train_regions(made, tmp_path / "killed", step)
    expected, found = weights_of(tmp_path / "whole"), weights_of(tmp_path / "killed")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=name)


def test_objects_without_a_class_are_told_apart_by_their_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Captioned(TripletSource):
        """Twelve things, each of its own size, that are called by a number and have a caption."""

        classes = tuple(f"id{i:02}" for i in range(12))

        def __len__(self) -> int:
            return 12

        def label(self, index: int) -> str:
            return self.classes[index]

        def __getitem__(self, index: int) -> Triplet:
            rng = np.random.default_rng(index)
            points = rng.normal(size=(64, 3)).astype(np.float32) * (1, 1 + index, 1)
            return Triplet(points.astype(np.float32), None, self.label(index), (f"c {index}",))

    monkeypatch.setattr(region_recipe, "UlipObjaverse", lambda root: Captioned())
    made = recipe(tmp_path, tmp_path / "cache", "data.scenes=null", "data.objaverse=x")
    made = replace(made, data=replace(made.data, val_share=0.5))
    train_regions(made, tmp_path / "run", step)
    words = read_text_embeddings(tmp_path / "run" / region_run.CLASSES)
    assert words.classes == Captioned.classes
    said = region_recipe.embed_texts(["c 3"], FakeTower(), tmp_path / "cache", step)
    torch.testing.assert_close(words.vectors()[3:4], said.vectors)
    *_, candidates = region_run._batches(made, step, torch.device("cpu"))  # pyright: ignore[reportPrivateUsage]
    assert candidates.tolist() == [1, 3, 5, 7, 9, 11]  # those of val, told apart by their texts
    few = replace(made, data=replace(made.data, val_share=0.02))
    with pytest.raises(InputError, match=r"val_share is 0\.02 of 12 objects, which is none"):
        train_regions(few, tmp_path / "few", step)


def test_labels_alone_can_be_learned_for_comparison(prepared: Path, tmp_path: Path) -> None:
    made = recipe(prepared, tmp_path / "cache", "objective=labels")
    report = train_regions(made, tmp_path / "run", step)
    assert 0 <= report.scores["val"]["top1"] <= 1
    assert (tmp_path / "run" / region_run.ENCODER).is_file()


def test_training_goes_on_from_weights(prepared: Path, tmp_path: Path) -> None:
    train_regions(recipe(prepared, tmp_path / "cache"), tmp_path / "first", step)
    file = tmp_path / "first" / region_run.ENCODER
    still = ("optimisation.learning_rate=1e-12", "optimisation.final_learning_rate=0.0")
    again = recipe(prepared, tmp_path / "cache", f"weights={file}", *still)
    train_regions(again, tmp_path / "second", step)
    before, after = weights_of(tmp_path / "first"), weights_of(tmp_path / "second")
    learned = [name for name in before if "running" not in name and "num_batches" not in name]
    for name in learned:
        torch.testing.assert_close(after[name], before[name], atol=1e-4, rtol=1e-3)
    wide = recipe(prepared, tmp_path / "cache", "weights=tiny")
    with pytest.raises(InputError, match="tiny is an encoder of another size than point_bert"):
        train_regions(wide, tmp_path / "third", step)


def test_a_folder_of_another_recipe_is_refused(prepared: Path, tmp_path: Path) -> None:
    train_regions(recipe(prepared, tmp_path / "cache"), tmp_path / "run", step)
    other = recipe(prepared, tmp_path / "cache", "points=32")
    with pytest.raises(InputError, match=r"recipe\.json: a run of another recipe \(its points"):
        train_regions(other, tmp_path / "run", step)


def test_too_few_objects_for_a_batch_are_said(prepared: Path, tmp_path: Path) -> None:
    made = recipe(prepared, tmp_path / "cache", "optimisation.draws=null")
    made = replace(made, optimisation=replace(made.optimisation, batch_size=5000))
    with pytest.raises(InputError, match=r"objects of train; expected at least 5000, the opti"):
        train_regions(made, tmp_path / "run", step)


@pytest.mark.parametrize("objective", ["alignment", "labels"])
def test_a_share_of_the_groups_is_learned_from(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    shares: list[float] = []
    plain = PointBert.forward

    def forward(self: PointBert, points: torch.Tensor, share: float = 1.0) -> torch.Tensor:
        shares.append(share)
        return plain(self, points, share)

    monkeypatch.setattr(PointBert, "forward", forward)
    options = ("optimisation.least_groups=0.4", f"objective={objective}")
    train_regions(recipe(prepared, tmp_path / "cache", *options), tmp_path / "run", step)
    drawn = [share for share in shares if share < 1]
    assert len(drawn) == 9, "three epochs of three batches; val is seen whole"
    assert min(drawn) >= 0.4
    assert len(set(drawn)) > 1


def test_matrices_alone_decay(prepared: Path, tmp_path: Path) -> None:
    train_regions(recipe(prepared, tmp_path / "cache"), tmp_path / "run", step)
    encoder = read_region_encoder(tmp_path / "run" / region_run.ENCODER)[0]
    model = RegionAligner(encoder, AlignmentConfig())
    names = RegionTrainer.get_decay_parameter_names(cast(Any, None), model)
    assert "point_bert.pc_projection" in names
    assert "point_bert.encoder.first_conv.0.weight" in names
    for name in ("logit_scale", "point_bert.encoder.first_conv.1.weight", "point_bert.norm.weight"):
        assert name in dict(model.named_parameters())
        assert name not in names


def test_towers_of_another_width_are_refused(prepared: Path, tmp_path: Path) -> None:
    wide = SIZE.replace(f"embedding: {WIDTH}", "embedding: 16")
    made = recipe(prepared, tmp_path / "cache", f"point_bert={wide}")
    with pytest.raises(InputError, match=r"text tower is 8 wide and point_bert\.embedding 16"):
        train_regions(made, tmp_path / "run", step)


def test_a_recipe_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no source of triplets"):
        train_regions(config.load("regions_tiny", RegionRecipe), tmp_path / "run", step)


def test_what_is_transparent_is_seen_on_white(tmp_path: Path) -> None:
    drawn = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    drawn.paste((0, 90, 0, 255), (2, 2, 6, 6))
    drawn.save(tmp_path / "layered.png")
    in_rgb(drawn).save(tmp_path / "flat.png")

    def embed(images: Sequence[Image.Image]) -> torch.Tensor:
        return torch.stack([torch.tensor(np.asarray(in_rgb(i)).mean((0, 1))) for i in images])

    files = [tmp_path / "layered.png", tmp_path / "flat.png"]
    layered, flat = embed_files(files, lambda x: embed(x).float(), "mean", tmp_path / "c", step)
    assert torch.equal(layered, flat)
    assert layered[0] > 150
    files[0].write_bytes(files[0].read_bytes()[:60])
    with pytest.raises(InputError, match=r"layered\.png: not a whole image"):
        embed_files(files[:1], lambda x: embed(x).float(), "mean", tmp_path / "c", step)


def test_shares_right_are_averaged_over_classes() -> None:
    logits = torch.eye(6)[[0, 0, 0, 1, 2, 2]]
    targets = torch.tensor([0, 0, 1, 1, 2, 3])
    found = top_k(logits, targets)
    assert found["top1"] == pytest.approx(4 / 6)
    assert found["macro_top1"] == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert found["top5"] >= found["top1"]
