import numba
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from o2s.ops import kernels
from o2s.ops.sampling import farthest_point_sample, resample


@st.composite
def clouds(draw) -> torch.Tensor:
    """Batches of clouds: random, with many exact ties, flat, repeated, far away, or one point."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    batch, size = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 31, 32, 33, 65, 300]))
    points = torch.randn(batch, size, 3, generator=generator)
    kind = draw(st.sampled_from(["random", "lattice", "line", "same", "far", "outlier"]))
    if kind == "lattice":
        points = (points * 2).round()
    elif kind == "line":
        points = points[..., :1] * torch.tensor([1.0, 2.0, -1.0])
    elif kind == "same":
        points = points[:, :1].expand_as(points)
    elif kind == "far":
        points = points * 0.01 + 1000
    elif kind == "outlier":
        points = torch.cat([points[:, 1:], torch.full((batch, 1, 3), 1e6)], dim=1)
    return points


@settings(deadline=None, max_examples=120)
@given(points=clouds(), data=st.data(), skip=st.booleans())
def test_backends_agree(points, data, skip):
    count = data.draw(st.integers(1, points.shape[1] + 3))
    start = data.draw(st.integers(0, points.shape[1] - 1))
    fast, plain = (
        farthest_point_sample(
            points, count, start=start, skip_near_origin=skip, backend=backend
        ).tolist()
        for backend in ("numba", "torch")
    )
    assert fast == plain


def test_matches_the_definition():
    points = torch.randn(1, 50, 3)
    picked = farthest_point_sample(points, 20, start=7)[0].tolist()
    assert picked[0] == 7
    for i in range(1, 20):
        gaps = torch.cdist(points[0].double(), points[0, picked[:i]].double()).amin(dim=1)
        assert picked[i] == int(gaps.argmax())


def test_every_prefix_is_a_sampling_and_coverage_never_grows():
    points = torch.rand(2, 2000, 3)
    picked = farthest_point_sample(points, 100)
    assert torch.equal(farthest_point_sample(points, 40), picked[:, :40])
    assert all(len(set(row)) == 100 for row in picked.tolist())
    samples = points.gather(1, picked[..., None].expand(-1, -1, 3))
    radius = torch.cdist(points, samples).cummin(dim=2).values.amax(dim=1)
    assert (radius.diff(dim=1) <= 0).all()


def test_a_batch_equals_its_members():
    points = torch.randn(3, 200, 3)
    alone = [farthest_point_sample(cloud[None], 30) for cloud in points]
    assert torch.equal(farthest_point_sample(points, 30), torch.cat(alone))


def test_ties_go_to_the_lowest_index_and_index_0_repeats_when_positions_run_out():
    square = torch.tensor([[[1.0, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]]])
    assert farthest_point_sample(square, 6, start=3).tolist() == [[3, 0, 1, 2, 0, 0]]


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_points_near_the_origin_are_skipped_only_on_request(backend):
    points = torch.tensor([[[0.0, 0, 0], [0.01, 0, 0], [1, 0, 0], [0, 1, 0]]])
    every = farthest_point_sample(points, 4, backend=backend)
    far = farthest_point_sample(points, 4, skip_near_origin=True, backend=backend)
    assert set(every[0].tolist()) == {0, 1, 2, 3}
    assert far.tolist() == [[0, 2, 3, 2]]
    nowhere = farthest_point_sample(points[:, :2], 3, skip_near_origin=True, start=1)
    assert nowhere.tolist() == [[1, 0, 0]]


def test_says_what_is_wrong():
    points = torch.rand(1, 5, 3)
    with pytest.raises(ValueError, match="count must be at least 1"):
        farthest_point_sample(points, 0)
    with pytest.raises(ValueError, match="one of 5 points, not 5"):
        farthest_point_sample(points, 2, start=5)
    with pytest.raises(ValueError, match="of 0 points"):
        farthest_point_sample(points[:, :0], 2)
    with pytest.raises(ValueError, match="finite"):
        farthest_point_sample(points.log() * 0 / 0, 2)
    with pytest.raises(ValueError, match="on the CPU"):
        kernels.uses_numba("numba", torch.empty(0, 3, device="meta"))
    with pytest.raises(TypeError, match="float32, not"):
        kernels.uses_numba("auto", points.double())


def test_kernels_work_where_no_cache_can_be_written(monkeypatch):
    def no_locator(*args, **options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return numba.njit(*args, **options)

    monkeypatch.setattr(kernels, "njit", no_locator)
    assert kernels.compiled(lambda x: x + 1)(1) == 2


@given(size=st.integers(1, 50), count=st.integers(0, 80), seed=st.integers(0, 2**40))
@settings(deadline=None, max_examples=50)
def test_resample_repeats_only_for_want_of_points(size, count, seed):
    index = resample(size, count, seed)
    assert len(index) == count
    assert ((index >= 0) & (index < size)).all()
    assert len(index.unique()) == min(size, count)
    assert torch.equal(index, resample(size, count, seed))


def test_resample_depends_on_the_seed_and_needs_a_point():
    assert not torch.equal(resample(100, 10, 0), resample(100, 10, 1))
    with pytest.raises(ValueError, match="of 0 points"):
        resample(0, 4, 0)
