"""The objective of ULIP: InfoNCE with several positives, and the same in one process and in two."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from o2s.alignment import AlignmentConfig, RegionAligner, info_nce
from o2s.point_bert import PointBert, PointBertConfig

SIZE = PointBertConfig(
    channels=3, width=32, depth=1, heads=2, groups=4, neighbours=4, group_width=16, embedding=8
)


def unit(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


def pairs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.eye(rows, dtype=torch.bool), torch.zeros(rows, rows, dtype=torch.bool)


def aligner(config: AlignmentConfig) -> RegionAligner:
    torch.manual_seed(0)
    return RegionAligner(PointBert(SIZE), config).eval()


def batch(rows: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.tensor([0, 1, 0, 2, 3, 1])[:rows]
    texts = unit(4, 2)[ids]
    return {
        "points": torch.randn(rows, 32, 3, generator=generator),
        "texts": texts,
        "images": unit(rows, 3),
        "has_image": torch.tensor([True, True, False, True, False, True])[:rows],
        "text_ids": ids,
        "classes": torch.tensor([0, 1, 0, 1, 2, 1])[:rows],
    }


def reference(
    a: torch.Tensor, b: torch.Tensor, scale: float, positives: torch.Tensor, ignored: torch.Tensor
) -> float:
    """The loss with loops and logarithms of sums."""
    rows, total = len(a), 0.0
    for left, right in ((a, b), (b, a)):
        for i in range(rows):
            shares = {
                j: scale * float(left[i] @ right[j]) for j in range(rows) if not ignored[i, j]
            }
            everything = math.log(sum(math.exp(v) for v in shares.values()))
            mine = [shares[j] - everything for j in range(rows) if positives[i, j]]
            total -= sum(mine) / len(mine)
    return total / (2 * rows)


def test_one_positive_a_row_is_the_cross_entropy_of_both_directions() -> None:
    a, b = unit(5, 0), unit(5, 1)
    logits, truth = 7.0 * a @ b.T, torch.arange(5)
    expected = (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2
    torch.testing.assert_close(info_nce(a, b, torch.tensor(7.0), *pairs(5)), expected)


def test_several_positives_and_ignored_pairs_equal_the_loops() -> None:
    a, b = unit(6, 0), unit(6, 1)
    ids, classes = batch()["text_ids"], batch()["classes"]
    positives = ids[:, None] == ids
    ignored = (classes[:, None] == classes) & ~positives
    assert ignored.any()
    assert positives.sum() > 6
    found = info_nce(a, b, torch.tensor(9.0), positives, ignored)
    assert float(found) == pytest.approx(reference(a, b, 9.0, positives, ignored), rel=1e-5)


def test_the_order_of_a_batch_does_not_matter() -> None:
    model, rows = aligner(AlignmentConfig()), batch()
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    turned = {name: tensor[order] for name, tensor in rows.items()}
    torch.testing.assert_close(model(**rows).loss, model(**turned).loss)


def test_rows_without_an_image_are_not_read() -> None:
    model, rows = aligner(AlignmentConfig()), batch()
    before = model(**rows)
    rows["images"][~rows["has_image"]] = float("nan")
    torch.testing.assert_close(model(**rows).image, before.image)
    rows["has_image"][:] = False
    assert float(model(**rows).image) == 0


def test_the_loss_is_taken_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = aligner(AlignmentConfig(initial_scale=60.0)), batch()
    monkeypatch.setattr(PointBert, "embed", lambda *_: unit(6, 5))
    exact = model(**given)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(**given)
    assert rough.loss.dtype == torch.float32
    assert float(rough.loss.detach()) == float(exact.loss.detach())


def test_weights_add_the_two_halves() -> None:
    rows = batch()
    found = aligner(AlignmentConfig(text_weight=0.3, image_weight=2.0))(**rows)
    torch.testing.assert_close(found.loss, 0.3 * found.text + 2.0 * found.image)
    assert float(aligner(AlignmentConfig(image_weight=0.0))(**rows).image) == 0


def test_masking_drops_other_rows_of_the_class_from_the_negatives() -> None:
    rows = batch()
    masked = aligner(AlignmentConfig(image_weight=0.0))(**rows).loss
    whole = aligner(AlignmentConfig(image_weight=0.0, mask_same_class=False))(**rows).loss
    assert masked < whole


def test_the_scale_is_learned_and_stays_below_its_limit() -> None:
    model = aligner(AlignmentConfig(initial_scale=90.0, largest_scale=100.0))
    assert float(model.scale.detach()) == pytest.approx(90.0)
    model(**batch()).loss.backward()
    assert model.logit_scale.grad is not None
    assert float(model.logit_scale.grad) != 0
    with torch.no_grad():
        model.logit_scale.fill_(50.0)
    assert float(model.scale.detach()) == pytest.approx(100.0)
    model.logit_scale.grad = None
    model(**batch()).loss.backward()
    grad = model.logit_scale.grad
    assert grad is not None
    assert float(grad) != 0  # so that it can come down again


@pytest.mark.parametrize(
    "wrong",
    [{"text_weight": -1.0}, {"text_weight": 0.0, "image_weight": 0.0}, {"initial_scale": 200.0}],
)
def test_a_wrong_objective_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        AlignmentConfig(**wrong)


_TWO = """
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
sys.path.insert(0, {tests!r})
from test_alignment import aligner, batch
from o2s.alignment import AlignmentConfig
from o2s.train.run_folder import leave_together

dist.init_process_group("gloo", init_method="file://{store}", rank={rank}, world_size=2)
torch.set_num_threads(1)
model = DistributedDataParallel(aligner(AlignmentConfig()))
rows = {{name: tensor[3 * {rank} : 3 * {rank} + 3] for name, tensor in batch().items()}}
loss = model(**rows).loss
loss.backward()
if {rank} == 0:
    grads = {{name: p.grad for name, p in model.module.named_parameters()}}
    torch.save({{"loss": loss.detach(), "grads": grads}}, {out!r})
del model, loss  # what is gone cannot hold on to the group's threads at the end
leave_together()
"""


@pytest.mark.slow
def test_two_processes_give_the_loss_and_the_gradients_of_one(tmp_path: Path) -> None:
    out = tmp_path / "found.pt"
    scripts = [
        _TWO.format(
            tests=str(Path(__file__).parent), store=tmp_path / "store", rank=rank, out=str(out)
        )
        for rank in range(2)
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", script], env=environment) for script in scripts
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    found = torch.load(out)
    model = aligner(AlignmentConfig())
    loss = model(**batch()).loss
    loss.backward()
    torch.testing.assert_close(found["loss"], loss.detach())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found["grads"][name], parameter.grad, atol=1e-6, rtol=1e-4)
