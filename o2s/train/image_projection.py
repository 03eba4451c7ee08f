"""Fitting the projection of the small image tower: locked-tower alignment.

    images -> EfficientNet-lite0, frozen, cached   [V, 1280] -> the projection [V, 384]
    names  -> MiniLM, frozen, cached                            [V, 384]
    loss = InfoNCE between the two, as in `o2s.alignment`

Both towers stay as they are, a linear layer learns to bring images to the texts: Zhai et al., CVPR
2022 (arXiv 2111.07991), with frozen texts as there and a frozen network as well.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from o2s.alignment import info_nce, limited_scale
from o2s.datasets.triplets import TripletSource
from o2s.errors import InputError
from o2s.files import replacing
from o2s.towers import text_tower
from o2s.towers.small import FEATURE_WIDTH, image_features
from o2s.train.region_recipe import (
    RegionRecipe,
    Step,
    embed_files,
    embed_texts,
    open_splits,
)
from o2s.train.regions import top_k

FEATURES = "efficientnet-lite0-features"  # the name of their cache


@dataclass(frozen=True)
class ImageTextPairs(Dataset[dict[str, Tensor]]):
    """Features of images, each with the numbers of the texts that fit it and of its class."""

    features: Float32[Tensor, "V 1280"]
    texts: Sequence[Sequence[int]]
    classes: Int64[Tensor, "V"]

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        choices = self.texts[index]
        text = choices[int(torch.randint(len(choices), ()))]
        return {
            "features": self.features[index],
            "text_ids": torch.tensor(text),
            "classes": self.classes[index],
        }


class ImageProjection(nn.Module):
    """A linear layer with dropout on the features, against fixed vectors of texts."""

    def __init__(self, vectors: Float32[Tensor, "M E"], *, dropout: float = 0.2) -> None:
        super().__init__()
        self.vectors = vectors
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(FEATURE_WIDTH, vectors.shape[1])
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(
        self,
        features: Float32[Tensor, "B 1280"],
        text_ids: Int64[Tensor, "B"],
        classes: Int64[Tensor, "B"],
    ) -> dict[str, Tensor]:
        """The loss; rows of one text are positives, other rows of one class are left out."""
        images = F.normalize(self.projection(self.dropout(features)), dim=-1)
        texts = self.vectors[text_ids]
        positives = text_ids[:, None] == text_ids
        ignored = (classes[:, None] == classes) & ~positives
        scale = limited_scale(self.logit_scale, 100.0)
        return {"loss": info_nce(images, texts, scale, positives, ignored)}


def fit_image_projection(
    recipe: RegionRecipe, path: Path, step: Step, *, trust_pickle: bool = False
) -> dict[str, float]:
    """Fit the projection on the images of a recipe's train split and write it.

    Args:
        recipe: its data, cache and seed are used.
        path: a .safetensors file with `weight` [384, 1280] and `bias` [384].
        step: draws lines of progress.
        trust_pickle: let the text tower's checkpoint run code (`weights.load_checkpoint`).

    Returns:
        how often the right class name is the nearest to an image of val and among the nearest five,
        each also averaged over classes, and the number of images.

    Raises:
        InputError: data that cannot be read, or without images.
    """
    cache = Path(recipe.data.cache)
    sources, said, everything = open_splits(recipe.data, step)
    words = embed_texts(
        everything, text_tower(recipe.towers, trust_pickle=trust_pickle), cache, step
    )
    pairs = {
        split: read_pairs(found, list(said), words.number, cache, step)
        for split, found in sources.items()
    }
    torch.manual_seed(recipe.optimisation.seed)
    model = ImageProjection(words.vectors)
    arguments = TrainingArguments(
        output_dir=str(cache / "image_projection"),
        num_train_epochs=30,
        per_device_train_batch_size=256,
        learning_rate=1e-3,
        weight_decay=0.1,
        lr_scheduler_type="cosine",
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        remove_unused_columns=False,
        disable_tqdm=True,
        logging_strategy="no",
        seed=recipe.optimisation.seed,
    )
    with step("fitting the projection"):
        Trainer(model, arguments, train_dataset=pairs["train"]).train()
    class_texts = words.vectors[[words.number[text] for text in said.values()]]
    scores = retrieval(model.eval(), pairs["val"], class_texts)
    state = {n: t.detach().half().contiguous() for n, t in model.projection.state_dict().items()}
    with replacing(path) as temporary:
        save_file(state, temporary)
    return scores


def read_pairs(
    sources: Sequence[TripletSource],
    names: Sequence[str],
    number: Mapping[str, int],
    cache: Path,
    step: Step,
) -> ImageTextPairs:
    """The images of the sources with their features and the texts of their objects.

    Raises:
        InputError: there are no images.
    """
    texts: dict[Path, list[int]] = {}
    classes: dict[Path, int] = {}
    for source in sources:
        for i in range(len(source)):
            for path in source.images(i):
                texts[path] = [number[text] for text in source.texts(i)]
                classes[path] = names.index(source.label(i))
    paths = sorted(texts)
    if not paths:
        raise InputError("data: no images; prepare the scans with --crops, or give data.furniture")
    features = embed_files(paths, image_features, FEATURES, cache, step)
    targets = torch.tensor([classes[path] for path in paths])
    return ImageTextPairs(features, [texts[path] for path in paths], targets)


@torch.no_grad()
def retrieval(
    model: ImageProjection, pairs: ImageTextPairs, class_texts: Float32[Tensor, "C E"]
) -> dict[str, float]:
    """Zero-shot classification of images by the names of the classes, as `top_k` scores it."""
    images = F.normalize(model.projection(pairs.features), dim=-1)
    return top_k(images @ class_texts.T, pairs.classes) | {"images": float(len(pairs))}
