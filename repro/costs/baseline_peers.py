"""DIN of FuxiCTR and of DeepCTR-Torch, each trained by its library's own `fit` on that library's own input.

Both get the item, its categories and the past answers, as our model does. An item's categories are one
number per combination here (DeepCTR-Torch takes no list per past interaction), which is less work than the
mean over several that ours takes. Only the environment of `nox -s bench_baselines` has the libraries.

Shapes: T training targets, n past interactions.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pandas as pd

from repro.data.interactions import TRAIN, PreparedData

if TYPE_CHECKING:
    from repro.costs.baseline_programs import Setup

UNKNOWN, DISLIKED, LIKED = 1, 2, 3  # answers; 0 pads
NEVER = 10**9  # steps


def category_numbers(data: PreparedData) -> np.ndarray:
    """(items,) int64, each combination of categories numbered from 1."""
    combinations = {combination: None for combination in data.items.categories}
    number = {combination: index for index, combination in enumerate(combinations, start=1)}
    return np.array([number[each] for each in data.items.categories], dtype=np.int64)


def feature_sizes(data: PreparedData, setup: Setup) -> dict[str, tuple[int, int]]:
    """Feature -> (vocabulary with padding, width of its embedding); the widths add up to ours."""
    model = setup.model
    return {
        "item": (len(data.items) + 1, model.item_dim),
        "category": (int(category_numbers(data).max()) + 1, model.category_dim - setup.answer_dim),
        "answer": (LIKED + 1, setup.answer_dim),
    }


def _timed(fit: Callable[[], Any]) -> Callable[[], float]:
    def train() -> float:
        with contextlib.redirect_stdout(io.StringIO()):  # it reports there
            start = time.perf_counter()
            fit()
            return time.perf_counter() - start

    return train


# --- FuxiCTR: the DIN of its long-sequence zoo, whose loader cuts histories out of one list per user --------


def fuxictr_loader(data: PreparedData, setup: Setup, folder: Path) -> tuple[Any, Any]:
    """FuxiCTR's feature map and its loader, after writing the Parquet files that it reads.

    A row of `item_info` is an item with an answer: row 3 * item + answer, row 0 pads.
    """
    from fuxictr.features import FeatureMap
    from model_zoo.LongCTR.longctr_dataloader import LongCTRDataLoader

    interactions, rows = data.interactions, data.targets(TRAIN)
    index = 3 * interactions.item.astype(np.int64) + DISLIKED + interactions.label
    pd.DataFrame(
        {
            "user_index": interactions.user[rows].astype(np.int64),
            "item_index": 3 * interactions.item[rows].astype(np.int64) + UNKNOWN,
            "seq_len": data.position[rows].astype(np.int64),
            "label": interactions.label[rows].astype(np.int64),
        }
    ).to_parquet(folder / "train.parquet")
    sequences = np.split(index[data.user_rows], data.user_offsets[1:-1])
    pd.DataFrame({"full_item_seq": sequences}).to_parquet(folder / "user_info.parquet")
    items = np.arange(len(data.items), dtype=np.int64)
    columns = {
        "item": np.repeat(items + 1, 3),
        "category": np.repeat(category_numbers(data), 3),
        "answer": np.tile([UNKNOWN, DISLIKED, LIKED], len(items)),
    }
    padded = {name: np.concatenate([[0], column]) for name, column in columns.items()}
    item_info = pd.DataFrame({"item_index": np.arange(3 * len(items) + 1), **padded})
    item_info.to_parquet(folder / "item_info.parquet")

    features: OrderedDict[str, dict[str, Any]] = OrderedDict()
    for name in ("user_index", "item_index", "seq_len"):
        features[name] = {"type": "meta"}
    for name, (vocabulary, width) in feature_sizes(data, setup).items():
        features[name] = {
            "type": "categorical",
            "source": "item",
            "vocab_size": vocabulary,
            "embedding_dim": width,
            "padding_idx": 0,
        }
    feature_map = FeatureMap("benchmark", str(folder))
    feature_map.features, feature_map.labels = features, ["label"]
    paths = [str(folder / f"{name}.parquet") for name in ("train", "user_info", "item_info")]
    return feature_map, LongCTRDataLoader(
        feature_map, *paths, batch_size=setup.batch_targets, shuffle=True, max_len=setup.n
    )


def fuxictr_model(feature_map: Any, setup: Setup, folder: Path) -> Any:
    """FuxiCTR's DIN with our sizes; it never stops to evaluate."""
    from model_zoo.LongCTR.DIN import DIN

    model = DIN(
        feature_map,
        dnn_hidden_units=list(setup.model.hidden),
        dnn_activations="Dice",
        attention_hidden_units=list(setup.model.attention_units),
        attention_hidden_activations="Dice",
        din_use_softmax=setup.model.softmax,
        net_dropout=setup.model.dropout,
        learning_rate=setup.learning_rate,
        optimizer="adam",
        loss="binary_crossentropy",
        task="binary_classification",
        metrics=["AUC"],
        verbose=0,
        model_root=str(folder),
        eval_steps=NEVER,
    )
    Path(model.model_dir).mkdir()
    model.save_weights(model.checkpoint)  # `fit` loads the best ones at its end
    return model


