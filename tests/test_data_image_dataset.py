import errno
import os
import pickle
import stat
import struct
import subprocess
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from mlmetric.data import BadImageError, ImageDataset, read_image


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "I;16", "RGBA", "1", "LA"])
def test_read_image_gives_rgb_whatever_the_mode(mode, picture, tmp_path):
    path = tmp_path / ("image.tif" if mode in {"CMYK", "I;16"} else "image.png")
    (picture.convert("I").convert("I;16") if mode == "I;16" else picture.convert(mode)).save(path)
    image = read_image(path)
    assert (image.mode, image.size) == ("RGB", (30, 20))


def test_read_image_of_16_bits_keeps_its_greys(tmp_path):
    Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16)[None]).save(tmp_path / "deep.png")
    greys = np.asarray(read_image(tmp_path / "deep.png"))[0, :, 0]
    assert abs(greys.astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize(("value", "dtype"), [(70_000, np.int32), (0.8, np.float32)])
def test_read_image_beyond_16_bits_raises(value, dtype, tmp_path):
    Image.fromarray(np.full((4, 4), value, dtype=dtype)).save(tmp_path / "deep.tif")
    with pytest.raises(BadImageError, match=r"deep\.tif contains values beyond 16 bits"):
        read_image(tmp_path / "deep.tif")


def test_read_image_of_32_bits_with_values_of_8_keeps_them(tmp_path):
    Image.fromarray(np.full((4, 4), 200, dtype=np.int32)).save(tmp_path / "deep.tif")
    assert np.asarray(read_image(tmp_path / "deep.tif")).min() == 200


def test_read_image_turns_photographs_upright(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (20, 30)


def test_read_image_missing_is_named(tmp_path):
    with pytest.raises(BadImageError, match=r"gone\.jpg does not exist"):
        read_image(tmp_path / "gone.jpg")


def test_read_image_truncated_is_named(picture, tmp_path):
    path = tmp_path / "truncated.jpg"
    picture.resize((300, 200)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadImageError, match=r"truncated\.jpg is truncated or not an image"):
        read_image(path)


def test_read_image_that_is_text_or_empty_or_a_folder_is_named(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("not an image")
    empty = tmp_path / "empty.png"
    empty.touch()
    for path in (text, empty):
        with pytest.raises(BadImageError, match=f"{path.name} is truncated or not an image"):
            read_image(path)
    with pytest.raises(BadImageError, match=f"{tmp_path.name} is not a regular file"):
        read_image(tmp_path)


def broken_exif(picture, path, kind):
    if kind == "no tiff":
        picture.save(path, exif=b"Exif\0\0garbage-not-tiff")
    elif kind == "no hexadecimals":
        text = PngInfo()
        text.add_text("Raw profile type exif", "\nexif\n  4\nzzzz\n")
        picture.save(path, pnginfo=text)
    elif kind == "truncated":
        exif = Image.Exif()
        exif[0x010E] = "a description of some length"
        picture.save(path, exif=exif.tobytes()[:-8])
    else:
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[34665] = 10**6  # where the camera's settings should be
        tags.tagtype[34665] = TiffImagePlugin.TiffTags.LONG
        picture.save(path, tiffinfo=tags)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "no tiff"),
        ("a.webp", "no tiff"),
        ("a.jpg", "no tiff"),
        ("a.png", "no hexadecimals"),
        ("a.png", "truncated"),
        ("a.webp", "truncated"),
        ("a.tif", "leads outside"),
    ],
)
def test_read_image_with_broken_exif_gives_the_pixels_as_they_are(name, kind, picture, tmp_path):
    broken_exif(picture, tmp_path / name, kind)
    with warnings.catch_warnings(action="ignore"), Image.open(tmp_path / name) as plain:
        expected = np.asarray(plain)
    assert np.array_equal(np.asarray(read_image(tmp_path / name)), expected)


