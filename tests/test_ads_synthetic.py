import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from ads.posters import LOOKS, draw_poster
from ads.reader import read_annotations
from ads.synthetic import SENTIMENTS, make_synthetic_ads

NUM_IMAGES = 90


@pytest.fixture(scope="module")
def ads(tmp_path_factory):
    return make_synthetic_ads(tmp_path_factory.mktemp("ads") / "set", num_images=NUM_IMAGES, seed=3, size=32)


@pytest.fixture(scope="module")
def annotations(ads):
    return read_annotations(ads.annotations, ads.label_list)


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_generated_set_has_the_format_that_the_reader_reads(ads, annotations):
    assert ads.annotations == ads.image_root / "annotations_images" / "image" / "Sentiments.json"
    assert len(annotations.paths) + annotations.dropped_images == NUM_IMAGES
    assert len(annotations.label_names) == 30
    assert (annotations.label_names[0], annotations.label_names[29]) == ("active", "youthful")
    for path in annotations.paths:
        with Image.open(ads.image_root / path) as poster:
            assert min(poster.size) == 32
            assert poster.format == ("PNG" if path.startswith("10/") else "JPEG")
    assert {path.split("/")[0] for path in annotations.paths} == {"0", "1", "2", "10"}


def test_generated_label_list_is_latin_1_with_two_lines_without_parenthesis(ads):
    lines = ads.label_list.read_bytes().splitlines()
    assert sum(line.count(b"\xa0(") for line in lines) == 28
    assert lines[21] == b'22. "Jealous" (ABBREVIATION: "jealous")'


def test_generated_set_is_called_synthetic(ads):
    assert "This is a synthetic set" in (ads.image_root / "README.txt").read_text()
    assert json.loads((ads.image_root / "synthetic.json").read_text())["synthetic"] is True


def test_generated_slogans_are_the_headlines_drawn_on_the_posters(ads, monkeypatch, tmp_path):
    drawn = []

    def draw(rng, shown, headline, size):
        drawn.append(headline)
        return draw_poster(rng, shown, headline, size)

    monkeypatch.setattr("ads.synthetic.draw_poster", draw)
    again = make_synthetic_ads(tmp_path, num_images=NUM_IMAGES, seed=3, size=32)
    slogans = json.loads(ads.slogans.read_text())
    assert ads.slogans == ads.annotations.parent / "Slogans.json"
    assert list(slogans) == list(json.loads(ads.annotations.read_text()))
    assert list(slogans.values()) == [[headline] for headline in drawn]
    assert contents(again.image_root) == contents(ads.image_root)


def test_a_finished_set_without_slogans_is_completed_with_its_own(ads, monkeypatch, tmp_path):
    parameters = {"num_images": NUM_IMAGES, "seed": 3, "size": 32}
    older = make_synthetic_ads(tmp_path, **parameters)
    older.slogans.unlink()
    monkeypatch.setattr("ads.synthetic.draw_poster", lambda *_: pytest.fail("drew a poster again"))
    make_synthetic_ads(tmp_path, **parameters)
    assert contents(tmp_path) == contents(ads.image_root)


def test_generated_images_have_three_to_five_annotators_who_disagree(annotations):
    assert set(annotations.num_annotators.tolist()) == {3, 4, 5}
    votes_per_answer = annotations.votes.sum() / annotations.num_annotators.sum()
    assert 1.35 < votes_per_answer < 1.75
    agreed = annotations.labels(min_votes=2).sum() / len(annotations.paths)
    assert 0.5 < agreed < 1.2
    assert annotations.skipped_answers[""] > 0
    assert len(annotations.skipped_answers) > 1


def test_generated_labels_are_skewed_with_a_minimum(annotations):
    labels = annotations.labels().numpy()
    counts = labels.sum(0)
    assert 3.7 < labels.sum(1).mean() < 4.6
    assert counts.min() >= 3
    assert counts.max() >= 8 * counts.min()
    common = {annotations.label_names[index] for index in np.argsort(counts)[-8:]}
    assert {"eager", "creative", "active", "fashionable"} <= common


