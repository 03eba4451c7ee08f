"""Occupied cells of voxel grids, and which cells a kernel connects.

A cell is one packed 64-bit number that orders as (cloud, x, y, z), and the cells of a grid are kept
sorted: the neighbours in one direction are then found in one sweep (numba on the CPU) or by binary
search (torch, any device). Kernel offsets are in MinkowskiEngine's order, x fastest.
"""

from dataclasses import dataclass, field
from itertools import product

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from o2s.ops.kernels import Backend, as_array, compiled

_BITS = 17  # an axis: cells from -65536 to 65535
_HALF = 1 << (_BITS - 1)
LARGEST = _HALF - 1024  # leaves room for the reach of kernels
_CLOUDS = 1 << 12


@dataclass(frozen=True, eq=False)
class KernelMap:
    """The pairs of cells that each weight of a kernel connects, weight after weight.

    `counts[k]` pairs belong to weight k. Within a weight each cell comes at most once as a source
    and once as a target. `identity` is the weight that maps every cell to itself, if one does.
    """

    sources: Int64[Tensor, "P"]
    targets: Int64[Tensor, "P"]
    counts: tuple[int, ...]
    outputs: int
    identity: int | None = None

    def pairs(self) -> list[tuple[Int64[Tensor, "_"], Int64[Tensor, "_"]]]:
        """Sources and targets of each weight."""
        sources, targets = self.sources.split(self.counts), self.targets.split(self.counts)
        return list(zip(sources, targets, strict=True))


@dataclass(frozen=True, eq=False)
class Grid:
    """The occupied cells of a batch of clouds, `stride` apart.

    `keys` are sorted and distinct. Kernel maps are kept once they are built, for the other layers
    on the same grid.
    """

    keys: Int64[Tensor, "V"]
    stride: int
    clouds: int
    _grids: dict[int, "Grid"] = field(default_factory=dict, init=False, repr=False)
    _maps: dict[tuple[int, "Grid", Backend], KernelMap] = field(
        default_factory=dict, init=False, repr=False
    )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def coordinates(self) -> Int64[Tensor, "V 3"]:
        """The cells as whole numbers of the finest cells; multiples of `stride`."""
        mask = (1 << _BITS) - 1
        shifts = torch.tensor([2 * _BITS, _BITS, 0], device=self.keys.device)
        return (self.keys[:, None] >> shifts & mask) - _HALF

    @property
    def cloud(self) -> Int64[Tensor, "V"]:
        """Which cloud of the batch each cell belongs to."""
        return self.keys >> 3 * _BITS

    def coarser(self, factor: int) -> "Grid":
        """The cells that hold these, `factor` times as wide."""
        if factor not in self._grids:
            stride = self.stride * factor
            cells = torch.div(self.coordinates, stride, rounding_mode="floor") * stride
            keys = torch.unique(_pack(self.cloud, cells))
            self._grids[factor] = Grid(keys, stride, self.clouds)
        return self._grids[factor]

    def spread(self, kernel_size: int, factor: int) -> "Grid":
        """All finer cells that a transposed kernel reaches from these: the generative grid.

        Raises:
            ValueError: the stride is no multiple of `factor`.
        """
        if self.stride % factor:
            raise ValueError(f"a grid of stride {self.stride} cannot be refined by {factor}")
        fine = self.stride // factor
        steps = _key_steps(kernel_size, fine).to(self.keys.device)
        keys = torch.unique((self.keys[:, None] + steps).flatten())
        return Grid(keys, fine, self.clouds)

    def kernel_map(self, outputs: "Grid", kernel_size: int, backend: Backend = "auto") -> KernelMap:
        """Which of these cells a kernel around each cell of `outputs` reads.

        The kernel's steps are as wide as these cells; odd kernels are centred, even ones begin at
        the cell itself.
        """
        name = (kernel_size, outputs, backend)
        if name not in self._maps:
            self._maps[name] = _kernel_map(self, outputs, kernel_size, backend)
        return self._maps[name]


def occupied(
    cells: Int64[Tensor, "N 3"], cloud: Int64[Tensor, "N"], clouds: int
) -> tuple[Grid, Int64[Tensor, "N"]]:
    """The grid of stride 1 of some cells, which may repeat, and the place of each of them in it.

    Raises:
        ValueError: a cell or cloud out of range.
    """
    if len(cells) and int(cells.abs().max()) > LARGEST:
        raise ValueError(f"a cell is {int(cells.abs().max())} from the origin, expected {LARGEST}")
    if clouds > _CLOUDS:
        raise ValueError(f"{clouds} clouds in a batch, expected at most {_CLOUDS}")
    keys, inverse = torch.unique(_pack(cloud, cells), return_inverse=True)
    return Grid(keys, 1, clouds), inverse


