"""Images of unusual files: damaged metadata, several frames, palettes and other modes."""

import concurrent.futures
import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from mlmetric.data import read_image


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))


def exif_of(*entries, count=None):
    """EXIF data of entries `(tag, type, number of values, value)`, whose header may give another number of entries."""
    packed = [struct.pack("<HHII", *entry) for entry in entries]
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, count or len(packed)) + b"".join(packed) + bytes(4)


ORIENTATION, SHORT, TEXT, LONG, RATIONAL = 0x0112, 3, 2, 4, 5
QUARTER = (ORIENTATION, SHORT, 1, 6)


@pytest.mark.parametrize(
    ("exif", "is_turned"),
    [
        (exif_of((ORIENTATION, SHORT, 1, 9)), False),  # there are 1 to 8
        (exif_of((ORIENTATION, TEXT, 2, ord("6"))), False),
        (exif_of((ORIENTATION, RATIONAL, 1, 9999)), False),  # the value is beyond the end
        (exif_of((ORIENTATION, 99, 1, 6)), False),
        (exif_of((ORIENTATION, SHORT, 2, 6)), True),  # two values
        (exif_of((ORIENTATION, LONG, 1, 6)), True),
        (exif_of((0x010E, TEXT, 1000, 5000), QUARTER), True),  # a text beyond the end
        (exif_of((0x8825, LONG, 1, 70_000), QUARTER), True),  # a position beyond the end
        (exif_of((0x8769, LONG, 1, 8), QUARTER), True),  # a loop
        (exif_of(QUARTER, count=500), True),
        (b"Exif\0\0II*\0", False),
        (b"Exif\0\0", False),
        (b"Exif\0\0II*\0" + struct.pack("<I", 90_000), False),
    ],
)
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_read_image_uses_an_orientation_among_damaged_exif_data(exif, is_turned, action, picture, tmp_path):
    picture.save(tmp_path / "a.jpg", exif=exif)
    filters = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        image = read_image(tmp_path / "a.jpg")
    assert image.size == ((20, 30) if is_turned else (30, 20))
    assert warnings.filters == filters


@pytest.mark.parametrize("exif", [b"", exif_of(QUARTER, (0x010E, TEXT, 1000, 5000))])  # the second warns
def test_read_image_from_threads_leaves_the_warning_filters_as_they_were(exif, picture, tmp_path):
    picture.save(tmp_path / "a.jpg", exif=exif)
    before = list(warnings.filters)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(lambda _: read_image(tmp_path / "a.jpg").size, range(200)))
    assert set(sizes) == {(20, 30) if exif else (30, 20)}
    assert warnings.filters == before


def test_read_image_of_a_malformed_multi_picture_file_gives_its_first_picture(picture, tmp_path):
    picture.save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    expected = np.asarray(read_image(tmp_path / "a.jpg"))
    (tmp_path / "a.jpg").write_bytes(content[:2] + b"\xff\xe2" + struct.pack(">H", 10) + b"MPF\0II*\0" + content[2:])
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.jpg")), expected)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_read_image_of_several_frames_gives_the_first(name, tmp_path):
    frames = [Image.new("RGB", (30, 20), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert read_image(tmp_path / name).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.png", {"transparency": 0}),
        ("a.png", {"transparency": bytes(range(256))}),
        ("a.gif", {}),
        ("a.gif", {"transparency": 0}),
        ("a.bmp", {}),
        ("a.tif", {}),
    ],
)
def test_read_image_of_a_palette_gives_its_colours(name, options, picture, tmp_path):
    indexed = picture.quantize(16)
    indexed.save(tmp_path / name, **options)
    assert np.array_equal(np.asarray(read_image(tmp_path / name)), np.asarray(indexed.convert("RGB")))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.pbm", "a.gif"])
def test_read_image_of_one_bit_gives_black_and_white(name, picture, tmp_path):
    bits = picture.convert("1")
    bits.save(tmp_path / name)
    expected = np.repeat(np.asarray(bits)[..., None], 3, axis=2) * 255
    assert np.array_equal(np.asarray(read_image(tmp_path / name)), expected)


def test_read_image_of_cmyk_and_grey_with_transparency_gives_their_colours(tmp_path):
    Image.new("CMYK", (30, 20), (255, 0, 0, 0)).save(tmp_path / "a.jpg", quality=100)
    cyan = np.asarray(read_image(tmp_path / "a.jpg")).astype(int)
    assert abs(cyan - [0, 255, 255]).max() <= 3
    Image.new("LA", (30, 20), (70, 0)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").getpixel((0, 0)) == (70, 70, 70)