def test_the_same_seed_gives_the_same_bytes(ads, tmp_path):
    again = make_synthetic_ads(tmp_path, num_images=NUM_IMAGES, seed=3, size=32)
    assert contents(again.image_root) == contents(ads.image_root)


def test_another_seed_gives_another_set(ads, tmp_path):
    other = make_synthetic_ads(tmp_path, num_images=NUM_IMAGES, seed=4, size=32)
    assert other.annotations.read_bytes() != ads.annotations.read_bytes()
    assert (tmp_path / "0/10000.jpg").read_bytes() != (ads.image_root / "0/10000.jpg").read_bytes()


def test_a_set_that_was_interrupted_is_completed_by_the_next_call(ads, tmp_path):
    def interrupted(indices):
        for index in indices:
            if index == 20:
                raise KeyboardInterrupt
            yield index

    parameters = {"num_images": NUM_IMAGES, "seed": 3, "size": 32}
    with pytest.raises(KeyboardInterrupt):
        make_synthetic_ads(tmp_path, **parameters, progress=interrupted)
    assert len(list(tmp_path.glob("*/1*"))) == 20
    assert not list(tmp_path.rglob("Sentiments.json"))
    # The temporary file of a process that was killed while it wrote the next poster.
    (tmp_path / "0/10140.jpg.1.unfinished").write_bytes(b"half")
    make_synthetic_ads(tmp_path, **parameters)
    assert contents(tmp_path) == contents(ads.image_root) | {"0/10140.jpg.1.unfinished": b"half"}


def test_a_set_that_was_interrupted_before_its_marker_is_generated_anew(tmp_path):
    (tmp_path / "synthetic.json.1.unfinished").write_bytes(b"{")
    assert make_synthetic_ads(tmp_path, num_images=30, size=32).annotations.exists()


@pytest.mark.slow
def test_several_threads_generate_the_same_set_as_one(ads, tmp_path):
    parameters = {"num_images": NUM_IMAGES, "seed": 3, "size": 32}
    for attempt in range(3):
        root = tmp_path / str(attempt)
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(make_synthetic_ads, root, **parameters) for _ in range(4)]
        assert len({future.result() for future in futures}) == 1
        assert contents(root) == contents(ads.image_root)


def test_a_finished_set_is_reused(ads, monkeypatch):
    monkeypatch.setattr("ads.synthetic.write_atomically", lambda *_: pytest.fail("wrote to a finished set"))
    assert make_synthetic_ads(ads.image_root, num_images=NUM_IMAGES, seed=3, size=32) == ads


def test_a_set_with_other_parameters_raises_and_is_not_changed(ads):
    before = contents(ads.image_root)
    with pytest.raises(FileExistsError, match=r"`root` must not contain .*'seed': 5.* has .*'seed': 3.*Delete"):
        make_synthetic_ads(ads.image_root, num_images=NUM_IMAGES, seed=5, size=32)
    assert contents(ads.image_root) == before


def test_a_folder_with_other_files_raises(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"`root` must be a new or empty folder, but .* files that are not"):
        make_synthetic_ads(tmp_path)
    assert contents(tmp_path) == {"mine.txt": b"mine"}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_images": 29}, "`num_images` must be at least 30, the number of sentiments, got 29"),
        ({"size": 31}, "`size` must be at least 32 pixels, got 31"),
    ],
)
def test_too_small_a_set_raises(tmp_path, arguments, match):
    with pytest.raises(ValueError, match=match):
        make_synthetic_ads(tmp_path, **arguments)


def test_every_sentiment_has_a_different_look():
    assert list(LOOKS) == [sentiment.abbreviation for sentiment in SENTIMENTS]
    assert len(set(LOOKS.values())) == len({(look.motif, look.frequency) for look in LOOKS.values()}) == 30


def test_posters_look_like_their_sentiment():
    def brightness(name):
        generator = np.random.default_rng(0)
        return np.mean([np.asarray(draw_poster(generator, {name: 1.0}, "be", 64)).mean() for _ in range(5)])

    assert brightness("feminine") > brightness("manly") + 20