def fuxictr(data: PreparedData, setup: Setup, folder: Path) -> Callable[[], float]:
    """FuxiCTR with its own loader."""
    feature_map, loader = fuxictr_loader(data, setup, folder)
    model = fuxictr_model(feature_map, setup, folder)
    return _timed(lambda: model.fit(loader, epochs=1))


def fuxictr_batches_ready(data: PreparedData, setup: Setup, folder: Path) -> Callable[[], float]:
    """FuxiCTR's `fit` over batches that its loader made beforehand: its model and optimiser alone."""
    feature_map, loader = fuxictr_loader(data, setup, folder)
    model, batches = fuxictr_model(feature_map, setup, folder), list(loader)
    return _timed(lambda: model.fit(batches, epochs=1))


# --- DeepCTR-Torch: one matrix with every target's history written out --------------------------------------


def deepctr_inputs(data: PreparedData, setup: Setup) -> dict[str, np.ndarray]:
    """Target and history columns, (T,) and (T, n) int32; histories begin at the left, oldest first."""
    interactions, rows = data.interactions, data.targets(TRAIN)
    past = np.arange(setup.n)
    length = np.minimum(data.position[rows], setup.n)
    end = data.user_offsets[interactions.user[rows]] + data.position[rows]
    place = np.where(past < length[:, None], (end - length)[:, None] + past, 0)  # in user order
    there = past < length[:, None]
    before = data.user_rows[place]
    category = category_numbers(data)
    target, history = interactions.item[rows], interactions.item[before]
    columns = {
        "item": target + 1,
        "category": category[target],
        "answer": np.full(len(rows), UNKNOWN),
        "hist_item": (history + 1) * there,
        "hist_category": category[history] * there,
        "hist_answer": (interactions.label[before] + DISLIKED) * there,
        "seq_length": length,
    }
    return {name: column.astype(np.int32) for name, column in columns.items()}


def deepctr_torch(data: PreparedData, setup: Setup, folder: Path) -> Callable[[], float]:
    """DeepCTR-Torch, whose head has ReLU: its Dice takes three dimensions there and gets two."""
    with mock.patch("threading.Thread.start"):  # in which its import asks PyPI for a newer version
        from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat
        from deepctr_torch.models.din import DIN

    columns: list[Any] = []
    for name, (vocabulary, width) in feature_sizes(data, setup).items():
        columns.append(SparseFeat(name, vocabulary, width))
        past = SparseFeat(f"hist_{name}", vocabulary, width, embedding_name=name)
        columns.append(VarLenSparseFeat(past, setup.n, length_name="seq_length"))
    model = DIN(
        columns,
        ["item", "category", "answer"],
        dnn_hidden_units=setup.model.hidden,
        dnn_activation="relu",
        att_hidden_size=setup.model.attention_units,
        att_activation="Dice",
        att_weight_normalization=setup.model.softmax,
        l2_reg_embedding=0.0,
        dnn_dropout=setup.model.dropout,
    )
    model.compile("adam", "binary_crossentropy")
    for group in model.optim.param_groups:
        group["lr"] = setup.learning_rate
    inputs = deepctr_inputs(data, setup)
    label = data.interactions.label[data.targets(TRAIN)].astype(np.float32)
    return _timed(lambda: model.fit(inputs, label, batch_size=setup.batch_targets, epochs=1, verbose=0))
