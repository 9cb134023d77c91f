"""FLOPs of training in closed form: matrix products and attention of decoders, term by term.

Conventions, the same in both counters (`counters.py`): one multiply-add is 2 FLOPs; only matrix products
count, not norms, activations, softmax, loss or optimiser; attention counts the (query, key) pairs that a
query may see (what the method needs), not those that a blocked kernel computes besides.

**A linear layer** y = x W of t tokens, i inputs, o outputs costs 2 t i o forward. Its backward pass is two
products of the same size: dW = x' dy, needed where W is trained, and dx = dy W', needed where anything below
(or x itself) is trained. So full fine-tuning trains at 3 x forward; a frozen matrix with something trained
below it at 2 x; a frozen matrix with nothing trained below it at 1 x.

**LoRA** of rank r adds x A B, 2 t r (i + o) forward. A and B are trained, so they cost 3 x, less the gradient
to x where nothing below is trained. W itself is frozen: 2 x. Altogether close to 2 x forward, not 3 x.

**Attention** over p visible pairs, a heads of size d: 4 p a d forward (q k and weight v), twice that
backward.

**Gradient checkpointing** (of stacks alone, `stack_cost`: the training loop of SW and DTI has none) runs the
forward pass of every layer that a gradient passes through again before its backward pass, up to the last
product whose input the backward pass needs: PyTorch stops there (`early_stop`), so the layer's last product
(down_proj, or with LoRA its B) is not computed again. Without early stop it is: one whole forward pass.

Equation 3 of the DTI paper is `equation_3`; docs/costs.md says where it and the count differ and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from repro.costs.architecture import Architecture
from repro.errors import ConfigError

PARTS = ("linear layers", "LoRA", "attention", "LM head", "CTR head")
TUNINGS = ("full", "lora")


@dataclass(frozen=True)
class Work:
    """One product, or several of the same part.

    Attributes:
        part: one of PARTS. forward, backward: FLOPs. recomputed: FLOPs done a second time by checkpointing.
    """

    part: str
    forward: int
    backward: int = 0
    recomputed: int = 0


@dataclass(frozen=True)
class Cost:
    """FLOPs of a training step, or of its share for one target."""

    works: tuple[Work, ...]

    @property
    def forward(self) -> int:
        """FLOPs of the forward pass in training."""
        return sum(work.forward for work in self.works)

    @property
    def train(self) -> int:
        """FLOPs of forward, recomputation and backward."""
        return sum(work.forward + work.recomputed + work.backward for work in self.works)

    def part(self, name: str) -> Work:
        """One of PARTS, summed."""
        chosen = [(work.forward, work.backward, work.recomputed) for work in self.works if work.part == name]
        return Work(name, *(sum(each) for each in zip(*chosen, strict=True)) if chosen else (0, 0, 0))


@dataclass(frozen=True)
class Training:
    """What is trained of a decoder.

    Attributes:
        tuning: `full` or `lora` (the seven projections of every layer that is not frozen).
        rank: of LoRA.
        train_embeddings: `full` also trains the token embedding table, and an LM head tied to it.
        frozen_layers: the lowest layers that are not trained and, under `lora`, have no adapters.
        checkpointing: every trained layer is recomputed in the backward pass.
        early_stop: of the recomputation, as PyTorch does it.
    """

    tuning: str = "full"
    rank: int = 16
    train_embeddings: bool = True
    frozen_layers: int = 0
    checkpointing: bool = False
    early_stop: bool = True

    def __post_init__(self) -> None:
        if self.tuning not in TUNINGS:
            raise ConfigError(
                "tuning", repr(self.tuning), f"one of {', '.join(TUNINGS)}", "choose one of these"
            )
        for name, least in (("rank", 1), ("frozen_layers", 0)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(name, str(value), f"at least {least}", "choose another number")


@dataclass(frozen=True)
class LayerRun:
    """How one layer is run: on what, and where gradients go.

    Attributes:
        tokens: whose keys and values are computed. queries: tokens that also have a query and an MLP.
        pairs: visible (query, key) pairs. products: 2, or 4 with the hidden-state reset.
        input_grad: the layer's input needs a gradient.
        trained: its matrices are trained. rank: of its LoRA adapters; 0: none.
    """

    tokens: int
    queries: int
    pairs: int
    input_grad: bool
    trained: bool
    rank: int = 0
    products: int = 2


def equation_3(n: int, k: int) -> float:
    """DTI's equation 3, k N / (N + K), with N and K the tokens of n and k interactions of equal length.

    It leaves out that a sliding-window prompt also holds its target: see `token_limit`.
    """
    check_sizes(n, k)
    return k * n / (n + k)


def token_limit(n: int, k: int) -> float:
    """Tokens of k sliding-window prompts over those of one streaming prompt: (n + 1) k / (n + k)."""
    check_sizes(n, k)
    return (n + 1) * k / (n + k)


def check_sizes(n: int, k: int) -> None:
    """Raises ConfigError for n or k below 1."""
    for name, value in (("n (context interactions)", n), ("k (targets per prompt)", k)):
        if value < 1:
            raise ConfigError(name, str(value), "at least 1", "choose a positive number")


def linear(
    tokens: int, inputs: int, outputs: int, *, trained: bool, input_grad: bool, rank: int = 0
) -> list[Work]:
    """A linear layer, with LoRA where rank > 0: see the module's text."""
    product = 2 * tokens * inputs * outputs
    works = [Work("linear layers", product, product * (trained + input_grad))]
    if rank:
        down, up = 2 * tokens * inputs * rank, 2 * tokens * rank * outputs
        works += [Work("LoRA", down, down * (1 + input_grad)), Work("LoRA", up, 2 * up)]
    return works


