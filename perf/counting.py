"""The floating-point operations that the mathematics needs, per edit; divided by the GEMM rate they are the limit.

Matrix products alone are counted, two operations per multiply-add. What one can leave out is not counted:

- the trunk is run once per input, and over an evaluation not at all: its states are kept;
- in the last layer the predicted positions alone have queries and pass through the MLP; keys and values need all rows;
- the head sees the predicted positions alone;
- the raw model is frozen, so a backward pass has input gradients only, down to the output of the lowest edited matrix;
- a transform works on the rows that have a gradient: in the last layer those of the predicted positions.

h and f are the widths of the model and of its MLPs, n and m those of an edited matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """A BERT, the number of its layers whose MLPs are edited, and what its editors are made with."""

    hidden: int
    inner: int
    layers: int
    heads: int
    vocabulary: int
    edited: int = 3
    classes: int | None = None  # None: a masked language model
    rank: int = 1920  # of MEND
    lstm: int = 512  # of KnowledgeEditor, each direction
    network: int = 128  # between its LSTM and its gates

    @property
    def matrices(self) -> int:
        """How many are edited, all of n + m = hidden + inner."""
        return 2 * self.edited

    @property
    def parameters(self) -> int:
        """Of all edited matrices."""
        return self.matrices * self.hidden * self.inner


@dataclass(frozen=True, slots=True)
class Seen:
    """An input as far as its cost goes: how many tokens it has, and how many predicted positions."""

    tokens: int
    positions: int = 1


Lengths = tuple[Seen, Seen, Seen]  # x_e, x_u, x_r

#: The issue's: 10, 11 and 12 tokens and one mask, and pairs of 40 tokens.
FACTS: Lengths = (Seen(10), Seen(11), Seen(12))
PAIRS: Lengths = (Seen(40), Seen(40), Seen(40))


# The raw model


def layer(size: Size, tokens: int, rows: int) -> int:
    """One encoder layer on one input of which `rows` rows are needed above: keys and values need all of them."""
    h, f = size.hidden, size.inner
    return 4 * tokens * h * h + 4 * rows * h * h + attention(size, tokens, rows) + 4 * rows * h * f


def attention(size: Size, tokens: int, rows: int) -> int:
    """Scores and weighted values of all heads."""
    return 4 * tokens * rows * size.hidden


def head(size: Size, positions: int) -> int:
    """The dense map and the output embeddings, or the pooler and the classes."""
    h = size.hidden
    return 2 * positions * h * (h + (size.vocabulary if size.classes is None else size.classes))


def trunk(size: Size, seen: Seen) -> int:
    """The layers below the edited ones."""
    return (size.layers - size.edited) * layer(size, seen.tokens, seen.tokens)


def upper(size: Size, seen: Seen) -> int:
    """The edited layers and the head."""
    below = (size.edited - 1) * layer(size, seen.tokens, seen.tokens)
    return below + layer(size, seen.tokens, seen.positions) + head(size, seen.positions)


def upper_backward(size: Size, seen: Seen) -> int:
    """From the logits to the output of the lowest edited matrix: one product per linear map, four per attention."""
    whole = upper(size, seen) + sum(attention(size, seen.tokens, rows) for rows in _rows(size, seen))
    # Of the lowest layer only the second matrix of its MLP is passed.
    lowest = _rows(size, seen)[0]
    below = layer(size, seen.tokens, lowest) + attention(size, seen.tokens, lowest)
    return whole - below + 2 * lowest * size.hidden * size.inner


def weight_gradient(size: Size, seen: Seen) -> int:
    """δᵀx of every edited matrix."""
    return sum(4 * rows * size.hidden * size.inner for rows in _rows(size, seen))


def upper_double_backward(size: Size, seen: Seen) -> int:
    """The gradient, with respect to the edited matrices, of what depends on x and δ (Editable Training's second order).

    Each linear map has one product in the forward pass and one in the first backward pass; each of the two has one more
    for its input and, where it is edited, one more for its matrix. Nothing is passed through the lowest matrix.
    """
    attentions = sum(attention(size, seen.tokens, rows) for rows in _rows(size, seen)[1:])
    linears = upper_backward(size, seen) - 2 * attentions
    lowest = 2 * _rows(size, seen)[0] * size.hidden * size.inner
    return 2 * linears + 2 * weight_gradient(size, seen) - lowest + 6 * attentions


def _rows(size: Size, seen: Seen) -> list[int]:
    """Per edited layer, bottom up, the rows that have a gradient."""
    return [seen.tokens] * (size.edited - 1) + [seen.positions]


# An update


def apply(size: Size, edit: Seen, seen: Seen, extra: int = 0) -> int:
    """Vᵀ(U·h) in every edited matrix; `extra` rows of the factors beside the edit's own."""
    d = size.hidden + size.inner
    return sum(4 * r * (t + extra) * d for r, t in zip(_rows(size, seen), _rows(size, edit), strict=True))


def apply_backward(size: Size, edit: Seen, seen: Seen, extra: int = 0, plain_x: bool = False) -> int:
    """The gradients of U, V and h; the lowest matrix passes none to its h, nor to its U if that is x itself."""
    pairs = 2 * _rows(size, seen)[0] * (_rows(size, edit)[0] + extra)
    unasked = pairs * (2 * size.hidden + size.inner) if plain_x else pairs * size.hidden
    return 2 * apply(size, edit, seen, extra) - unasked


def mend_transform(size: Size, edit: Seen) -> int:
    """Two blocks of two factors (d, r) on every row that has a gradient."""
    d = size.hidden + size.inner
    return sum(_rows(size, edit)) * 2 * 8 * d * min(size.rank, d)


def reader(size: Size, edit: Seen) -> tuple[int, int]:
    """KnowledgeEditor's LSTM and networks, (forward, backward); it reads x_e and a label for each position.

    The first state is zero and the embeddings are frozen, so neither costs a product.
    """
    read, lstm = edit.tokens + edit.positions, size.lstm
    recurrent = 2 * (read - 1) * 8 * lstm * lstm
    inputs = 2 * read * 8 * lstm * size.hidden
    gates = 2 * (size.hidden + size.inner) + 1
    networks = size.matrices * 2 * size.network * (2 * lstm + gates)
    return recurrent + inputs + networks, 2 * recurrent + inputs + 2 * networks


# Whole operations, per edit


def gradient(size: Size, edit: Seen) -> int:
    """x and δ of one edit from its trunk states."""
    return upper(size, edit) + upper_backward(size, edit)


def make(editor: str, size: Size, edit: Seen, steps: int = 1) -> int:
    """One edit from its trunk states; finetuning takes `steps` steps, and looks at the prediction once more."""
    if editor == "finetuning":
        return upper(size, edit) + steps * (gradient(size, edit) + weight_gradient(size, edit))
    own: Mapping[str, Callable[[], int]] = {
        "mend": lambda: mend_transform(size, edit),
        "knowledge_editor": lambda: reader(size, edit)[0],
        "editable_training": lambda: 0,
    }
    return gradient(size, edit) + own[editor]()


def single_edit(editor: str, size: Size, edit: Seen, steps: int = 1) -> int:
    """One edit from its tokens."""
    return trunk(size, edit) + make(editor, size, edit, steps)


def training(editor: str, size: Size, lengths: Lengths) -> int:
    """One edit of a training step: trunk, edit, both losses, and the gradient of the editor."""
    edit, update, retain = lengths
    extra = int(editor == "knowledge_editor")
    total = sum(trunk(size, seen) for seen in lengths) + make(editor, size, edit) + upper(size, retain)
    for seen in (update, retain):
        total += upper(size, seen) + upper_backward(size, seen)
        total += apply(size, edit, seen, extra)
        total += apply_backward(size, edit, seen, extra, plain_x=editor == "editable_training")
    if editor == "mend":
        return total + 2 * mend_transform(size, edit)
    if editor == "knowledge_editor":
        return total + reader(size, edit)[1]
    return total + upper_double_backward(size, edit) + weight_gradient(size, update) + weight_gradient(size, retain)


def judging(editor: str, size: Size, edit: Seen, judged: Sequence[Seen], steps: int = 1) -> int:
    """One edit of an evaluation, and what it is judged on, from kept trunk states and raw predictions."""
    total = make(editor, size, edit, steps) + sum(upper(size, seen) for seen in judged)
    if editor == "finetuning":
        return total
    return total + sum(apply(size, edit, seen, int(editor == "knowledge_editor")) for seen in judged)


def preparing(size: Size, edit: Seen, judged: Sequence[Seen]) -> int:
    """The trunk states and raw predictions that all editors share, for one edit."""
    return trunk(size, edit) + sum(trunk(size, seen) + upper(size, seen) for seen in judged)


# Memory traffic, in bytes of float32: what no product hides


def adam_bytes(parameters: int) -> int:
    """One step of Adam reads a gradient, and reads and writes a parameter and both moments."""
    return 7 * 4 * parameters


def finetuning_bytes(size: Size, steps: int) -> int:
    """One edit: Adam reads and writes ΔW and both moments (the gradient may stay in the cache), both passes read ΔW."""
    return steps * 8 * 4 * size.parameters
