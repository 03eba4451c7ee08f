"""Sparse convolution on one CPU thread, ours against spconv: `python benchmarks/sparse_conv.py`.

Surfaces of a furnished room as cells, 64 channels, kernel of 3 x 3 x 3. Both compute the same
convolution, which is checked first; the script fails if they differ. Times are the best of several
runs in milliseconds of wall time; the ratio is ours over spconv's. spconv (2.3.8, from PyPI) takes
part if it is installed; its backward asks for a CUDA stream, which is answered with 0.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from point_ops import best_time, scan_room
from rich.console import Console
from rich.table import Table

from o2s.ops.sparse_conv import SparseConv, SparseTensor, sparse_tensor

CHANNELS = 64


def main() -> None:
    torch.set_num_threads(1)
    console = Console()
    with_peer = importlib.util.find_spec("spconv") is not None
    if not with_peer:
        console.print("spconv is not installed: its columns are left out")
    table = Table("cells", "what", "ours ms", "spconv ms", "ratio")
    for count in (77_000, 146_000):
        ours = Ours(room_cells(count))
        peer = Spconv(ours) if with_peer else None
        if peer is not None:
            check(ours, peer)
        for what in ("forward", "forward, with the map", "forward and backward", "all"):
            mine = best_time(ours.run(what))
            if peer is None:
                table.add_row(f"{count:,}", what, f"{mine:.0f}", "", "")
                continue
            yours = best_time(peer.run(what))
            cells = (f"{mine:.0f}", f"{yours:.0f}", f"{mine / yours:.2f}")
            table.add_row(f"{count:,}", what, *cells)
    console.print(table)


def room_cells(count: int) -> SparseTensor:
    """A room's surfaces as `count` cells of 1.5 cm with random features."""
    cells = (scan_room(3_000_000, seed=0) / 0.015).floor().long()
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(len(cells), CHANNELS, generator=generator)
    found = sparse_tensor(cells, torch.zeros(len(cells)).long(), features, 1)
    assert len(found.grid) > count, len(found.grid)
    # A part of the room, so that neighbours stay together.
    nearest = found.grid.coordinates.float().sub(150).norm(dim=1).argsort()[:count].sort().values
    kept = found.grid.coordinates[nearest]
    return sparse_tensor(kept, torch.zeros(count).long(), found.features[nearest], 1)


class Ours:
    """A layer of ours on some cells."""

    def __init__(self, cells: SparseTensor) -> None:
        torch.manual_seed(0)
        self.cells = cells
        self.layer = SparseConv(CHANNELS, CHANNELS, 3)
        self.features = cells.features.clone().requires_grad_()

    def output(self, *, new: bool = False) -> torch.Tensor:
        """[V, D]; `new` finds the pairs of cells anew."""
        if new:
            self.cells.grid._maps.clear()
        return self.layer(SparseTensor(self.features, self.cells.grid)).features

    def run(self, what: str) -> Callable[[], Any]:
        """What is timed."""
        return timed(self.output, what)


class Spconv:
    """The same layer of spconv's on the same cells."""

    def __init__(self, ours: Ours) -> None:
        self.module: Any = importlib.import_module("spconv.pytorch")
        operations: Any = importlib.import_module("spconv.pytorch.ops")
        operations.get_current_stream = lambda: 0
        self.layer = self.module.SubMConv3d(CHANNELS, CHANNELS, 3, bias=False, indice_key="cells")
        kernel = ours.layer.kernel.detach().reshape(3, 3, 3, CHANNELS, CHANNELS)
        with torch.no_grad():
            self.layer.weight.copy_(kernel.permute(4, 0, 1, 2, 3))
        coordinates = ours.cells.grid.coordinates
        low = coordinates.amin(dim=0)
        places = (coordinates - low).flip(1).int()
        self.indices = torch.cat([torch.zeros(len(places), 1).int(), places], dim=1).contiguous()
        self.shape = places.amax(dim=0).add(1).tolist()
        self.features = ours.cells.features.clone().requires_grad_()
        self.known: dict[str, Any] = {}

    def output(self, *, new: bool = False) -> torch.Tensor:
        """As `Ours.output`."""
        tensor = self.module.SparseConvTensor(self.features, self.indices, self.shape, 1)
        if not new:
            tensor.indice_dict.update(self.known)
        found = self.layer(tensor)
        self.known = dict(found.indice_dict)
        return found.features

    def run(self, what: str) -> Callable[[], Any]:
        """As `Ours.run`."""
        return timed(self.output, what)


def timed(output: Callable[..., torch.Tensor], what: str) -> Callable[[], Any]:
    """A call of one kind of work."""
    new = what in ("forward, with the map", "all")

    def forward() -> None:
        with torch.no_grad():
            output(new=new)

    def both() -> None:
        found = output(new=new)
        found.backward(torch.ones_like(found))

    return forward if what.startswith("forward") and "back" not in what else both


def check(ours: Ours, peer: Spconv) -> None:
    """Fails unless both give the same outputs and gradients."""
    results = []
    for one in (ours, peer):
        found = one.output(new=True)
        found.backward(torch.ones_like(found).cumsum(dim=1) / CHANNELS)
        results.append((found.detach(), one.features.grad))
        weight = one.layer.kernel if one is ours else one.layer.weight
        results[-1] += (weight.grad,)
    (a, b, c), (d, e, f) = results
    torch.testing.assert_close(a, d, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(b, e, atol=1e-3, rtol=1e-3)
    f = f.permute(1, 2, 3, 4, 0).reshape(27, CHANNELS, CHANNELS)
    torch.testing.assert_close(c, f, atol=5e-2, rtol=1e-3)


if __name__ == "__main__":
    main()
