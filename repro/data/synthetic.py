"""Synthetic interactions with planted preferences, for tests and scaling; time and memory linear in the size.

Three kinds of planted signal:
- `preference`: each user likes some genres more than others, at all times.
- `inside` / `beyond`: each user walks through G genres in a fixed circle, so the previous item of the
  target's genre lies exactly G interactions back. The target's label repeats that item's label with
  probability `agreement`, and genres are independent. For `inside`, G is within the last `window`
  interactions; for `beyond` it is not: whoever sees only the last `window` interactions then cannot do
  better than AUC 0.5, and an AUC above it measures what leaks from further back (`planted_auc` is the
  known truth).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

from repro.data.interactions import Interactions, Items, Source
from repro.errors import ConfigError

GENERATOR_VERSION = 1  # raised when the same settings give other data
SIGNALS = ("preference", "inside", "beyond")
NUM_PREFERENCE_GENRES = 16
GENRE_WORDS = (
    "Action Adventure Animation Anthology Ballet Baroque Biography Caper Chess Circus Comedy Concert Cooking "
    "Crime Dance Desert Detective Dinosaur Documentary Drama Dystopia Epic Espionage Fable Family Fantasy "
    "Farce Fishing Gangster Gothic Heist History Horror Jazz Jungle Legal Martial-Arts Medical Melodrama "
    "Monster Musical Mystery Nature Noir Opera Parody Pirate Poetry Political Prison Racing Robot Romance "
    "Samurai Satire School Sci-Fi Silent Space Sports Superhero Survival Thriller Western"
)
TITLE_WORDS = (
    "Amber Broken Crimson Distant Emerald Frozen Golden Hidden Iron Lonely Midnight Painted",
    "Bridge Canyon Garden Harbor Island Lantern Meadow Orchard River Station Tower Valley",
)
GENRES = tuple(GENRE_WORDS.split())
FIRST_WORDS, SECOND_WORDS = (words.split() for words in TITLE_WORDS)
FIRST_SECOND, SPAN_S, MEAN_GAP_S = 1_500_000_000, 3 * 365 * 86_400, 86_400


@dataclass(frozen=True)
class SyntheticSettings:
    """Size and planted signal. A user has at least a fifth of the mean number of interactions."""

    num_interactions: int = 100_000
    interactions_per_user: int = 100  # mean
    num_items: int = 2_000
    signal: str = "preference"  # one of SIGNALS
    window: int = 20  # the n of `inside` and `beyond`
    agreement: float = 0.9  # probability that a label repeats the one G interactions back
    seed: int = 0

    def __post_init__(self) -> None:
        def refuse(setting: str, expected: str) -> None:
            found = repr(getattr(self, setting))
            raise ConfigError(f"synthetic setting {setting}", found, expected, f"choose {expected}")

        if self.signal not in SIGNALS:
            refuse("signal", f"one of {', '.join(SIGNALS)}")
        if self.interactions_per_user < 5:
            refuse("interactions_per_user", "5 or more")
        if self.num_interactions < self.interactions_per_user:
            refuse("num_interactions", f"{self.interactions_per_user} (interactions_per_user) or more")
        if not 0.5 <= self.agreement <= 1:
            refuse("agreement", "a probability from 0.5 to 1")
        if self.window < 1 or self.num_genres > len(GENRES):
            refuse("window", f"1 to {len(GENRES) - 5}")
        if self.num_items < self.num_genres:
            refuse("num_items", f"{self.num_genres} (one per genre) or more")

    @property
    def num_genres(self) -> int:
        """G. For `inside` and `beyond` also the distance, in interactions, at which the signal lies."""
        if self.signal == "preference":
            return NUM_PREFERENCE_GENRES
        return max(1, self.window // 2) if self.signal == "inside" else self.window + 5

    @property
    def sha256(self) -> str:
        """Stands in for a checksum of source files."""
        text = json.dumps({"generator": GENERATOR_VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def planted_auc(settings: SyntheticSettings, visible: int) -> float:
    """The best expected AUC of a predictor that sees the last `visible` interactions and their labels.

    It holds for targets with at least `num_genres` earlier interactions and no pruning. Labels are balanced
    and the best score is the label at distance G: hits = `agreement`, false alarms = 1 - `agreement`, so
    AUC = (hits + 1 - false alarms) / 2 = `agreement`. Raises ConfigError for `preference`, which has no
    closed form.
    """
    if settings.signal == "preference":
        raise ConfigError(
            "planted_auc", "signal preference", "signal inside or beyond", "choose one of the two"
        )
    return settings.agreement if visible >= settings.num_genres else 0.5


def generate(settings: SyntheticSettings) -> Source:
    """The source: users one after the other, each in order of time, as ML-1M's file has them."""
    rng = np.random.default_rng(settings.seed)
    lengths = _history_lengths(settings, rng)
    starts = np.cumsum(lengths) - lengths
    user = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    step = (np.arange(len(user)) - starts[user]).astype(np.int32)  # (N,) earlier interactions of the user
    if settings.signal == "preference":
        genre = rng.integers(settings.num_genres, size=len(user), dtype=np.int32)
        label = _preferred(user, genre, len(lengths), rng)
    else:
        first_genre = rng.integers(settings.num_genres, size=len(lengths), dtype=np.int32)
        genre = (step + first_genre[user]) % settings.num_genres
        label = _repeated(step, settings.num_genres, settings.agreement, rng)
    per_genre = settings.num_items // settings.num_genres
    popularity_rank = (per_genre * rng.random(len(user)) ** 2).astype(np.int32)  # low ranks are popular
    interactions = Interactions(
        user=user,
        item=genre + settings.num_genres * popularity_rank,
        label=label,
        timestamp=_timestamps(user, starts, rng),
    )
    title = f"Synthetic ({settings.num_interactions:,} interactions, signal {settings.signal})"
    return Source("synthetic", title, interactions, _items(settings), settings.sha256)


