import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

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
def test_read_image_beyond_16_bits_is_refused(value, dtype, tmp_path):
    Image.fromarray(np.full((4, 4), value, dtype=dtype)).save(tmp_path / "deep.tif")
    with pytest.raises(BadImageError, match=r"deep\.tif holds numbers beyond 16 bits"):
        read_image(tmp_path / "deep.tif")


def test_read_image_of_32_bits_that_hold_8_keeps_them(tmp_path):
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
    path = tmp_path / "torn.jpg"
    picture.resize((300, 200)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadImageError, match=r"torn\.jpg is truncated or no image"):
        read_image(path)


def test_read_image_that_is_text_or_empty_or_a_folder_is_named(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("not an image")
    empty = tmp_path / "empty.png"
    empty.touch()
    for path in (text, empty, tmp_path):
        with pytest.raises(BadImageError, match=f"{path.name} is truncated or no image"):
            read_image(path)


def write_png_header(path, width, height):
    """A PNG that claims a size and holds next to no pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (12_000, 10_000)])
def test_read_image_too_large_is_refused_before_it_is_decoded(width, height, tmp_path):
    path = tmp_path / "huge.png"
    write_png_header(path, width, height)
    with pytest.raises(BadImageError, match=r"huge\.png is too large"):
        read_image(path)


def test_read_image_limit_is_a_parameter(picture, tmp_path):
    path = tmp_path / "small.png"
    picture.save(path)
    assert read_image(path, max_pixels=600).size == (30, 20)
    with pytest.raises(BadImageError, match=r"too large: 30 x 20 pixels, at most 599"):
        read_image(path, max_pixels=599)


def test_dataset_gives_transformed_images_and_their_labels(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    labels = torch.tensor([[1, 0]])
    dataset = ImageDataset(tmp_path, ["a.png"], labels, transform=lambda image: image.size)
    assert len(dataset) == 1
    size, row = dataset[0]
    assert (size, row.tolist()) == ((30, 20), [1, 0])
    assert ImageDataset(tmp_path, ["a.png"])[0][1].shape == (0,)


def test_dataset_with_another_number_of_labels_is_refused(tmp_path):
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


def test_dataset_identity_follows_folder_and_transform(picture, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        picture.save(tmp_path / name / "1.png")
        os.utime(tmp_path / name / "1.png", ns=(1, 1))
    first, other_folder = (ImageDataset(tmp_path / name, ["1.png"]).identity(0) for name in "ab")
    assert first != other_folder
    assert ImageDataset(tmp_path / "a", ["1.png"], transform=torch.nn.Identity()).identity(0) != first


def test_dataset_identity_refuses_transforms_that_cannot_be_told_apart(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    for transform in (lambda image: image, transforms.Compose([transforms.Lambda(lambda image: image)])):
        with pytest.raises(ValueError, match="must be told apart from others by its repr, got"):
            ImageDataset(tmp_path, ["a.png"], transform=transform).identity(0)


def test_dataset_identity_of_an_impossible_name_is_none(tmp_path):
    assert ImageDataset(tmp_path, ["a\0.png"]).identity(0) is None
