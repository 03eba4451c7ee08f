import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from o2s.ops.neighbours import ball_query, group, nearest_neighbours


@st.composite
def queries_and_points(draw) -> tuple[torch.Tensor, torch.Tensor]:
    """Clouds with and without exact ties; queries among the points, off them and none at all."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    batch, size = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 31, 32, 33, 130, 400]))
    points = torch.randn(batch, size, 3, generator=generator)
    kind = draw(st.sampled_from(["random", "lattice", "line", "same", "far"]))
    if kind == "lattice":
        points = (points * 2).round()
    elif kind == "line":
        points = points[..., :1] * torch.tensor([1.0, 0.0, 0.0])
    elif kind == "same":
        points = points[:, :1].expand_as(points)
    elif kind == "far":
        points = points * 0.01 + 1000
    members = torch.randint(size, (draw(st.integers(0, 9)),), generator=generator)
    strangers = torch.randn(batch, draw(st.integers(0, 4)), 3, generator=generator)
    return torch.cat([points[:, members], strangers], dim=1), points


def squared_distances(queries: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    x, y, z = (queries[:, :, None] - points[:, None]).unbind(-1)
    return x * x + y * y + z * z


@settings(deadline=None, max_examples=80)
@given(clouds=queries_and_points(), k=st.sampled_from([1, 2, 7, 32, 33, 64, 500]))
def test_nearest_neighbours_are_a_stable_sort_by_distance(clouds, k):
    queries, points = clouds
    expected = squared_distances(queries, points).argsort(dim=2, stable=True)[..., :k]
    expected = torch.cat([expected, expected[..., :1].expand(-1, -1, k - expected.shape[2])], 2)
    for backend in ("numba", "torch"):
        assert torch.equal(nearest_neighbours(queries, points, k, backend=backend), expected)


@settings(deadline=None, max_examples=80)
@given(
    clouds=queries_and_points(),
    k=st.sampled_from([1, 5, 40]),
    radius=st.sampled_from([0.0, 0.01, 0.5, 1.0, 5.0**0.5, 1e4]),
    order=st.sampled_from(["index", "nearest"]),
)
def test_ball_query_matches_a_plain_loop(clouds, k, radius, order):
    queries, points = clouds
    limit = torch.tensor(radius, dtype=torch.float32).square()
    distances = squared_distances(queries, points)
    for backend in ("numba", "torch"):
        result = ball_query(queries, points, radius, k, order=order, backend=backend)
        assert result.indices.shape == (*queries.shape[:2], k)
        for b in range(len(queries)):
            for m in range(queries.shape[1]):
                hits = (distances[b, m] < limit).nonzero()[:, 0].tolist()
                if order == "nearest":
                    hits.sort(key=distances[b, m].tolist().__getitem__)
                hits = hits[:k]
                padding = hits[:1] or [0]
                assert result.indices[b, m].tolist() == hits + padding * (k - len(hits))
                assert result.counts[b, m] == len(hits)


@pytest.mark.parametrize("order", ["index", "nearest"])
def test_backends_agree_on_a_deep_tree(order):
    points = torch.rand(1, 5000, 3, generator=torch.Generator().manual_seed(0))
    for radius, k in ((0.05, 4), (0.1, 8), (0.2, 32), (0.4, 400)):
        fast, plain = (
            ball_query(points[:, :200], points, radius, k, order=order, backend=backend)
            for backend in ("numba", "torch")
        )
        assert torch.equal(fast.indices, plain.indices)
        assert torch.equal(fast.counts, plain.counts)


def test_a_permutation_of_the_points_permutes_the_neighbours():
    points, queries = torch.randn(1, 3000, 3), torch.randn(1, 50, 3)
    order = torch.randperm(3000)
    before = nearest_neighbours(queries, points, 16)
    after = nearest_neighbours(queries, points[:, order], 16)
    assert torch.equal(order[after], before)


def test_a_point_is_its_own_nearest_neighbour_far_from_the_origin():
    points = torch.rand(1, 500, 3) + 100
    assert torch.equal(nearest_neighbours(points, points, 4)[0, :, 0], torch.arange(500))


def test_the_torch_backend_searches_in_chunks(monkeypatch):
    points = torch.randn(2, 300, 3)
    whole = nearest_neighbours(points, points, 8, backend="torch")
    monkeypatch.setattr("o2s.ops.neighbours._CHUNK", 1000)
    assert torch.equal(nearest_neighbours(points, points, 8, backend="torch"), whole)


def test_the_ball_is_open():
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]])
    result = ball_query(points[:, :1], points, 1.0, 2)
    assert result.counts.tolist() == [[1]]
    assert result.indices.tolist() == [[[0, 0]]]


def test_group_gathers_and_its_gradient_counts_uses():
    features = torch.randn(2, 6, 4, requires_grad=True)
    indices = torch.randint(6, (2, 3, 5))
    grouped = group(features, indices)
    for b in range(2):
        assert torch.equal(grouped[b], features[b][indices[b]])
    grouped.sum().backward()
    uses = torch.stack([row.flatten().bincount(minlength=6) for row in indices])
    assert features.grad is not None
    assert torch.equal(features.grad, uses[..., None].expand(-1, -1, 4).float())


def test_says_what_is_wrong():
    points = torch.rand(1, 5, 3)
    with pytest.raises(ValueError, match="k must be at least 1"):
        nearest_neighbours(points, points, 0)
    with pytest.raises(ValueError, match="no points"):
        ball_query(points, points[:, :0], 0.2, 3)
    with pytest.raises(ValueError, match="finite"):
        nearest_neighbours(points, points / 0, 3)
