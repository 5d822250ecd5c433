import os

import pytest

from ads.user_files import AnnotationError, image_path, label_name, quote, read_file


def test_read_file_reads_links_and_rejects_files_that_are_not_regular(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    assert read_file(tmp_path / "link", "CSV file") == b"content"
    for name in ("nowhere", "loop"):
        with pytest.raises(FileNotFoundError, match=rf"There is no CSV file at .*{name}\. Check the path"):
            read_file(tmp_path / name, "CSV file")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(AnnotationError, match=rf"CSV file .*{path.name} must be a regular file"):
            read_file(path, "CSV file")


def test_the_error_of_read_file_names_the_file(tmp_path, monkeypatch):
    (tmp_path / "file").touch()

    def fails(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pathlib.Path.read_bytes", fails)
    with pytest.raises(OSError, match=r"Input/output error: '.*file'"):
        read_file(tmp_path / "file", "CSV file")


@pytest.mark.parametrize(
    "text", ["a/b.jpg", "./a/b.jpg", "a//b.jpg", "a/./b.jpg", "a/c/../b.jpg", "c/../a/b.jpg", "./././a///b.jpg"]
)
def test_image_path_is_normalised(text):
    assert image_path(text, "here") == "a/b.jpg"


@pytest.mark.parametrize(
    "text", [" a.jpg", "a b/c.jpg", "..a.jpg", "a..jpg", "...", "caf\udce9.jpg", "café.jpg", r"a\b.jpg"]
)
def test_image_path_keeps_any_bytes(text):
    assert image_path(text, "here") == text


@pytest.mark.parametrize(
    "text", ["", " ", ".", "a/..", "..", "../a", "a/../../b", "/a", "//a", r"..\a", r"a\..\..\b", "C:a", r"\\b\c\d"]
)
def test_image_path_outside_the_folder_raises(text):
    with pytest.raises(AnnotationError, match=r"^here is not a path in the image folder\. .* relative to that folder"):
        image_path(text, "here")


@pytest.mark.parametrize("text", ["a\0b", "a/\0/../b", "\ud800", "a" * 256, "é" * 128, "ab/" * 342])
def test_image_path_that_is_not_a_valid_file_name_raises(text):
    with pytest.raises(AnnotationError, match=r"here is not a path in the image folder\. .*at most 1,024 bytes"):
        image_path(text, "here")


def test_label_name_is_stripped_and_can_contain_any_letters():
    assert label_name(" café 海\u200d \n", "here") == "café 海\u200d"


@pytest.mark.parametrize("text", ["", " \t", "a\nb", "a\0", "a\x1b[1m", "\udce9"])
def test_label_name_that_is_empty_or_contains_control_characters_raises(text):
    with pytest.raises(AnnotationError, match=r"here must be the name of a label, without .*, got '"):
        label_name(text, "here")


def test_quotations_are_short():
    nested = "deep"
    for _ in range(5000):
        nested = [nested]
    for value in ("x" * 10**6, ["y" * 10**6] * 100, [[["z" * 100] * 9] * 9] * 9, nested):
        assert len(quote(value)) <= 120
    assert quote(["1", 2, None]) == "['1', 2, None]"