def union(a: Grid, b: Grid) -> tuple[Grid, Int64[Tensor, "A"], Int64[Tensor, "B"]]:
    """The cells of either grid, and where those of each are in it.

    Raises:
        ValueError: grids of different strides or batches.
    """
    if (a.stride, a.clouds) != (b.stride, b.clouds):
        raise ValueError(
            f"grids of strides {a.stride}, {b.stride} and {a.clouds}, {b.clouds} clouds"
        )
    keys = torch.unique(torch.cat([a.keys, b.keys]))
    places = (torch.searchsorted(keys, a.keys), torch.searchsorted(keys, b.keys))
    return Grid(keys, a.stride, a.clouds), *places


def _pack(cloud: Int64[Tensor, "N"], cells: Int64[Tensor, "N 3"]) -> Int64[Tensor, "N"]:
    x, y, z = (cells + _HALF).unbind(1)
    return ((cloud << _BITS | x) << _BITS | y) << _BITS | z


def _key_steps(kernel_size: int, width: int) -> Int64[Tensor, "K"]:
    """What each offset of a kernel adds to a key, x fastest; `width` is one step."""
    first = -(kernel_size // 2) if kernel_size % 2 else 0
    steps = range(first, first + kernel_size)
    return torch.tensor(
        [
            ((x * width << 2 * _BITS) + (y * width << _BITS) + z * width)
            for z, y, x in product(steps, repeat=3)
        ]
    )


def _kernel_map(inputs: Grid, outputs: Grid, kernel_size: int, backend: Backend) -> KernelMap:
    steps = _key_steps(kernel_size, inputs.stride)
    same = inputs is outputs and kernel_size % 2 == 1
    on_cpu = inputs.keys.device.type == "cpu"
    if backend == "numba" or (backend == "auto" and on_cpu):
        found = _match(as_array(inputs.keys), as_array(outputs.keys), as_array(steps))
        sources, targets, counts = (torch.from_numpy(array) for array in found)
    else:
        sources, targets, counts = _match_by_search(inputs.keys, outputs.keys, steps)
    identity = kernel_size**3 // 2 if same else None
    return KernelMap(sources, targets, tuple(counts.tolist()), len(outputs), identity)


def _match_by_search(
    inputs: Int64[Tensor, "V"], outputs: Int64[Tensor, "W"], steps: Int64[Tensor, "K"]
) -> tuple[Int64[Tensor, "P"], Int64[Tensor, "P"], Int64[Tensor, "K"]]:
    sources, targets, counts = [], [], []
    for step in steps.tolist():
        wanted = outputs + step
        place = torch.searchsorted(inputs, wanted).clamp(max=max(len(inputs) - 1, 0))
        hit = inputs[place] == wanted if len(inputs) else torch.zeros_like(wanted, dtype=torch.bool)
        sources.append(place[hit])
        targets.append(hit.nonzero()[:, 0])
        counts.append(len(sources[-1]))
    return torch.cat(sources), torch.cat(targets), torch.tensor(counts)


@compiled
def _match(inputs, outputs, steps):
    """For each step the pairs with inputs[source] == outputs[target] + step; both are sorted."""
    counts = np.zeros(len(steps), np.int64)
    capacity = 8 * (len(outputs) + 1)
    sources, targets = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
    filled = 0
    for k in range(len(steps)):
        if capacity - filled < len(outputs):
            capacity += 8 * (len(outputs) + 1)
            more = np.empty(capacity, np.int64)
            more[:filled] = sources[:filled]
            sources = more
            more = np.empty(capacity, np.int64)
            more[:filled] = targets[:filled]
            targets = more
        begin, i = filled, 0
        for target in range(len(outputs)):
            wanted = outputs[target] + steps[k]
            while i < len(inputs) and inputs[i] < wanted:
                i += 1
            if i == len(inputs):
                break
            if inputs[i] == wanted:
                sources[filled], targets[filled] = i, target
                filled += 1
        counts[k] = filled - begin
    return sources[:filled].copy(), targets[:filled].copy(), counts
