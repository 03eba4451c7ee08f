"""`o2s eval qa` as a user meets it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_fake import SCENES, table_scores, write
from command_line import o2s
from instructions_fake import prepare_scenes

from o2s.datasets.furniture_classes import SCAN_CLASSES
from o2s.evaluate import running
from o2s.evaluate.scene_boxes import read_regions
from o2s.evaluate.text_embeddings import TextEmbeddings, write_text_embeddings
from o2s.io.labelled import read_labelled, write_labelled
from o2s.llm.answering import SceneAnswerer
from o2s.region_weights import PRETRAINED, read_region_encoder


def test_right_answers_score_all_there_is(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = o2s(
        capsys,
        *("eval", "qa", folder / "answers.json", "--reference", folder / "ScanQA_v1.0_val.json"),
        *("--variant", "leo", "--variant", "ll3da", "--out", tmp_path / "scores", "--json"),
    )
    assert code == 0
    report = json.loads(out)
    assert report == json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert table_scores(report["tables"]["leo"])["EM@1"] == 1.0
    assert set(report["tables"]["leo"]) == {"all", "color", "place"}
    assert report["tables"]["leo"]["all"]["counts"] == {"questions": 6, "references": 9}
    majority = table_scores(
        report["tables"]["leo, beside answers without the scene"], "majority answer"
    )
    assert majority["EM@1"] == 1.0  # every scene has the same two questions
    assert report["made_from"]["versions"]["pycocoevalcap"] == "1.2"
    assert report["made_from"]["versions"]["java"]
    assert any("no blind row" in note for note in report["notes"])
    assert "## leo" in (tmp_path / "scores" / "scores.md").read_text()


def test_baselines_may_be_given(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blind = [{"question_id": f"{s}-{n}", "answer": "red"} for s in SCENES for n in range(2)]
    path = write(folder / "blind.json", blind)
    code, out, _ = o2s(
        capsys,
        *("eval", "qa", folder / "answers.json", "--reference", folder / "ScanQA_v1.0_val.json"),
        *("--variant", "leo", "--blind", path, "--json"),
    )
    assert code == 0
    rows = json.loads(out)["tables"]["leo, beside answers without the scene"]
    assert table_scores(rows, "blind (no scene tokens)")["EM@1"] == 0.5
    gain = rows["gain over blind"]["scores"]["EM@1"]
    assert gain["value"] == 0.5
    assert 0 <= gain["low"] <= 0.5 <= gain["high"] <= 1
    kinds = json.loads(out)["tables"]["leo, gain over blind by kind"]
    gains = {kind: table_scores(kinds, kind)["EM@1"] for kind in ("color", "place")}
    assert gains == {"color": 0.0, "place": 1.0}


def test_tables_are_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = o2s(
        capsys,
        *("eval", "qa", folder / "answers.json", "--reference", folder / "ScanQA_v1.0_val.json"),
        *("--variant", "leo"),
    )
    assert code == 0
    [line] = [line for line in out.splitlines() if line.split()[:1] == ["color"]]
    assert line.split()[:4] == ["color", "3", "6", "100.0"]
    assert "95 % intervals" in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["answers.json", "--reference", "none.json"], "none.json: no such file"),
        (["none.json", "--reference", "ScanQA_v1.0_val.json"], "none.json: no such file"),
        (["--reference", "ScanQA_v1.0_val.json"], "either a file of predictions, or --scenes"),
        (["--reference", "ScanQA_v1.0_val.json", "--scenes", "prepared"], "--out"),
        (["few.json", "--reference", "ScanQA_v1.0_val.json"], "no prediction for 5 of 6 questions"),
        (["more.json", "--reference", "ScanQA_v1.0_val.json"], "'zzz' is not in the reference"),
        (
            ["answers.json", "--reference", "ScanQA_v1.0_val.json", "--blind", "few.json"],
            "few.json: no",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    folder: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    right = json.loads((folder / "answers.json").read_text())
    write(folder / "few.json", right[:1])
    write(folder / "more.json", [*right, {"question_id": "zzz", "answer": "x"}])
    paths = [str(folder / a) if (folder / a).suffix or a == "prepared" else a for a in arguments]
    out_folder = [] if "--scenes" in paths else ["--out", str(tmp_path / "scores")]
    code, out, err = o2s(capsys, "eval", "qa", *paths, *out_folder)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert not (tmp_path / "scores").exists()


def run_model(folder: Path, out: Path, *more: str) -> list[Any]:
    return [
        *(
            "eval",
            "qa",
            "--reference",
            folder / "ScanQA_v1.0_val.json",
            "--scenes",
            folder / "prepared",
        ),
        *("--model", folder / "model", "--out", out, "--variant", "leo", "--json"),
        *("--max-new-tokens", "4", *more),
    ]


def test_a_model_answers_seeing_blind_and_shuffled(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = o2s(capsys, *run_model(folder, tmp_path))
    assert code == 0, err
    report = json.loads(out)
    rows = report["tables"]["leo, beside answers without the scene"]
    assert list(rows) == [
        "model",
        "blind (no scene tokens)",
        "shuffled scene (tokens of another)",
        "majority answer",
        "gain over blind",
        "gain over shuffled scene",
    ]
    assert any("Untrained" in note for note in report["notes"])
    assert report["made_from"]["untrained"]
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 6
    # The stored answers are predictions like any others.
    again = ["--blind", tmp_path / "predictions_blind.jsonl"]
    code, out, _ = o2s(
        capsys,
        *(
            "eval",
            "qa",
            tmp_path / "predictions.jsonl",
            "--reference",
            folder / "ScanQA_v1.0_val.json",
        ),
        *(*again, "--variant", "leo", "--json"),
    )
    assert code == 0
    assert json.loads(out)["tables"]["leo"] == report["tables"]["leo"]


def test_a_model_answers_about_true_boxes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    shown: list[tuple[str, ...]] = []
    look = running.Scenes.look

    def seen(self: running.Scenes, name: str) -> Any:
        found = look(self, name)
        shown.append(found.boxes.labels)
        return found

    monkeypatch.setattr(running.Scenes, "look", seen)
    code, out, err = o2s(capsys, *run_model(folder, tmp_path, "--regions", "reference"))
    assert code == 0, err
    true = read_regions(folder / "prepared", SCENES, shell=False)
    assert set(shown) == {boxes.labels for boxes in true.values()}
    assert all(boxes.labels for boxes in true.values())
    assert json.loads(out)["made_from"]["regions"] == "reference"


def test_a_killed_run_goes_on_where_it_stopped(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert o2s(capsys, *run_model(folder, whole))[0] == 0
    asked: list[str] = []
    original = SceneAnswerer.ask_batch

    def counting(self: SceneAnswerer, looks: Any, questions: Any, **options: Any) -> Any:
        asked.extend(questions)
        return original(self, looks, questions, **options)

    monkeypatch.setattr(SceneAnswerer, "ask_batch", counting)
    parts.mkdir()
    (parts / "run.json").write_text((whole / "run.json").read_text())
    stored = (whole / "predictions.jsonl").read_text()
    (parts / "predictions.jsonl").write_text(stored[: len(stored) // 2])  # cut within a line
    kept = stored[: len(stored) // 2].count("\n")
    assert o2s(capsys, *run_model(folder, parts))[0] == 0
    assert len(asked) == 3 * 6 - kept
    for name in ("predictions.jsonl", "predictions_blind.jsonl", "predictions_shuffled.jsonl"):
        assert (parts / name).read_text() == (whole / name).read_text(), name
    asked.clear()
    assert o2s(capsys, *run_model(folder, parts))[0] == 0
    assert asked == []


def test_a_run_with_other_settings_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert o2s(capsys, *run_model(folder, tmp_path))[0] == 0
    before = (tmp_path / "predictions.jsonl").read_text()
    code, _, err = o2s(capsys, *run_model(folder, tmp_path, "--seed", "7"))
    assert code == 2
    assert "begun with another seed" in err
    assert (tmp_path / "predictions.jsonl").read_text() == before


def test_scenes_that_are_not_prepared_are_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = json.loads((folder / "ScanQA_v1.0_val.json").read_text())[0] | {
        "scene_id": "scene0404_00"
    }
    reference = write(tmp_path / "ScanQA_v1.0_val.json", [entry])
    arguments = run_model(folder, tmp_path / "out")
    arguments[arguments.index(folder / "ScanQA_v1.0_val.json")] = reference
    code, _, err = o2s(capsys, *arguments)
    assert code == 2
    assert "no prepared scan 'scene0404_00'" in err


def test_shuffled_scenes_are_of_other_rooms() -> None:
    names = [f"scene{room:04d}_{scan:02d}" for room in range(5) for scan in range(3)]
    partners = running.other_scenes(names, seed=0)
    assert set(partners) == set(names)
    assert all(a.split("_")[0] != b.split("_")[0] for a, b in partners.items())
    assert running.other_scenes(["scene0000_00", "scene0000_01"], seed=0) == {}
    own = ["room_1", "room_2", "room_3"]  # names of someone's own
    partners = running.other_scenes(own, seed=0)
    assert set(partners.values()) == set(own)
    assert all(a != b for a, b in partners.items())


def test_answers_about_scans_that_have_changed_are_not_taken_for_theirs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert o2s(capsys, *run_model(folder, tmp_path / "out"))[0] == 0
    prepared = shutil.copytree(folder / "prepared", tmp_path / "prepared")
    file = prepared / f"{SCENES[0]}.safetensors"
    write_labelled(read_labelled(file), file, made_from="another mesh", notes=())
    arguments = run_model(folder, tmp_path / "out")
    arguments[arguments.index(folder / "prepared")] = prepared
    code, _, err = o2s(capsys, *arguments)
    assert code == 2
    assert "this run was begun with another scans" in err


def test_a_blind_file_of_all_questions_goes_with_a_subset(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = folder / "ScanQA_v1.0_val.json"
    blind = [{"question_id": f"{s}-{n}", "answer": "red"} for s in SCENES for n in range(2)]
    few = json.loads((folder / "answers.json").read_text())[:2]
    files = write(tmp_path / "few.json", few), write(tmp_path / "blind.json", blind)
    asked = ("eval", "qa", files[0], "--reference", reference, "--variant", "leo", "--json")
    code, out, err = o2s(capsys, *asked, "--subset", "--blind", files[1])
    assert code == 0, err
    assert "leo, beside answers without the scene" in json.loads(out)["tables"]
    code, _, err = o2s(capsys, *run_model(folder, tmp_path, "--blind", str(files[1])))
    assert code == 2
    assert "--blind, --shuffled and --subset go with predictions" in err


def test_a_stored_line_of_another_form_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert o2s(capsys, *run_model(folder, tmp_path))[0] == 0
    store = tmp_path / "predictions.jsonl"
    first, *rest = store.read_text().split("\n")
    odd = json.dumps(json.loads(first) | {"answer": "one\u2028two\u0085"}, ensure_ascii=False)
    store.write_text("\n".join([odd, *rest]))
    assert o2s(capsys, *run_model(folder, tmp_path))[0] == 0  # a rare line end ends no line
    for line in ("[1]", '{"question_id": "a"}', "nonsense", '{"question_id": 1, "answer": null}'):
        store.write_text(f"{first}\n{line}\n")
        code, _, err = o2s(capsys, *run_model(folder, tmp_path))
        assert code == 2
        assert "remove the file" in err.strip().splitlines()[-1]
        assert "Traceback" not in err


def test_a_line_cut_within_a_character_is_said_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert o2s(capsys, *run_model(folder, tmp_path))[0] == 0
    store = tmp_path / "predictions.jsonl"
    whole = store.read_bytes()
    store.write_bytes(whole + '{"question_id": "x", "answer": "é'.encode()[:-1])
    assert o2s(capsys, *run_model(folder, tmp_path))[0] == 0
    assert store.read_bytes() == whole


def test_where_no_report_can_be_written_none_is_begun(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "old" / "scores.md").mkdir(parents=True)
    (tmp_path / "old" / "scores.json").write_text("old")
    for out_folder, message in (
        ("file", "is a file"),
        ("file/sub", "is a file"),
        ("old", "scores.md"),
    ):
        code, out, err = o2s(
            capsys,
            *("eval", "qa", folder / "answers.json"),
            *("--reference", folder / "ScanQA_v1.0_val.json", "--out", tmp_path / out_folder),
        )
        assert (code, out) == (2, "")
        assert message in err
        assert len(err.strip().splitlines()) == 1
    assert (tmp_path / "old" / "scores.json").read_text() == "old"


def test_objects_are_chosen_from_the_embedded_classes_where_no_others_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("chair", "table", "unicorn")
    vectors = torch.nn.functional.normalize(torch.randn(3, 1, 384), dim=-1)
    text = tmp_path / "text.safetensors"
    write_text_embeddings(TextEmbeddings(names, (), vectors, "random"), text)
    (tmp_path / "names.txt").write_text("\n".join(names))
    command = (
        *("eval", "zero-shot", "--scenes", prepare_scenes(tmp_path), "--json", "--threads", "1"),
        *("--set", "encoder.point_bert_weights=null", "--set", "encoder.regions.points=64"),
    )
    tables = []
    for more in ([], ["--classes", tmp_path / "names.txt"]):
        code, out, _ = o2s(capsys, *command, "--text", text, *more)
        assert code == 0
        tables.append(json.loads(out)["tables"])
    assert tables[0]
    assert tables[0] == tables[1]
    code, _, message = o2s(capsys, *command, "--text", tmp_path / "missing.safetensors")
    assert code == 2
    assert "missing.safetensors: no such file" in message


def test_without_any_text_the_names_are_those_that_the_region_encoder_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def embed(classes: tuple[str, ...], templates: object, model: str, **_: object) -> object:
        asked.append((classes, model))
        vectors = torch.nn.functional.normalize(torch.randn(len(classes), 1, 384), dim=-1)
        return TextEmbeddings(classes, (), vectors, model)

    monkeypatch.setattr("o2s.evaluate.text_embeddings.embed_classes", embed)
    code, out, _ = o2s(
        capsys,
        *("eval", "zero-shot", "--scenes", prepare_scenes(tmp_path), "--json", "--threads", "1"),
        *("--set", "encoder.regions.points=64"),
    )
    assert code == 0
    assert asked == [(SCAN_CLASSES, "minilm-l6-v2")]
    _, facts = read_region_encoder(PRETRAINED["tiny"])
    assert tuple(facts["classes"]) == SCAN_CLASSES
    assert json.loads(out)["tables"]


@pytest.mark.parametrize(
    "options, says",
    [
        (("--text-model", ""), "--text-model is empty"),
        (("--text-kind", "slip"), "--text-kind says what --text-model is"),
        (("--text", "words", "--config", "ulip1"), "--config, --set, --split and --cut go with"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    options: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, message = o2s(capsys, "eval", "zero-shot", "features.safetensors", *options)
    assert code == 2
    assert says in message


def test_an_overlap_goes_with_boxes(capsys: pytest.CaptureFixture[str]) -> None:
    files = ("said.json", "--reference", "meta.json", "--task", "scienceqa")
    code, _, message = o2s(capsys, "eval", "images", *files, "--iou", "0.9")
    assert code == 2
    assert "--iou goes with --task voc" in message


def test_embedded_classes_may_lie_in_a_file_of_any_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = torch.nn.functional.normalize(torch.randn(3, 1, 384), dim=-1)
    words = TextEmbeddings(("chair", "table", "sofa"), (), vectors, "random")
    write_text_embeddings(words, tmp_path / "text.safetensors")
    text = (tmp_path / "text.safetensors").rename(tmp_path / "text.st")
    code, out, err = o2s(
        capsys,
        *("eval", "zero-shot", "--scenes", prepare_scenes(tmp_path), "--json", "--threads", "1"),
        *("--set", "encoder.point_bert_weights=null", "--set", "encoder.regions.points=64"),
        *("--text", text),
    )
    assert code == 0, err
    assert json.loads(out)["tables"]
