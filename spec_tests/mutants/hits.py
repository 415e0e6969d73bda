"""Mutants of what a hit is: how two rows of tokens are compared."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from .base import Mutation, mutant


class HitMutation(Mutation):
    """Compares the tokens of the positions that count in a way of its own."""

    def hit(self, predicted: Sequence[int], expected: Sequence[int], is_mask: Sequence[bool], role: str) -> bool:
        whole = role == "retain" and self.RULINGS.get("con_positions") == "all"
        counted = [i for i, counts in enumerate(is_mask) if counts or whole]
        return self.compared([predicted[i] for i in counted], [expected[i] for i in counted])

    @abstractmethod
    def compared(self, predicted: list[int], expected: list[int]) -> bool:
        """What goes wrong."""


@mutant("bag-of-tokens", "M7", "A prediction hits where it has the expected tokens in any order.")
class BagOfTokens(HitMutation):
    def compared(self, predicted: list[int], expected: list[int]) -> bool:
        return sorted(predicted) == sorted(expected)


@mutant("set-of-tokens", "M7", "A prediction hits where it has the expected tokens, however often and in any order.")
class SetOfTokens(HitMutation):
    def compared(self, predicted: list[int], expected: list[int]) -> bool:
        return set(predicted) == set(expected)


@mutant("repetitions-dropped", "M7", "A token that is predicted twice in a row counts once.")
class RepetitionsDropped(HitMutation):
    def compared(self, predicted: list[int], expected: list[int]) -> bool:
        return _collapsed(predicted) == _collapsed(expected)


def _collapsed(tokens: list[int]) -> list[int]:
    return [token for place, token in enumerate(tokens) if not place or token != tokens[place - 1]]


@mutant("first-token-decides", "M7", "Only the first token of a name is compared.")
class FirstTokenDecides(HitMutation):
    def compared(self, predicted: list[int], expected: list[int]) -> bool:
        return predicted[:1] == expected[:1]


@mutant("last-token-decides", "M7", "Only the last token of a name is compared.")
class LastTokenDecides(HitMutation):
    def compared(self, predicted: list[int], expected: list[int]) -> bool:
        return predicted[-1:] == expected[-1:]


@mutant("most-tokens-suffice", "M7", "A name hits where more than half of its tokens do.")
class MostTokensSuffice(HitMutation):
    def compared(self, predicted: list[int], expected: list[int]) -> bool:
        return 2 * sum(p == e for p, e in zip(predicted, expected, strict=True)) > len(expected)


@mutant("four-tokens-at-most", "M7", "The fifth token of a name and those behind it are not compared.")
class FourTokensAtMost(HitMutation):
    def compared(self, predicted: list[int], expected: list[int]) -> bool:
        return predicted[:4] == expected[:4]


@mutant("tokens-summed", "M7", "Rows are compared by a number that different rows share.")
class TokensSummed(HitMutation):
    def compared(self, predicted: list[int], expected: list[int]) -> bool:
        return sum(predicted) == sum(expected)


@mutant("tokens-in-sixteen-bits", "M7", "The last sixteen bits of a token are compared.")
class TokensInSixteenBits(HitMutation):
    def compared(self, predicted: list[int], expected: list[int]) -> bool:
        return [token % (1 << 16) for token in predicted] == [token % (1 << 16) for token in expected]


@mutant("digits-run-together", "M7", "Rows are compared as text, without a sign between their tokens.")
class DigitsRunTogether(HitMutation):
    def compared(self, predicted: list[int], expected: list[int]) -> bool:
        return "".join(map(str, predicted)) == "".join(map(str, expected))