def test_read_image_is_upright_and_stays_so_when_rotated_again_and_can_be_pickled(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "a.png", "a.webp", "a.tif"):
        picture.save(tmp_path / name, exif=exif)
        image = read_image(tmp_path / name)
        again = ImageOps.exif_transpose(pickle.loads(pickle.dumps(image)))
        assert (image.size, again.size) == ((20, 30), (20, 30))
        assert np.array_equal(np.asarray(again), np.asarray(image))


def test_read_image_starts_no_program_on_a_postscript_file(tmp_path, monkeypatch):
    path = tmp_path / "x.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **_: started.append(args))
    monkeypatch.setattr(subprocess, "check_call", lambda *args, **_: started.append(args))
    with pytest.raises(BadImageError, match=r"x\.jpg is truncated or not an image"):
        read_image(path)
    assert started == []


@pytest.mark.parametrize("name", ["a.bmp", "a.gif", "a.jpg", "a.png", "a.ppm", "a.tif", "a.webp"])
def test_read_image_recognises_formats_by_content_not_by_name(name, picture, tmp_path):
    picture.save(tmp_path / name)
    (tmp_path / name).rename(tmp_path / "image")
    assert read_image(tmp_path / "image").size == (30, 20)


@pytest.mark.parametrize("name", ["a.ico", "a.pcx", "a.sgi", "a.tga"])
def test_read_image_of_another_format_raises(name, picture, tmp_path):
    picture.save(tmp_path / name)
    with pytest.raises(BadImageError, match=rf"{name} is truncated or not an image"):
        read_image(tmp_path / name)


def test_read_image_reads_regular_files_only_and_follows_links(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    (tmp_path / "folder").symlink_to(tmp_path)
    for name, target in [
        ("link", "a.png"),
        ("two", "folder/link"),
        ("itself", "itself"),
        ("dangling", "gone"),
        ("below", "a.png/b.png"),
    ]:
        (tmp_path / name).symlink_to(target)
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "two", "folder/two"):
        assert read_image(tmp_path / name).size == (30, 20)
    for name in ("itself", "dangling", "below", "a.png/b.png", "n" * 300, "a\0b"):
        with pytest.raises(BadImageError, match="does not exist"):
            read_image(tmp_path / name)
    for path in (tmp_path / "fifo", "/dev/zero"):
        with pytest.raises(BadImageError, match=f"{path} is not a regular file"):
            read_image(path)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOMEM])
@pytest.mark.parametrize("place", ["stat", "open", "decode"])
def test_read_image_where_the_machine_fails_raises_oserror(code, place, picture, tmp_path, monkeypatch):
    picture.save(tmp_path / "a.png")

    def fail(*_, **__):
        raise OSError(code, os.strerror(code), str(tmp_path / "a.png"))

    if place == "stat":
        monkeypatch.setattr(stat, "S_ISREG", fail)
    elif place == "open":
        monkeypatch.setattr(Path, "open", fail)
    else:
        monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(OSError, match=r"a\.png") as error:
        read_image(tmp_path / "a.png")
    assert error.value.errno == code