def _history_lengths(settings: SyntheticSettings, rng: np.random.Generator) -> np.ndarray:
    """(U,) int64 with a long tail; they add up to the number of interactions exactly."""
    num_users = settings.num_interactions // settings.interactions_per_user
    least = settings.interactions_per_user // 5
    weights = rng.exponential(size=num_users)
    return least + rng.multinomial(settings.num_interactions - least * num_users, weights / weights.sum())


def _preferred(user: np.ndarray, genre: np.ndarray, num_users: int, rng: np.random.Generator) -> np.ndarray:
    """(N,) int8 labels: likes follow a logistic model of the user's taste for the genre."""
    taste = 2 * rng.standard_normal((num_users, NUM_PREFERENCE_GENRES), dtype=np.float32)
    like_probability = 1 / (1 + np.exp(-taste[user, genre]))
    return (rng.random(len(user), dtype=np.float32) < like_probability).astype(np.int8)


def _repeated(step: np.ndarray, distance: int, agreement: float, rng: np.random.Generator) -> np.ndarray:
    """(N,) int8 labels: label[t] = label[t - distance], flipped with probability 1 - agreement.

    The first `distance` labels of a user are coin flips. Lap l (steps l*distance to (l+1)*distance - 1)
    follows from lap l-1, so there are as many vector operations as laps in the longest history, and linear
    work in all.
    """
    label = rng.integers(2, size=len(step), dtype=np.int8)
    flip = (rng.random(len(step), dtype=np.float32) >= agreement).astype(np.int8)
    lap = step // distance
    by_lap = np.argsort(lap.astype(np.min_scalar_type(lap.max())), kind="stable")  # linear up to 16 bits
    ends = np.cumsum(np.bincount(lap))
    for begin, end in pairwise(ends):
        rows = by_lap[begin:end]
        label[rows] = label[rows - distance] ^ flip[rows]
    return label


def _timestamps(user: np.ndarray, starts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) int64 seconds: each user begins at a random time; gaps have a mean of a day."""
    elapsed = np.cumsum(rng.exponential(MEAN_GAP_S, size=len(user)))
    begin = rng.integers(SPAN_S, size=len(starts)) - elapsed[starts]
    return FIRST_SECOND + (elapsed + begin[user]).astype(np.int64)


def _items(settings: SyntheticSettings) -> Items:
    """Item number i has genre i % G; titles differ within a genre and tell nothing of labels."""
    texts, genres = [], []
    for number in range(settings.num_items):
        genre = GENRES[number % settings.num_genres]
        rank = number // settings.num_genres
        volume, rest = divmod(rank, len(FIRST_WORDS) * len(SECOND_WORDS))
        title = f"{FIRST_WORDS[rest % len(FIRST_WORDS)]} {SECOND_WORDS[rest // len(FIRST_WORDS)]}"
        texts.append(f"{title} {volume + 1}, {genre}" if volume else f"{title}, {genre}")
        genres.append((genre,))
    return Items(tuple(str(number) for number in range(settings.num_items)), tuple(texts), tuple(genres))
