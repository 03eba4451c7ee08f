"""The compiled CPU backend of sampling and neighbour search: one bounding-volume tree for both.

Points are sorted along a Morton curve and cut into leaves of `LEAF` points; a complete binary tree
of bounding boxes stands over them. Everything is exact. Distances are (dx*dx + dy*dy) + dz*dz in
float32, and rounding is monotone, so the same formula on the nearest point of a box never exceeds
the distance of any point inside: pruning needs no safety margin. Because non-negative floats
order like their bit patterns, ties are settled on integers.
"""

import inspect
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numba import njit
from torch import Tensor

Backend = Literal["auto", "torch", "numba"]

LEAF = 32  # a multiple of the widest vector register, so that the loops over a leaf vectorise
_LAST_KEY = np.int64(2**63 - 1)
NOBODY = np.int32(2**31 - 1)  # the index in slots that hold no point


def uses_numba(backend: Backend, *clouds: Tensor) -> bool:
    """Whether the compiled backend runs: when asked for, or on "auto" for tensors on the CPU.

    Raises TypeError for coordinates that are not float32, ValueError for those that are not finite
    and for "numba" off the CPU.
    """
    on_cpu = all(cloud.device.type == "cpu" for cloud in clouds)
    if backend == "numba" and not on_cpu:
        raise ValueError('backend "numba" needs tensors on the CPU')
    for cloud in clouds:
        if cloud.dtype != torch.float32:
            raise TypeError(f"coordinates must be float32, not {cloud.dtype}")
        if not cloud.isfinite().all():
            raise ValueError("coordinates must be finite, found NaN or infinity")
    return on_cpu if backend == "auto" else backend == "numba"


def as_array(tensor: Tensor) -> np.ndarray:
    """The tensor's memory as a contiguous array, so that each kernel is compiled only once."""
    return tensor.detach().contiguous().numpy()


def compiled(function: Callable) -> Callable:
    """Compile with numba, cached on disk and without the GIL.

    Never with fastmath, whose fused and reordered sums would differ from the torch backend's.
    """
    function = inspect.unwrap(function)  # the tests wrap all functions in a shape checker
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba finds no folder that it can write its cache to
        return njit(nogil=True)(function)


@compiled
def _spread(value):
    """Put two zero bits after each of the ten bits of `value`."""
    value = (value | (value << 16)) & 0x030000FF
    value = (value | (value << 8)) & 0x0300F00F
    value = (value | (value << 4)) & 0x030C30C3
    return (value | (value << 2)) & 0x09249249


@compiled
def _morton_order(cloud, members):
    """The rows `members` of `cloud` in the order of a Morton curve, by radix sort."""
    if len(members) == 0:
        return members
    low, high = cloud[members[0]].copy(), cloud[members[0]].copy()
    for member in members:
        for axis in range(3):
            low[axis] = min(low[axis], cloud[member, axis])
            high[axis] = max(high[axis], cloud[member, axis])
    extent = 0.0
    for axis in range(3):
        extent = max(extent, np.float64(high[axis]) - np.float64(low[axis]))
    scale = 1023 / extent if extent > 0 else 0.0

    keys, spare = np.empty(len(members), np.int64), np.empty(len(members), np.int64)
    for i in range(len(members)):
        code = 0
        for axis in range(3):
            cell = (np.float64(cloud[members[i], axis]) - np.float64(low[axis])) * scale
            code |= _spread(np.int64(cell)) << (2 - axis)
        keys[i] = code << 32 | members[i]
    for shift in (32, 42, 52):
        place = np.zeros(1025, np.int64)
        for key in keys:
            place[((key >> shift) & 1023) + 1] += 1
        for digit in range(1024):
            place[digit + 1] += place[digit]
        for key in keys:
            digit = (key >> shift) & 1023
            spare[place[digit]] = key
            place[digit] += 1
        keys, spare = spare, keys
    return keys & 0xFFFFFFFF


