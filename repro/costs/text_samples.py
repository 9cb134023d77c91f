"""Samples whose text has a set length, so that between two measurements nothing but length changes.

A sample is behaviours of a fixed number of random tokens: a user's three sequences and, last, the item. All
behaviours of a batch are distinct, which is the hardest case for a table's look-up; they come from all over
the table.
"""

from __future__ import annotations

import numpy as np

from repro.behaviours.texts import Behaviours
from repro.errors import ConfigError
from repro.methods.bahe.sequences import SequenceSource, UserSequences
from repro.prompts.templates import Template

SEQUENCES = 3  # of a user, as BAHE has on MovieLens


def random_behaviours(number: int, tokens: int, vocabulary: int) -> Behaviours:
    """Behaviours of so many random tokens each; always the same ones."""
    ids = np.random.default_rng(0).integers(vocabulary, size=number * tokens, dtype=np.int32)
    nothing = np.empty((0, 2), dtype=np.int64)
    return Behaviours(
        text=tuple(f"behaviour {each}" for each in range(number)),
        tokens=ids,
        offsets=np.arange(number + 1, dtype=np.int64) * tokens,
        answered=nothing,
        alone=nothing[:, 0],
        template=Template(instruction=""),
    )


def behaviours_per_sample(text_tokens: int, behaviour_tokens: int) -> int:
    """How many behaviours a text holds, the item included.

    Raises:
        ConfigError: not a whole number, or too few for the sequences and the item.
    """
    number, rest = divmod(text_tokens, behaviour_tokens)
    if rest or number <= SEQUENCES:
        where = f"text of {text_tokens:,} tokens"
        expected = f"a multiple of a behaviour's {behaviour_tokens} tokens, and more than {SEQUENCES} of them"
        raise ConfigError(
            where, f"{text_tokens / behaviour_tokens:g} behaviours", expected, "change --lengths"
        )
    return number


def sequence_lengths(behaviours: int) -> list[int]:
    """Behaviours of each of a user's sequences, as equal as can be: 64 with the item are 21, 21 and 21."""
    user = behaviours - 1
    return [user // SEQUENCES + (number < user % SEQUENCES) for number in range(SEQUENCES)]


class TextSamples(SequenceSource):
    """The sequences of samples 0, 1, ...: sample i has the behaviours i p to i p + p - 1 of a shuffled table.

    Args:
        behaviours: p, of a sample, the item included.
        distinct: behaviours in the table; a batch holds fewer, so none stands in it twice. Behaviour 0 is in
            no sample: it stands at padded places, and would make batches differ in distinct behaviours.
    """

    def __init__(self, behaviours: int, distinct: int) -> None:
        self._number, self._lengths = behaviours, sequence_lengths(behaviours)
        self._shuffled = np.random.default_rng(1).permutation(np.arange(1, distinct))

    def cut(self, rows: np.ndarray) -> UserSequences:
        """As `SequenceSource.cut`: (S, B, p - 1) members, sequence after sequence."""
        place = rows[:, None] * self._number + np.arange(self._number)
        behaviour = self._shuffled[place % len(self._shuffled)]
        sequence = np.repeat(np.arange(SEQUENCES), self._lengths)
        member = np.broadcast_to(
            (sequence == np.arange(SEQUENCES)[:, None])[:, None], (SEQUENCES, len(rows), len(sequence))
        )
        return UserSequences(behaviour[:, :-1], member, behaviour[:, -1])

    def lengths(self, rows: np.ndarray, behaviours: Behaviours | None = None) -> np.ndarray:
        """As `SequenceSource.lengths`: samples hold equally many behaviours, all of one length."""
        each = 1 if behaviours is None else int(behaviours.lengths[0])
        return np.full(len(rows), self._number * each)
