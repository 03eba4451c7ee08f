"""One thread (small operations on a busy machine slow down a hundredfold with two), no hub."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from fakes import save_language_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a language model of two random layers with a byte tokenizer."""
    return save_language_model(tmp_path_factory.mktemp("language_model"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first, so that no process waits for one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