@compiled
def _build_tree(cloud, members):
    """Coordinates [leaves, 3, LEAF], indices [leaves, LEAF]; box and lowest index of each node.

    Node 1 is the root, nodes 2i and 2i + 1 are the children of node i, and leaf l is node
    width + l, where width is half the number of nodes. Unused slots lie at infinity.
    """
    order = _morton_order(cloud, members)
    leaves = (len(order) + LEAF - 1) // LEAF
    width = 1
    while width < leaves:
        width *= 2
    coordinates = np.full((leaves, 3, LEAF), np.float32(np.inf), np.float32)
    indices = np.full((leaves, LEAF), NOBODY, np.int32)
    boxes = np.full((2 * width, 6), np.float32(np.inf), np.float32)
    boxes[:, 3:] = -np.inf
    lowest = np.full(2 * width, NOBODY, np.int32)
    for i in range(len(order)):
        leaf, slot = i // LEAF, i % LEAF
        node = width + leaf
        indices[leaf, slot] = order[i]
        lowest[node] = min(lowest[node], np.int32(order[i]))
        for axis in range(3):
            value = cloud[order[i], axis]
            coordinates[leaf, axis, slot] = value
            boxes[node, axis] = min(boxes[node, axis], value)
            boxes[node, axis + 3] = max(boxes[node, axis + 3], value)
    for node in range(width - 1, 0, -1):
        left, right = 2 * node, 2 * node + 1
        lowest[node] = min(lowest[left], lowest[right])
        for axis in range(3):
            boxes[node, axis] = min(boxes[left, axis], boxes[right, axis])
            boxes[node, axis + 3] = max(boxes[left, axis + 3], boxes[right, axis + 3])
    return coordinates, indices, boxes, lowest


@compiled
def _box_distance(box, x, y, z):
    """Squared distance to the box; no point in the box is nearer, rounding included."""
    zero = np.float32(0)
    dx = max(box[0] - x, x - box[3], zero)
    dy = max(box[1] - y, y - box[4], zero)
    dz = max(box[2] - z, z - box[5], zero)
    return dx * dx + dy * dy + dz * dz


@compiled
def farthest_points(clouds, allowed, count, start):
    """Farthest point sampling of clouds [B, N, 3] among the `allowed` [B, N] points.

    Every node keeps the farthest point below it and that point's distance to the sample. A new
    sample descends only into boxes which are nearer to it than their farthest point is to the
    older samples: anywhere else no distance can shrink.
    """
    picked = np.zeros((len(clouds), count), np.int64)
    for batch in range(len(clouds)):
        cloud, row = clouds[batch], picked[batch]
        row[0] = start
        members = np.flatnonzero(allowed[batch])
        if len(members) == 0:
            continue
        coordinates, indices, boxes, lowest = _build_tree(cloud, members)
        width = len(lowest) // 2
        distances = np.full(indices.shape, np.float32(np.inf), np.float32)
        most, farthest = np.full(2 * width, np.float32(np.inf), np.float32), lowest.copy()
        for slot in range(LEAF):
            if indices[-1, slot] == NOBODY:
                distances[-1, slot] = 0
        for node in range(2 * width):
            if lowest[node] == NOBODY:
                most[node] = 0
        visited = np.empty(2 * width, np.int32)
        for sample in range(1, count):
            x, y, z = cloud[row[sample - 1]]
            visited[0] = 1
            head, end = 0, np.int64(_box_distance(boxes[1], x, y, z) < most[1])
            while head < end:
                node = visited[head]
                head += 1
                if node >= width:
                    leaf = node - width
                    most[node], farthest[node] = _shrink(
                        coordinates[leaf], indices[leaf], distances[leaf], x, y, z
                    )
                else:
                    for child in (2 * node, 2 * node + 1):
                        if _box_distance(boxes[child], x, y, z) < most[child]:
                            visited[end] = child
                            end += 1
            for i in range(end - 1, -1, -1):
                if visited[i] < width:
                    best, other = 2 * visited[i], 2 * visited[i] + 1
                    tie = most[other] == most[best] and farthest[other] < farthest[best]
                    if most[other] > most[best] or tie:
                        best = other
                    most[visited[i]], farthest[visited[i]] = most[best], farthest[best]
            row[sample] = farthest[1]
    return picked


@compiled
def _shrink(coordinates, indices, distances, x, y, z):
    """Lower one leaf's distances to a new sample; the largest left and its lowest index."""
    xs, ys, zs = coordinates[0], coordinates[1], coordinates[2]
    for i in range(LEAF):
        dx, dy, dz = xs[i] - x, ys[i] - y, zs[i] - z
        distance = dx * dx + dy * dy + dz * dz
        distances[i] = distance if distance < distances[i] else distances[i]
    bits = distances.view(np.int32)  # a maximum over integers vectorises, over floats it does not
    most = np.int32(0)
    for i in range(LEAF):
        most = max(most, bits[i])
    index = NOBODY
    for i in range(LEAF):
        index = min(index, indices[i] if bits[i] == most else NOBODY)
    return np.int32(most).view(np.float32), index


