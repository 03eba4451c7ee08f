"""`o2s instruct` as a user meets it."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from command_line import untimed
from scannet_fake import write_download
from typer.testing import CliRunner

from datasets import load_from_disk
from o2s.cli_instruct import EXAMPLE, TaskName, instruct
from o2s.datasets.instruction_tasks import TASKS, TEMPLATES
from o2s.datasets.preparation import prepare
from o2s.datasets.scan2inst import read_octavius
from o2s.datasets.scannet import ScanNet
from o2s.errors import InputError

SCENES = ("scene0000_00", "scene0001_00")
app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command(epilog=EXAMPLE)(instruct)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared scans, and small files of annotations in each format beside them."""
    root = tmp_path_factory.mktemp("annotated scans")
    raw = write_download(root / "raw", {"train": SCENES, "val": ["scene0002_00"]})
    prepare(ScanNet(raw), root / "prepared")
    asked = [(scene, n) for scene in (*SCENES, "scene0002_00", "scene0500_00") for n in range(4)]
    scanqa = [
        {
            "scene_id": scene,
            "question_id": f"train-{scene}-{n}",
            "question": f"What is number {n}?",
            "answers": ["a chair"],
            "object_ids": [n],
            "object_names": ["chair"],
        }
        for scene, n in asked
    ]
    write(root / "scanqa.json", scanqa)
    write(
        root / "scanqa_test.json",
        [{k: entry[k] for k in ("scene_id", "question_id", "question")} for entry in scanqa],
    )
    refer = {"object_id": "5", "object_name": "office_chair", "description": "a chair."}
    scanrefer = [refer | {"scene_id": scene, "ann_id": str(n)} for scene, n in asked]
    write(root / "scanrefer.json", [*scanrefer, scanrefer[0] | {"object_id": "77"}])
    with (root / "nr3d.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["assignmentid", "utterance", "instance_type", "scan_id", "target_id", "tokens"]
        )
        for number, scene in enumerate(SCENES):
            tokens = "['the', 'table']"
            writer.writerow([number, "the table, by the wall", "table", scene, 4, tokens])
    questions = [
        {"scene_id": scene, "question_id": n, "situation": "I sit.", "question": "What is left?"}
        for n, scene in enumerate(SCENES)
    ]
    place = {"position": dict.fromkeys("xyz", 0.5), "rotation": dict.fromkeys(QUATERNION, 0.5)}
    annotations = [place | {"question_id": n, "answers": [{"answer": "two"}]} for n in range(2)]
    write(root / "sqa3d/v1_balanced_questions_train_scannetv2.json", {"questions": questions})
    write(
        root / "sqa3d/v1_balanced_sqa_annotations_train_scannetv2.json",
        {"annotations": annotations},
    )
    return root