def layer_works(arch: Architecture, run: LayerRun, training: Training) -> list[Work]:
    """One decoder layer; `run` says on what, `training` whether and how it is checkpointed."""
    inside = run.input_grad or run.trained or run.rank > 0  # a gradient reaches what follows q, k and v
    works: list[Work] = []
    for name, (inputs, outputs) in arch.projections.items():
        first = name in ("q_proj", "k_proj", "v_proj")
        tokens = run.tokens if name in ("k_proj", "v_proj") else run.queries
        # Full fine-tuning also trains the norm in front of q, k and v, whose gradient needs theirs.
        grad = run.input_grad or run.trained if first else inside
        works += linear(tokens, inputs, outputs, trained=run.trained, input_grad=grad, rank=run.rank)
        if name == "v_proj":
            product = 2 * run.pairs * run.products * arch.heads * arch.head_dim
            works.append(Work("attention", product, 2 * product * inside))
    if training.checkpointing and inside:
        kept = 1 if training.early_stop else 0
        works = [
            replace(work, recomputed=work.forward if number < len(works) - kept else 0)
            for number, work in enumerate(works)
        ]
    return works


@dataclass(frozen=True)
class SumCounts:
    """What a forward pass of a [SUM] method works on.

    Attributes:
        text: text tokens, the instruction's included. sums: [SUM] tokens, one per target.
        text_pairs, sum_pairs: visible pairs of either in one layer.
    """

    text: int
    sums: int
    text_pairs: int
    sum_pairs: int