@compiled
def search(queries, clouds, limit, k, by_index):
    """The first k points nearer than the squared distance `limit`, for each query [B, M, 3].

    First by (distance, index) or, `by_index`, by index alone. Returns indices [B, M, k], padded
    with the first (0 where there is none), and how many were found [B, M]. Best-first: a heap
    holds the nodes still to visit in the order of what they can yield at best.
    """
    batches, rows = queries.shape[:2]
    found, counts = np.zeros((batches, rows, k), np.int64), np.zeros((batches, rows), np.int64)
    keys = np.empty(k + LEAF, np.int64)  # rank in the upper half, index in the lower
    distances = np.empty(LEAF, np.float32)
    bits = distances.view(np.int32)
    for batch in range(batches):
        cloud = clouds[batch]
        coordinates, indices, boxes, lowest = _build_tree(cloud, np.arange(len(cloud)))
        width = len(lowest) // 2
        heap = np.empty(2 * width, np.int64)
        for row in _morton_order(queries[batch], np.arange(rows)):  # neighbours share the cache
            x, y, z = queries[batch, row]
            count, worst = 0, _LAST_KEY
            heap[0], size = 1, 1
            while size and heap[0] >> 32 <= worst >> 32:
                node = heap[0] & 0xFFFFFFFF
                size = _pop(heap, size)
                bound = np.float32(0)
                while node < width and bound < limit:
                    node, other = 2 * node, 2 * node + 1
                    bound = _box_distance(boxes[node], x, y, z)
                    other_bound = _box_distance(boxes[other], x, y, z)
                    swap = lowest[other] < lowest[node] if by_index else other_bound < bound
                    if swap:
                        node, other, bound, other_bound = other, node, other_bound, bound
                    if other_bound < limit:
                        rank = lowest[other] if by_index else _bits(other_bound)
                        size = _push(heap, size, np.int64(rank) << 32 | other)
                if not bound < limit:
                    continue
                leaf = node - width
                xs, ys, zs = coordinates[leaf, 0], coordinates[leaf, 1], coordinates[leaf, 2]
                for i in range(LEAF):
                    dx, dy, dz = xs[i] - x, ys[i] - y, zs[i] - z
                    distances[i] = dx * dx + dy * dy + dz * dz
                for i in range(LEAF):
                    rank = indices[leaf, i] if by_index else bits[i]
                    keys[count] = np.int64(rank) << 32 | indices[leaf, i]
                    count += np.int64((distances[i] < limit) & (keys[count] < worst))  # no branch
                if count > k:
                    worst = _select(keys, count, k)
                    count = k
            keys[:count].sort()
            counts[batch, row] = count
            for i in range(k if count else 0):
                found[batch, row, i] = keys[i if i < count else 0] & 0xFFFFFFFF
    return found, counts


@compiled
def _bits(distance):
    return np.float32(distance).view(np.int32)


@compiled
def _push(heap, size, key):
    """Add to a binary heap whose smallest key comes first; its new size."""
    i = size
    while i > 0 and heap[(i - 1) // 2] > key:
        heap[i] = heap[(i - 1) // 2]
        i = (i - 1) // 2
    heap[i] = key
    return size + 1


@compiled
def _pop(heap, size):
    """Take the smallest key off a binary heap; its new size."""
    key = heap[size - 1]
    i, child = 0, 1
    while child < size - 1:
        if child + 1 < size - 1 and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[i] = heap[child]
        i, child = child, 2 * child + 1
    heap[i] = key
    return size - 1


@compiled
def _select(keys, count, k):
    """Move the k smallest of the first `count` keys to the front, return the largest of them."""
    low, last = 0, count - 1
    while low < last:
        middle = (low + last) // 2
        pivot = keys[middle]
        keys[middle], keys[last] = keys[last], pivot
        split = low
        for i in range(low, last):  # keys are random: no branch is cheaper than a wrong guess
            key = keys[i]
            keys[i], keys[split] = keys[split], key
            split += np.int64(key < pivot)
        keys[split], keys[last] = pivot, keys[split]
        if split == k - 1:
            break
        if split < k - 1:
            low = split + 1
        else:
            last = split - 1
    return keys[k - 1]
