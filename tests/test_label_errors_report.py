"""Tables, data frame and page of the ranked label errors."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from mlmetric.label_errors import rank_label_errors

NAMES = ["sea", "<b>trees & 'shrubs'</b>"]
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


class Page(HTMLParser):
    """The images, headings and visible text of a page."""

    def __init__(self, path):
        super().__init__()
        self.images, self.tags, self.text = [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def errors():
    labels = [[1, 0], [1, 1], [0, 1], [0, 0]]
    probabilities = [[0.9, 0.1], [0.7, 0.9], [0.8, 0.9], [0.1, 0.2]]
    return rank_label_errors(labels, probabilities=probabilities, label_names=NAMES)


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / "my images" / f"{row} 100% #é'\"&.png" for row in range(4)]
    paths[0].parent.mkdir()
    for path in paths:
        Image.new("RGB", (2, 2)).save(path)
    return paths


def test_kinds_are_separate_and_indices_select_from_the_label_matrix(errors):
    assert (len(errors), len(errors.missing), len(errors.wrong)) == (8, 4, 4)
    assert set(errors.missing.given) == {0}
    assert set(errors.wrong.given) == {1}
    assert (errors.missing.rows[0], errors.missing.labels[0], errors.missing.scores[0]) == (2, 0, 0.8)
    assert errors.wrong.suggested.tolist() == [0, 0, 0, 0]
    labels = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
    labels[errors.rows, errors.labels] = errors.suggested
    assert labels.tolist() == [[0, 1], [0, 0], [1, 0], [1, 1]]


def test_summary_shows_the_first_pairs_of_each_kind(errors):
    text = errors.summary(2)
    assert text.count("\n| ") == 2 * (2 + 2)
    assert text.startswith("Estimated errors: 1 missing and 0 wrong labels among 8 annotations.")
    assert text.index("Missing labels") < text.index("|    2 | sea ") < text.index("Wrong labels")
    assert str(errors) == errors.summary(20)
    assert "Missing" not in errors.wrong.summary()
    with pytest.raises(ValueError, match="`n` must be at least 0, got -1"):
        errors.summary(-1)


def test_frame_has_a_line_for_each_pair(errors):
    frame = errors.to_frame()
    assert list(frame.columns) == ["row", "label", "given", "suggested", "score"]
    assert frame.iloc[0].tolist() == [2, "sea", 0, 1, 0.8]
    assert (frame["given"] + frame["suggested"] == 1).all()
    assert len(frame) == len(errors)


def test_page_links_to_the_images_and_shows_names_as_text(errors, images, tmp_path):
    path = tmp_path / "pages" / "errors.html"
    errors.write_html(path, images, n=3, title="Labels <of> & mine")
    page = Page(path)
    assert len(page.images) == 6
    assert page.tags.count("h2") == 2
    assert "b" not in page.tags
    assert NAMES[1] in page.text
    assert page.text.count("Labels <of> & mine") == 2
    shown = [*errors.missing.rows[:3], *errors.wrong.rows[:3]]
    for row, image in zip(shown, page.images, strict=True):
        assert (path.parent / unquote(image["src"])).resolve() == images[row].resolve()
        assert image["alt"] == f"Image of row {row}, {images[row].name}"
        assert "%20" in image["src"]
    assert '<html lang="en">' in path.read_text()
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in path.read_text()


def test_page_contains_the_images_with_embed(errors, images, tmp_path):
    path = tmp_path / "errors.html"
    errors.write_html(path, images, n=1, embed=True)
    assert all(image["src"].startswith("data:image/png;base64,iVBOR") for image in Page(path).images)


def test_relative_paths_are_relative_to_the_working_directory(errors, images, tmp_path, monkeypatch):
    monkeypatch.chdir(images[0].parent)
    errors.write_html("errors.html", [path.name for path in images], n=1)
    page = Page(Path("errors.html"))
    assert [unquote(image["src"]) for image in page.images] == [images[2].name, images[1].name]


def test_urls_are_used_as_they_are(errors, tmp_path):
    path = tmp_path / "errors.html"
    urls = [PIXEL, "https://example.org/1.png?a=1&b=2", PIXEL, PIXEL]
    errors.write_html(path, urls, embed=True)
    assert {image["src"] for image in Page(path).images} == set(urls)
    assert Page(path).images[0]["alt"] == "Image of row 2"


def test_empty_section_says_none(tmp_path):
    path = tmp_path / "errors.html"
    rank_label_errors([[0]], probabilities=[[0.2]]).write_html(path, [PIXEL])
    assert "None." in Page(path).text


def test_images_must_exist_for_the_rows_that_are_shown(errors, images, tmp_path):
    path = tmp_path / "errors.html"
    errors.write_html(path, [*images[:3], "absent.png"], n=1)  # row 3 is not shown
    before = path.read_bytes()
    with pytest.raises(FileNotFoundError, match=r"got 'absent\.png', which is not a file"):
        errors.write_html(path, [*images[:3], "absent.png"])
    with pytest.raises(ValueError, match="one image for each row, got 2 images, none of row 3"):
        errors.write_html(path, images[:2])
    with pytest.raises(TypeError, match="`images` must be a sequence with the image of each row"):
        errors.write_html(path, "images")
    with pytest.raises(ValueError, match="`n` must be at least 0"):
        errors.write_html(path, images, n=-1)
    assert path.read_bytes() == before
