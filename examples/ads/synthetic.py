"""Generate a synthetic set in the format of the Pittsburgh Ads sentiments, for runs without the real one.

The posters and the annotators are synthetic. The format, the names of the 30 sentiments and the mean number of labels
of an image, 4.2, are those of the real set. The sentiments are ordered by frequency roughly as there, but the
frequencies differ: "creative" has 33 % of the images instead of 64 %, "loving" 10 % instead of 4 %. Which sentiments
occur together is our own choice. Results on it say nothing about real advertisements.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from common.files import UNFINISHED, write_atomically

from .posters import draw_poster

__all__ = ["SENTIMENTS", "Sentiment", "SyntheticAds", "make_synthetic_ads"]


class Sentiment(NamedTuple):
    """A sentiment.

    Attributes:
        name: The name in the label list of the real set.
        words: Synonyms for the label list and the headlines, not those of the real set.
        agreed: Number of images, of 30,340 in the real set, for which two or more annotators chose it (Hussain et al.,
            CVPR 2017; counts from the public notebooks of coderjolly/processing-ads).
    """

    name: str
    words: tuple[str, ...]
    agreed: int

    @property
    def abbreviation(self) -> str:
        """The name in lower case."""
        return self.name.lower()


SENTIMENTS = (
    Sentiment("Active", ("lively", "sporty", "on the move"), 2502),
    Sentiment("Afraid", ("frightened", "terrified"), 64),
    Sentiment("Alarmed", ("uneasy", "nervous", "stressed"), 137),
    Sentiment("Alert", ("watchful", "interested"), 1248),
    Sentiment("Amazed", ("stunned", "spellbound", "wowed"), 119),
    Sentiment("Amused", ("tickled", "giggling"), 357),
    Sentiment("Angry", ("furious", "cross"), 13),
    Sentiment("Calm", ("serene", "relaxed", "at ease"), 201),
    Sentiment("Cheerful", ("sunny", "merry", "glad"), 456),
    Sentiment("Confident", ("self-assured", "poised"), 593),
    Sentiment("Conscious", ("mindful", "considerate"), 378),
    Sentiment("Creative", ("imaginative", "artistic", "original"), 3950),
    Sentiment("Disturbed", ("appalled", "repelled"), 80),
    Sentiment("Eager", ("craving", "keen", "longing"), 4769),
    Sentiment("Educated", ("knowing", "learned", "well read"), 892),
    Sentiment("Emotional", ("touched", "wistful", "tender"), 128),
    Sentiment("Empathetic", ("caring", "compassionate"), 69),
    Sentiment("Fashionable", ("stylish", "chic", "glamorous"), 4078),
    Sentiment("Feminine", ("ladylike", "graceful"), 2519),
    Sentiment("Grateful", ("appreciative", "indebted"), 9),
    Sentiment("Inspired", ("driven", "aspiring", "uplifted"), 1067),
    Sentiment("Jealous", (), 1),
    Sentiment("Loving", ("affectionate", "adoring"), 112),
    Sentiment("Manly", (), 608),
    Sentiment("Persuaded", ("convinced", "won over"), 382),
    Sentiment("Pessimistic", ("doubtful", "gloomy"), 4),
    Sentiment("Proud", ("honoured", "dignified"), 25),
    Sentiment("Sad", ("sorrowful", "lonely", "downcast"), 12),
    Sentiment("Thrifty", ("economical", "saving"), 301),
    Sentiment("Youthful", ("young", "boyish"), 282),
)

# Groups of sentiments that occur together, and the share of the images of each group.
_GROUPS = {
    ("afraid", "alarmed", "disturbed", "angry", "sad", "pessimistic", "empathetic"): 0.06,
    ("loving", "emotional", "empathetic", "grateful", "calm"): 0.10,
    ("fashionable", "feminine", "confident", "loving"): 0.20,
    ("manly", "active", "confident", "proud", "jealous"): 0.14,
    ("educated", "conscious", "thrifty", "persuaded", "alert", "inspired"): 0.16,
    ("amused", "youthful", "cheerful", "eager", "active"): 0.18,
    ("creative", "amazed", "alert", "eager", "inspired"): 0.16,
}
_GROUP_FACTOR = 4.0  # factor of the probability of a sentiment in the images of its group
_DISAGREEMENT = 0.35  # share of the additional votes for sentiments that the poster does not show
_OTHER_SHARE = 0.03  # of the answers
_OTHER_TEXTS = ("", "", "bored", "indifferent", "wants to know the price", "none of these")
_MIN_SHARE = 0.01  # of the images

_OPENINGS = ("feel", "be", "stay", "so", "simply")
_FOLDERS = ("0", "1", "2", "10")
_README = """This is a synthetic set: {num_images} generated posters with generated annotations, from seed {seed}.
It has the format of the Pittsburgh Ads sentiments (Hussain et al., CVPR 2017) and contains no part of that set.
Results on it say nothing about real advertisements.
"""


class SyntheticAds(NamedTuple):
    """The paths of a synthetic set.

    Attributes:
        annotations: The annotation file.
        label_list: The label list.
        image_root: The folder that the image paths are relative to.
    """

    annotations: Path
    label_list: Path
    image_root: Path

    @property
    def slogans(self) -> Path:
        """The file of the texts on the posters, in the format of the real set: for each image a list of texts."""
        return self.annotations.with_name("Slogans.json")


def make_synthetic_ads(
    root: str | Path,
    *,
    num_images: int = 1500,
    seed: int = 0,
    size: int = 256,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> SyntheticAds:
    """Generate a synthetic set of posters with sentiments, or reuse an existing one.

    As in the real set, a few sentiments are frequent and most are rare, the 3 to 5 annotators of an image disagree, and
    some answers are free text or empty. Unlike in the real set, each sentiment occurs in at least 1 % of the images and
    in at least 3, so that every part of a split can contain it. Files are written atomically; a finished set is reused,
    and an unfinished one is completed. Several processes may generate the same set at the same time, since all of them
    write the same bytes.

    Args:
        root: The folder of the set: new, empty, or that of a set with the same parameters.
        num_images: Number of posters.
        seed: Seed of the random generator; equal parameters give equal bytes.
        size: The shorter side of a poster in pixels.
        progress: Wraps the loop over the posters, for example to show a progress bar with `tqdm`.

    Returns:
        The paths of the set.

    Raises:
        ValueError: If `num_images` is below 30 or `size` below 32.
        FileExistsError: If `root` contains other files; they are not changed.
    """
    if num_images < len(SENTIMENTS):
        raise ValueError(
            f"`num_images` must be at least {len(SENTIMENTS)}, the number of sentiments, got {num_images}."
        )
    if size < 32:
        raise ValueError(f"`size` must be at least 32 pixels, got {size}.")
    root = Path(root)
    folder = root / "annotations_images" / "image"
    files = SyntheticAds(folder / "Sentiments.json", folder / "Sentiments_List.txt", root)
    parameters = {"synthetic": True, "version": 1, "num_images": num_images, "seed": seed, "size": size}
    _check_folder(root, parameters)
    shown, answers = _choose_labels(np.random.default_rng(seed), num_images)
    keys = [_key(index) for index in range(num_images)]
    slogans = {}
    for index in progress(range(num_images)):
        # A separate generator, so that a poster does not depend on existing ones.
        rng = np.random.default_rng([seed, index])
        headline = _headline(rng, shown[index])
        slogans[keys[index]] = [headline]
        path = root / keys[index]
        if not path.exists():
            poster = draw_poster(rng, shown[index], headline, size)
            write_atomically(path, _encode(poster, path.suffix))
    # The annotations come last, so that a set that has them is complete.
    texts = {
        root / "README.txt": _README.format(**parameters),
        files.label_list: _label_list(),
        files.slogans: json.dumps(slogans),
        files.annotations: json.dumps(dict(zip(keys, answers, strict=True))),
    }
    for path, text in texts.items():
        if not path.exists():
            write_atomically(path, text.encode("latin-1"))
    return files


def _check_folder(root: Path, parameters: dict[str, Any]) -> None:
    """Write the parameters into the folder of the set, or check existing ones; runs can do so concurrently."""
    marker = root / "synthetic.json"
    if not marker.exists():
        others = [path for path in root.glob("*") if path.suffix != UNFINISHED]
        if others and not marker.exists():  # otherwise another run has just written the marker
            raise FileExistsError(
                f"`root` must be a new or empty folder, but {root} contains files that are not part of a synthetic "
                "set. Choose another folder."
            )
        write_atomically(marker, json.dumps(parameters).encode())
    found = json.loads(marker.read_bytes())
    if found != parameters:
        raise FileExistsError(
            f"`root` must not contain a set with parameters other than {parameters}, but {root} has {found}. "
            "Delete that folder or choose another."
        )


def _key(index: int) -> str:
    folder = _FOLDERS[index % len(_FOLDERS)]
    return f"{folder}/{10_000 + 7 * index}{'.png' if folder == '10' else '.jpg'}"


def _encode(poster: Image.Image, suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == ".png":
        poster.save(buffer, "PNG", compress_level=1)
    else:
        poster.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _label_list() -> str:
    lines = []
    for number, sentiment in enumerate(SENTIMENTS, start=1):
        synonyms = f"\u00a0({', '.join(sentiment.words)})" if sentiment.words else ""
        lines.append(f'{number}. "{sentiment.name}{synonyms}" (ABBREVIATION: "{sentiment.abbreviation}")\n')
    return "".join(lines)


def _headline(rng: np.random.Generator, shares: dict[str, float]) -> str:
    main = max(shares, key=shares.__getitem__)
    words = next((main, *sentiment.words) for sentiment in SENTIMENTS if sentiment.abbreviation == main)
    return f"{rng.choice(_OPENINGS)} {rng.choice(words)}"


def _choose_labels(rng: np.random.Generator, num_images: int) -> tuple[list[dict[str, float]], list[list[list[str]]]]:
    """Draw the sentiments of each poster, with their shares of it, and the answers of its annotators."""
    names = [sentiment.abbreviation for sentiment in SENTIMENTS]
    # The frequency of agreement between two annotators is proportional to the square of that of one choice.
    popularity = np.sqrt([sentiment.agreed for sentiment in SENTIMENTS])
    popularity /= popularity.sum()
    factors = np.array([[_GROUP_FACTOR if name in group else 1.0 for name in names] for group in _GROUPS])
    weights = popularity * factors[rng.choice(len(_GROUPS), num_images, p=list(_GROUPS.values()))]
    weights /= weights.sum(axis=1, keepdims=True)

    shares = np.zeros_like(weights)
    answers = []
    for row in range(num_images):
        count = rng.choice([2, 3, 4, 5, 6], p=[0.15, 0.30, 0.30, 0.17, 0.08])
        shown = rng.choice(len(names), count, replace=False, p=weights[row])
        shares[row, shown] = rng.dirichlet(np.full(count, 15.0))
        opinion = (1 - _DISAGREEMENT) * shares[row] + _DISAGREEMENT * popularity
        answers.append(_ask_annotators(rng, shown, opinion))
    _ensure_min_share(weights, shares, answers)
    return [{names[label]: float(row[label]) for label in np.flatnonzero(row)} for row in shares], answers


def _ask_annotators(
    rng: np.random.Generator, shown: npt.NDArray[np.int64], opinion: npt.NDArray[np.float64]
) -> list[list[str]]:
    """Distribute a vote for each sentiment shown, and additional votes; each annotator gets at least one."""
    num_annotators = rng.choice([3, 4, 5], p=[0.72, 0.19, 0.09])
    additional = max(num_annotators - len(shown), rng.poisson(1.75))
    votes = rng.permutation(np.append(shown, rng.choice(len(opinion), additional, p=opinion)))
    takers = np.append(np.arange(num_annotators), rng.integers(num_annotators, size=len(votes) - num_annotators))
    answers = [[str(label + 1) for label in votes[takers == taker]] for taker in range(num_annotators)]
    return [[str(rng.choice(_OTHER_TEXTS))] if rng.random() < _OTHER_SHARE else answer for answer in answers]


def _ensure_min_share(
    weights: npt.NDArray[np.float64], shares: npt.NDArray[np.float64], answers: list[list[list[str]]]
) -> None:
    """Add rare sentiments to further images, where they are most probable, until each has the minimum number."""
    minimum = max(3, round(_MIN_SHARE * len(answers)))
    for label in range(len(SENTIMENTS)):
        number = str(label + 1)
        without = [row for row, image in enumerate(answers) if not any(number in answer for answer in image)]
        missing = max(0, minimum - (len(answers) - len(without)))
        for row in sorted(without, key=lambda row: -weights[row, label])[:missing]:
            answers[row][0].append(number)
            shares[row, label] += 0.3
            shares[row] /= shares[row].sum()
