"""A few random candidates for many (anchor, positive) pairs, mostly without a list of all candidates of a pair."""

from __future__ import annotations

from mlmetric.miners._array_ops import Array, arange, concatenate, expand, nonzero, sort_rows, stack_columns
from mlmetric.miners._negative_lists import NegativeLists, Rand
from mlmetric.miners._sampling import sample_without_replacement


class RandomNegatives:
    """Up to `most` random candidates in each of the two ranges of P pairs, each set with the same probability.

    `most` candidates are drawn independently. If they are different, they are a sample without replacement; otherwise
    one is taken from a list of all candidates of the range.

    Args:
        lists: References of the anchors.
        rows: Shape `(P,)`, int64.
        begin: First position of either range in the order of the lists, shape `(P, 2)`.
        end: Last position of either range plus 1, shape `(P, 2)`.
        positives: Index of the positive in the references, shape `(P,)`.
        most: Largest number of candidates of a range.
        rand: Source of random numbers.
        chunk_size: Number of elements that are processed together.

    Attributes:
        available: Number of candidates, or at least `most`, shape `(P, 2)`.
    """

    def __init__(
        self,
        lists: NegativeLists,
        rows: Array,
        begin: Array,
        end: Array,
        positives: Array,
        most: int,
        rand: Rand,
        *,
        chunk_size: int,
    ) -> None:
        self.most, self.rand = most, rand
        rows, positives = (stack_columns(part, part).reshape(-1) for part in (rows, positives))
        ranges = rows, begin.reshape(-1), end.reshape(-1), positives
        if most == 1:
            self.drawn = lists.draw(*ranges, rand=rand, chunk_size=chunk_size)[:, None]
        else:
            times = (arange(len(rows), rows)[:, None] + 0 * arange(most, rows)).reshape(-1)
            repeated = rows[times], ranges[1][times], ranges[2][times], positives[times]
            drawn = lists.draw(*repeated, rand=rand, chunk_size=chunk_size)
            self.drawn = drawn.reshape(-1, most)
        found = self.drawn[:, 0] >= 0
        available = most * found
        ordered = sort_rows(self.drawn)
        self.repeated = nonzero((ordered[:, 1:] == ordered[:, :-1]).any(1) & found)[0]
        if len(self.repeated):
            candidates, counts = [], []
            step = max(1, chunk_size // lists.num_refs)
            for start in range(0, len(self.repeated), step):
                index, count = lists.find_in_one_range(*(part[self.repeated[start : start + step]] for part in ranges))
                candidates.append(index)
                counts.append(count)
            self.candidates, self.counts = concatenate(candidates), concatenate(counts)
            available[self.repeated] = self.counts
        self.available = available.reshape(-1, 2)

    def take(self, num: Array) -> Array:
        """Return the first `num` candidates of each range, `(2 P,)`, flat."""
        index = self.drawn.reshape(-1)[expand(self.most * arange(len(num), num), num)]
        if len(self.repeated):
            some = num[self.repeated]
            sample = sample_without_replacement(self.counts.cumsum(0) - self.counts, self.counts, some, self.rand)
            index[expand((num.cumsum(0) - num)[self.repeated], some)] = self.candidates[sample]
        return index
