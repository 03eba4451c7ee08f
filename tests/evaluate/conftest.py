"""What the tests of `o2s eval` share: a benchmark on made-up scans, and a tiny model."""

from pathlib import Path

import pytest
from benchmark_fake import SCENES, write_benchmark
from fakes import small_recipe
from scannet_fake import write_download

from o2s.llm.answering import SceneAnswerer


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, language_model: str) -> Path:
    """Prepared scans, a tiny saved model, questions and descriptions with right predictions."""
    root = tmp_path_factory.mktemp("evaluation")
    write_benchmark(write_download(root / "raw", {"val": SCENES}), root)
    SceneAnswerer.build(small_recipe(language_model)).save(root / "model")
    return root