def test_read_image_without_memory_is_an_error_of_the_machine_that_names_the_image(picture, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    picture.save(tmp_path / "a.png")
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", fail)
        with pytest.raises(OSError, match=r"a\.png could not be read: there was not enough memory") as error:
            read_image(tmp_path / "a.png")
    assert error.value.errno == errno.ENOMEM
    with pytest.raises(OSError, match=r"not enough memory for the `transform` of .*a\.png, 30 x 20 pixels"):
        ImageDataset(tmp_path, ["a.png"], transform=fail)[0]


@pytest.mark.parametrize("size", [(1, 60_000), (16_000, 1), (3, 4_600)])
def test_read_image_so_thin_that_it_is_too_large_after_resizing_raises(size, tmp_path):
    Image.new("RGB", size).save(tmp_path / "thin.png")
    with pytest.raises(
        BadImageError, match=rf"thin\.png is too thin: its {size[0]} x {size[1]} pixels .* resized to 256"
    ):
        read_image(tmp_path / "thin.png")


def test_read_image_of_a_banner_is_not_too_thin(tmp_path):
    Image.new("RGB", (1500, 1)).save(tmp_path / "banner.png")
    assert read_image(tmp_path / "banner.png", max_pixels=1500).size == (1500, 1)


def test_read_image_copies_no_pixels_of_an_upright_rgb_image(picture, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a copy")

    picture.save(tmp_path / "a.png")
    for name in ("copy", "convert", "transpose"):
        monkeypatch.setattr(Image.Image, name, fail)
    assert read_image(tmp_path / "a.png").size == (30, 20)


def test_read_image_of_a_transparent_palette_warns_of_nothing(picture, tmp_path):
    picture.convert("P").save(tmp_path / "a.png", transparency=bytes(range(10)))
    assert read_image(tmp_path / "a.png").mode == "RGB"


def write_png_header(path, width, height):
    """A PNG whose header gives a size and which has hardly any pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (12_000, 10_000)])
def test_read_image_too_large_raises_before_it_is_decoded(width, height, tmp_path):
    path = tmp_path / "huge.png"
    write_png_header(path, width, height)
    with pytest.raises(BadImageError, match=r"huge\.png is too large"):
        read_image(path)


def test_read_image_limit_is_a_parameter(picture, tmp_path):
    path = tmp_path / "small.png"
    picture.save(path)
    assert read_image(path, max_pixels=600).size == (30, 20)
    with pytest.raises(BadImageError, match=r"too large: it has 30 x 20 pixels, at most 599"):
        read_image(path, max_pixels=599)


def test_dataset_gives_transformed_images_and_their_labels(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    labels = torch.tensor([[1, 0]])
    dataset = ImageDataset(tmp_path, ["a.png"], labels, transform=lambda image: image.size)
    assert len(dataset) == 1
    size, row = dataset[0]
    assert (size, row.tolist()) == ((30, 20), [1, 0])
    assert ImageDataset(tmp_path, ["a.png"])[0][1].shape == (0,)


def test_dataset_with_another_number_of_labels_raises(tmp_path):
    with pytest.raises(ValueError, match="must have 2 rows, one for each of `paths`, got 3"):
        ImageDataset(tmp_path, ["a.png", "b.png"], torch.zeros(3, 1))


def test_dataset_identity_follows_the_file(picture, tmp_path):
    path = tmp_path / "a.png"
    dataset = ImageDataset(tmp_path, ["a.png"])
    assert dataset.identity(0) is None
    picture.save(path)
    first = dataset.identity(0)
    assert first == dataset.identity(0)
    assert len(first) == 32
    os.utime(path, ns=(1, 1))
    assert dataset.identity(0) != first


def test_dataset_identity_where_the_machine_fails_is_an_error_and_not_none(picture, tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    picture.save(tmp_path / "a.png")
    (tmp_path / "itself.png").symlink_to("itself.png")
    assert ImageDataset(tmp_path, ["itself.png"]).identity(0) is None
    monkeypatch.setattr(Path, "stat", fail)
    with pytest.raises(OSError, match="Input/output error"):
        ImageDataset(tmp_path, ["a.png"]).identity(0)


def test_dataset_identity_follows_folder_and_transform(picture, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        picture.save(tmp_path / name / "1.png")
        os.utime(tmp_path / name / "1.png", ns=(1, 1))
    first, other_folder = (ImageDataset(tmp_path / name, ["1.png"]).identity(0) for name in "ab")
    assert first != other_folder
    assert ImageDataset(tmp_path / "a", ["1.png"], transform=torch.nn.Identity()).identity(0) != first


def test_dataset_identity_of_an_impossible_name_is_none(tmp_path):
    assert ImageDataset(tmp_path, ["a\0.png"]).identity(0) is None
