"""The one line of a mistake, from wherever it comes."""

import pytest
from torch.utils.data import DataLoader, Dataset

from o2s.errors import InputError


class Damaged(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise InputError("room.ply: holds no points; expected a scan")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_worker_of_a_data_loader_says_the_same(workers: int) -> None:
    with pytest.raises(InputError) as caught:
        next(iter(DataLoader(Damaged(), num_workers=workers)))
    assert str(caught.value) == "room.ply: holds no points; expected a scan"