def sum_model_cost(
    arch: Architecture,
    counts: SumCounts,
    training: Training,
    reset: str | None = None,
    loss: str = "vocabulary",
) -> Cost:
    """A training step of SW, DTI- or DTI as `SumModel` runs it.

    * All layers but the last: all N = text + sums tokens through the seven projections; all pairs.
    * The last layer: keys and values of all tokens; query, output projection and MLP of the [SUM]s alone,
      for nothing reads the text's last output. Only the [SUM]s' pairs.
    * The hidden-state reset (`reset`: "last" or "all" layers) projects keys and values of the initial states
      once more and doubles the [SUM]s' products.
    * The LM head over the vocabulary at the [SUM]s only, and the two answers' logits once more in fp32 (the
      score; no gradient). `loss="answers"`: the two answers' logits alone.
    * The [SUM] embedding is trained in any case and enters with the first layer, so every layer's input needs
      a gradient.

    Args:
        counts: of the forward passes together, padding left out.
        training: without frozen layers and checkpointing, which `SumModel` and the training loop do not have.

    Raises:
        ConfigError: frozen layers or checkpointing.
    """
    if training.frozen_layers or training.checkpointing:
        found = f"frozen_layers={training.frozen_layers}, checkpointing={training.checkpointing}"
        expected = "no frozen layers and no checkpointing: the training loop of SW and DTI has neither"
        fix = "leave both out; `stack_cost` counts them for plain layers"
        raise ConfigError("training of a [SUM] method", found, expected, fix)
    lora = training.tuning == "lora"
    everything = counts.text + counts.sums
    works: list[Work] = []
    for number in range(arch.layers):
        last = number == arch.layers - 1
        run = LayerRun(
            tokens=everything,
            queries=counts.sums if last else everything,
            pairs=counts.sum_pairs + (0 if last else counts.text_pairs),
            input_grad=True,
            trained=not lora,
            rank=training.rank if lora else 0,
        )
        works += layer_works(arch, run, training)
        if reset == "all" or (reset == "last" and last):
            works += _reset_works(arch, counts, run)
    return Cost(tuple(works + _head_works(arch, counts.sums, training, loss)))


def _reset_works(arch: Architecture, counts: SumCounts, run: LayerRun) -> list[Work]:
    """Keys and values of the initial states, and two more products for every pair of a [SUM]."""
    works: list[Work] = []
    for name in ("k_proj", "v_proj"):
        inputs, outputs = arch.projections[name]
        works += linear(run.tokens, inputs, outputs, trained=run.trained, input_grad=True, rank=run.rank)
    product = 2 * counts.sum_pairs * 2 * arch.heads * arch.head_dim
    return [*works, Work("attention", product, 2 * product)]


def _head_works(arch: Architecture, sums: int, training: Training, loss: str) -> list[Work]:
    # A tied head is the embedding table; a head of its own is trained with everything else.
    head_trained = training.tuning == "full" and (training.train_embeddings or not arch.tied)
    answers = 2 * sums * arch.hidden * 2
    if loss == "answers":
        return [Work("LM head", answers, answers * (1 + head_trained))]
    product = 2 * sums * arch.hidden * arch.vocab
    return [Work("LM head", product, product * (1 + head_trained)), Work("LM head", answers)]


def causal_pairs(lengths: Iterable[int]) -> int:
    """Visible pairs of separate causal sequences: l (l + 1) / 2 each."""
    return sum(length * (length + 1) // 2 for length in lengths)


def stack_cost(
    arch: Architecture,
    sequences: Sequence[int],
    training: Training,
    layers: range,
    head: tuple[int, int] | None = None,
) -> Cost:
    """Decoder layers over separate causal sequences of vectors, with an optional linear head on top.

    No gradient goes below the lowest trained layer: frozen layers cost their forward pass alone. In the
    lowest layer with LoRA, q, k and v have no input gradient; under full fine-tuning they do, for the trained
    norm in front of them needs it.

    Args:
        sequences: length of each sequence (a text's tokens, or a user's behaviours).
        training: `frozen_layers` counts from layer 0 of the model.
        layers: which layers are run.
        head: (rows, inputs) of a linear layer to one logit, or None.
    """
    lora, tokens = training.tuning == "lora", sum(sequences)
    works: list[Work] = []
    below = training.tuning == "full" and training.train_embeddings and layers.start == 0
    for number in layers:
        tuned = number >= training.frozen_layers
        run = LayerRun(
            tokens=tokens,
            queries=tokens,
            pairs=causal_pairs(sequences),
            input_grad=below,
            trained=tuned and not lora,
            rank=training.rank if tuned and lora else 0,
        )
        works += layer_works(arch, run, training)
        below = below or tuned
    if head is not None:
        rows, inputs = head
        product = 2 * rows * inputs
        works.append(Work("CTR head", product, product * (1 + below)))
    return Cost(tuple(works))