QUATERNION = ("_x", "_y", "_z", "_w")


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error; an InputError is raised as it is."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def everything(folder: Path) -> list[object]:
    return [
        *("--scenes", folder / "prepared", "--scanqa", folder / "scanqa.json"),
        *("--scanrefer", folder / "scanrefer.json", "--nr3d", folder / "nr3d.csv"),
        *("--sqa3d", folder / "sqa3d"),
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_help_has_an_example() -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert "Example: o2s instruct --scenes prepared" in " ".join(out.split())


def test_the_task_names_are_those_of_the_records() -> None:
    assert tuple(task.value for task in TaskName) == TASKS


def test_everything(folder: Path, tmp_path: Path) -> None:
    out_folder, octavius = tmp_path / "out", tmp_path / "octavius.json"
    code, out, err = run(*everything(folder), "--out", out_folder, "--octavius", octavius)
    assert code == 0
    dataset = load_from_disk(str(out_folder / "train"))
    counts = Counter(dataset["task_type"])
    assert counts["VQA3D"] == 2 * 4 + 2
    assert counts["description3d"] == 2 * 4 + 2
    assert counts["classification3d"] == 2 * 2
    assert counts["conversation"] == counts["dense_captioning"] == 2
    assert out.startswith(f"{len(dataset)} records (4 classification3d, 10 description3d, ")
    assert out.endswith(f" of 2 scenes, in {out_folder / 'train'}\n")
    assert err.endswith(  # behind how long each step took, where that is more than a second
        "o2s: skipped annotations: 8 of scenes that are not prepared, 8 of scenes of another "
        "split, 1 of objects that their scene does not have; see "
        f"{out_folder / 'train' / 'skipped.json'}\n"
    )
    skipped = json.loads((out_folder / "train" / "skipped.json").read_text())
    assert skipped["not_prepared"] == {"scanqa": 4, "scanrefer": 4}
    assert [entry["object_ids"] for entry in skipped["no_object"]] == [["77"]]
    assert read_octavius(octavius).to_list() == dataset.to_list()
    card = json.loads((out_folder / "data_card.json").read_text())
    assert card["train"]["records"] == len(dataset)
    names = [file["name"] for file in card["train"]["made_from"]["files"]]
    assert names == [
        "scanqa.json",
        "v1_balanced_questions_train_scannetv2.json",
        "v1_balanced_sqa_annotations_train_scannetv2.json",
        "scanrefer.json",
        "nr3d.csv",
        "instruction_templates.yaml",
    ]
    assert (out_folder / "data_card.md").is_file()
    assert (out_folder / "data_card.png").is_file()


def test_run_again_and_for_another_split(folder: Path, tmp_path: Path) -> None:
    run(*everything(folder), "--out", tmp_path / "out")
    before = contents(tmp_path / "out")
    run(*everything(folder), "--out", tmp_path / "out")
    assert contents(tmp_path / "out") == before
    scanqa = ("--scenes", folder / "prepared", "--scanqa", folder / "scanqa.json")
    code, out, _ = run(*scanqa, "--split", "val", "--tasks", "VQA3D", "--out", tmp_path / "out")
    assert code == 0
    assert out == f"4 records (4 VQA3D) of 1 scenes, in {tmp_path / 'out' / 'val'}\n"
    assert list(json.loads((tmp_path / "out" / "data_card.json").read_text())) == ["train", "val"]
    after = contents(tmp_path / "out")
    assert all(after[name] == data for name, data in before.items() if name.startswith("train/"))


def test_scene_labels_alone_are_enough_to_count(folder: Path, tmp_path: Path) -> None:
    code, out, err = run("--scenes", folder / "prepared", "--out", tmp_path / "out")
    assert (code, untimed(err)) == (0, "")
    dataset = load_from_disk(str(tmp_path / "out" / "train"))
    assert set(dataset["task_type"]) == {"object_counting"}
    assert f"{len(dataset)} records ({len(dataset)} object_counting) of 2 scenes" in out


def test_areas_are_no_splits(folder: Path, tmp_path: Path) -> None:
    prepared = shutil.copytree(folder / "prepared", tmp_path / "prepared")
    index = json.loads((prepared / "index.json").read_text())
    for number, scan in enumerate(index["scans"]):
        scan["split"] = f"Area_{number}"
    (prepared / "index.json").write_text(json.dumps(index))
    code, out, _ = run("--scenes", prepared, "--out", tmp_path / "out")
    assert code == 0
    assert f"of {len(index['scans'])} scenes" in out


def test_two_sqa3d_files_and_other_wordings(folder: Path, tmp_path: Path) -> None:
    wordings = yaml.safe_load(TEMPLATES.read_text())
    wordings["VQA3D_with_situation"] = ["{question} ({situation})"]
    (tmp_path / "wordings.yaml").write_text(yaml.safe_dump(wordings))
    files = sorted((folder / "sqa3d").iterdir())
    options = ("--sqa3d", files[0], "--sqa3d", files[1], "--templates", tmp_path / "wordings.yaml")
    run("--scenes", folder / "prepared", *options, "--tasks", "VQA3D", "--out", tmp_path / "out")
    dataset = load_from_disk(str(tmp_path / "out" / "train"))
    assert {turns[0]["value"] for turns in dataset["conversations"]} == {"What is left? (I sit.)"}


def test_questions_without_answers(folder: Path, tmp_path: Path) -> None:
    options = ("--scenes", folder / "prepared", "--scanqa", folder / "scanqa_test.json")
    options = (*options, "--tasks", "VQA3D", "--out", tmp_path / "out")
    with pytest.raises(InputError, match=r"16 of 16 questions have no .* say --without-answers"):
        run(*options)
    assert not (tmp_path / "out").exists()
    code, _, _ = run(*options, "--without-answers")
    assert code == 0
    dataset = load_from_disk(str(tmp_path / "out" / "train"))
    assert {turns[-1]["value"] for turns in dataset["conversations"]} == {None}


@pytest.mark.parametrize(
    "options, expected",
    [
        (("--tasks", "VQA3D"), "--tasks VQA3D needs annotations: say --scanqa or --sqa3d as well"),
        (("--tasks", "description3d"), "needs annotations: say --scanrefer or --nr3d as well"),
        (("--scanqa", "none.json"), "none.json: no such file; expected a file in the ScanQA"),
        (("--sqa3d", "."), "expected one of each"),
        (("--templates", "none.yaml"), "none.yaml: No such file or directory"),
        (("--split", "test"), "no records of split test came out"),
        (("--scenes", "none"), "none/index.json: no such file"),
    ],
)
def test_a_wrong_option_is_one_line(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        run("--scenes", folder / "prepared", "--out", tmp_path / "out", *options)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_output_has_to_be_a_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file; expected a folder"):
        run(*everything(folder), "--out", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
