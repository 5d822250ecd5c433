import hashlib
import json
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError

import pytest
from PIL import Image, ImageDraw, ImageFont

from mlmetric._fingerprint import fingerprint
from mlmetric.data import BadImageError, BadImagesError
from mlmetric.text import TextReader
from mlmetric.text._ocr_engine import _text_box, resize_to_area
from mlmetric.text._reading_order import TextBox, join_in_reading_order

ODD_TEXTS = [
    "",
    "grand sale",
    "größte Auswahl\n大減価 برای شما",
    "a\x00\r\n\x1b\u2028b",
    "\ud83d\ude00 \udfff",
    "🎉 \ufeff",
]


def box(text, left, top, *, width=50.0, height=20.0, confidence=0.99):
    return TextBox(left, top, left + width, top + height, text, confidence)


@pytest.fixture
def engine(monkeypatch):
    """A stub that "reads" the red value of the first pixel, and counts its calls in `engine.read`."""

    class Stub:
        read: list[int]
        texts: dict[int, str]
        loaded = 0

        def __init__(self):
            self.read, self.texts = [], {}

        def load(self, image_side):
            self.loaded += 1
            return self

        def __call__(self, image):
            value = image.getpixel((0, 0))[0]
            self.read.append(value)
            return [box(self.texts.get(value, f"text {value}"), 0, 0)]

    stub = Stub()
    monkeypatch.setattr("mlmetric.text._text_reader.load_ocr_engine", stub.load)
    monkeypatch.setattr(
        "mlmetric.text._text_reader.join_in_reading_order", lambda boxes: "".join(b.text for b in boxes)
    )
    monkeypatch.setattr("mlmetric.text._text_reader.ocr_engine_version", lambda: "stub 1")
    return stub


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for value in range(6):
        Image.new("RGB", (4, 4), (value, 0, 0)).save(root / f"{value}.png")
    return root


PATHS = [f"{value}.png" for value in range(6)]


# Reading order


def test_boxes_are_joined_by_lines_from_top_to_bottom_and_from_left_to_right():
    boxes = [
        box("everything", 10, 60),
        box("off", 90, 64, height=18),
        box("Summer", 10, 20),
        box("sale", 70, 23),
        box("must", 80, 58),
        box("go", 150, 62),
        box("70 %", 20, 100),
        box("today", 10, 130),
    ]
    expected = "Summer sale\neverything must off go\n70 %\ntoday"
    for seed in range(20):
        shuffled = random.Random(seed).sample(boxes, len(boxes))
        assert join_in_reading_order(shuffled) == expected


def test_a_tall_box_beside_two_lines_is_a_line_of_its_own():
    boxes = [box("50 %", 0, 0, height=44), box("up to", 60, 0), box("on all", 60, 24)]
    assert join_in_reading_order(boxes) == "up to\n50 %\non all"


@pytest.mark.parametrize(("shift", "expected"), [(9.9, "low high"), (10.1, "high\nlow")])
def test_boxes_that_share_half_of_their_height_are_one_line(shift, expected):
    assert join_in_reading_order([box("high", 60, 0), box("low", 0, shift)]) == expected


def test_lines_that_ascend_are_not_mixed():
    # Two lines at 10 degrees: their bounding boxes overlap, but not the mean heights of their corners.
    corners = [[[0, y + 88], [500, y], [507, y + 39], [7, y + 127]] for y in (0, 50)]
    boxes = [_text_box(quadrilateral, text, 1.0) for quadrilateral, text in zip(corners, "ab", strict=True)]
    assert (boxes[0].top, boxes[0].bottom, boxes[0].left, boxes[0].right) == (44, 83, 0, 507)
    assert join_in_reading_order(reversed(boxes)) == "a\nb"


def test_blanks_are_reduced_and_boxes_without_text_left_out():
    boxes = [box("  grand\t sale ", 0, 0), box(" ", 80, 0), box("\n", 0, 40), box("now", 0, 80)]
    assert join_in_reading_order(boxes) == "grand sale\nnow"
    assert join_in_reading_order([]) == ""


# One image


def test_an_image_and_its_file_have_the_same_text(engine, folder):
    reader = TextReader()
    assert reader(folder / "3.png") == reader(str(folder / "3.png")) == "text 3"
    with Image.open(folder / "3.png") as image:
        assert reader(image) == reader(image.convert("RGBA")) == "text 3"
    assert engine.loaded == 1


def test_text_of_low_confidence_is_left_out(monkeypatch, folder):
    boxes = [box("sure", 0, 0, confidence=0.6), box("unsure", 0, 40, confidence=0.59)]
    monkeypatch.setattr("mlmetric.text._text_reader.load_ocr_engine", lambda side: lambda image: boxes)
    assert TextReader(min_confidence=0.6)(folder / "0.png") == "sure"
    assert TextReader(min_confidence=0)(folder / "0.png") == "sure\nunsure"
    assert TextReader(min_confidence=1.0)(folder / "0.png") == ""


def test_what_is_not_an_image_raises(engine, tmp_path):
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(BadImageError, match=r"notes\.txt is truncated or not an image"):
        TextReader()(tmp_path / "notes.txt")
    with pytest.raises(BadImageError, match="the image is too thin"):
        TextReader()(Image.new("L", (20_000, 1)))
    with pytest.raises(TypeError, match=r"`image` must be a `PIL.Image.Image` or a path, got bytes\."):
        TextReader()(b"image")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1600, 900), (1333, 750)),
        ((500, 500), (1000, 1000)),
        ((100, 50), (200, 100)),
        ((4, 400), (32, 800)),
        ((40_000, 30), (36_515, 32)),
    ],
)
def test_images_are_resized_to_one_area_within_limits(size, expected):
    assert resize_to_area(Image.new("RGB", size), 1000).size == expected


# Parameters


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "0.5", None, True])
def test_min_confidence_outside_its_range_raises(value):
    with pytest.raises(ValueError, match=r"`min_confidence` must be a number in \[0, 1\], got"):
        TextReader(min_confidence=value)


@pytest.mark.parametrize("value", [31, 4097, 640.0, None])
def test_image_side_outside_its_range_raises(value):
    with pytest.raises(ValueError, match="`image_side` must be a whole number from 32 to 4096, got"):
        TextReader(image_side=value)


def test_reader_survives_its_configuration_and_pickling(engine, folder):
    reader = TextReader(min_confidence=0.25, image_side=500)
    assert reader(folder / "1.png") == "text 1"  # the engine is not pickled
    config = json.loads(json.dumps(reader.to_config()))
    for copy in (TextReader(**config), pickle.loads(pickle.dumps(reader))):
        assert copy == reader
        assert hash(copy) == hash(reader)
        assert copy.fingerprint() == reader.fingerprint()
        assert repr(copy) == "TextReader(min_confidence=0.25, image_side=500)"
        assert copy(folder / "1.png") == "text 1"
    assert TextReader() != reader


def test_fingerprint_changes_with_parameters_and_version(engine, monkeypatch):
    prints = {TextReader(**config).fingerprint() for config in ({}, {"min_confidence": 0.1}, {"image_side": 100})}
    monkeypatch.setattr("mlmetric.text._text_reader.ocr_engine_version", lambda: "stub 2")
    assert len(prints | {TextReader().fingerprint()}) == 4
    assert TextReader(min_confidence=1).fingerprint() == TextReader(min_confidence=1.0).fingerprint()
    assert fingerprint(reader=TextReader()) != fingerprint(reader=TextReader(image_side=100))


@pytest.mark.parametrize("missing", ["rapidocr", "onnxruntime"])
def test_missing_package_raises_an_error_that_names_the_extra(missing, monkeypatch, folder):
    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr("mlmetric.text._ocr_engine.version", version)
    for call in (lambda: TextReader()(folder / "0.png"), TextReader().fingerprint):
        with pytest.raises(ImportError, match=r'pip install "mlmetric\[ocr\]"'):
            call()


def test_import_of_text_imports_no_large_package():
    program = (
        "import sys, mlmetric.text; mlmetric.text.TextReader();"
        "print(sorted({'torch', 'rapidocr', 'onnxruntime', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


# Many files


def test_paths_that_are_none_are_named():
    with pytest.raises(TypeError, match=r"`paths\[1\]` must be a path, got nan of type float"):
        TextReader().read_files(["a.png", float("nan")])


@pytest.mark.parametrize("num_workers", [1, 3])
def test_files_are_read_once_in_the_given_order(engine, folder, tmp_path, num_workers):
    calls = []
    texts = TextReader().read_files(
        ["5.png", "0.png", folder / "3.png", "0.png"],
        root=folder,
        num_workers=num_workers,
        progress=lambda *counts: calls.append(counts),
    )
    assert texts == ["text 5", "text 0", "text 3", "text 0"]
    assert sorted(engine.read) == [0, 3, 5]
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert engine.loaded <= num_workers
    assert TextReader().read_files([], root=folder, cache_dir=tmp_path / "cache") == []


def test_cached_texts_are_not_read_again_wherever_the_file_is(engine, folder, tmp_path):
    cache = tmp_path / "cache"
    first = TextReader().read_files(PATHS, root=folder, cache_dir=cache)
    folder.rename(tmp_path / "moved")
    assert TextReader().read_files(PATHS[::-1], root=tmp_path / "moved", cache_dir=cache) == first[::-1]
    assert len(engine.read) == 6
    Image.new("RGB", (4, 4), (77, 0, 0)).save(tmp_path / "moved/2.png")
    assert TextReader().read_files(PATHS, root=tmp_path / "moved", cache_dir=cache)[2] == "text 77"
    assert engine.read[6:] == [77]
    TextReader(image_side=100).read_files(PATHS, root=tmp_path / "moved", cache_dir=cache)
    assert len(engine.read) == 13


def test_any_text_survives_the_cache(engine, folder, tmp_path):
    engine.texts = dict(enumerate(ODD_TEXTS))
    for _ in range(2):
        assert TextReader().read_files(PATHS, root=folder, cache_dir=tmp_path / "cache") == ODD_TEXTS
    assert len(engine.read) == 6


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "rename"])
def test_a_damaged_text_is_noticed_and_read_again(engine, folder, tmp_path, damage, caplog):
    cache = tmp_path / "cache"
    expected = TextReader().read_files(PATHS, root=folder, cache_dir=cache)
    path, other = sorted(cache.rglob("*.txt"))[:2]
    content = path.read_bytes()
    damaged = {
        "flip": content[:-1] + bytes([content[-1] ^ 1]),
        "truncate": content[:-1],
        "empty": b"",
        "rename": other.read_bytes(),
    }
    path.write_bytes(damaged[damage])
    assert TextReader().read_files(PATHS, root=folder, cache_dir=cache) == expected
    assert len(engine.read) == 7
    assert f"{path} is damaged or changed; it is replaced." in caplog.text
    assert path.read_bytes() == content


def test_cache_files_have_the_documented_format(engine, folder, tmp_path):
    TextReader().read_files(["4.png"], root=folder, cache_dir=tmp_path / "cache")
    key = hashlib.sha256((folder / "4.png").read_bytes()).hexdigest()
    path = tmp_path / "cache" / TextReader().fingerprint()[:32] / key[:2] / f"{key}.txt"
    digest = hashlib.sha256(f"{key}\ntext 4".encode()).hexdigest()
    assert path.read_bytes() == f"{digest}\ntext 4".encode()
    assert [file for file in tmp_path.rglob("cache/**/*") if file.is_file()] == [path]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_interrupted_run_keeps_what_it_has_read(engine, folder, tmp_path, num_workers):
    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    options = {"root": folder, "cache_dir": tmp_path / "cache", "num_workers": num_workers}
    with pytest.raises(KeyboardInterrupt):
        TextReader().read_files(PATHS, **options, progress=interrupt)
    assert TextReader().read_files(PATHS, **options) == [f"text {value}" for value in range(6)]
    assert sorted(engine.read) == list(range(6))


_KILLED = """
import sys, time
from mlmetric.text import _text_reader
def load(side):
    def read(image):
        with open("read.log", "a") as log:
            print(image.getpixel((0, 0))[0], file=log)
        time.sleep(float(sys.argv[1]))
        return []
    return read
_text_reader.load_ocr_engine = load
_text_reader.ocr_engine_version = lambda: "stub 1"
_text_reader.TextReader().read_files([f"{value}.png" for value in range(6)], root="images", cache_dir="cache")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_loses_only_the_image_being_read(folder, tmp_path):
    run = subprocess.Popen([sys.executable, "-c", _KILLED, "0.5"], cwd=tmp_path)
    log, limit = tmp_path / "read.log", time.monotonic() + 60
    while not (log.exists() and len(log.read_text().split()) >= 3) and time.monotonic() < limit:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    started = log.read_text().split()
    subprocess.run([sys.executable, "-c", _KILLED, "0"], cwd=tmp_path, check=True)
    assert log.read_text().split() == [*started, *map(str, range(len(started) - 1, 6))]


def test_several_threads_share_a_reader_and_a_cache(engine, folder, tmp_path):
    reader, results = TextReader(), []

    def read():
        results.append(reader.read_files(PATHS, root=folder, cache_dir=tmp_path / "cache", num_workers=2))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[f"text {value}" for value in range(6)]] * 3


def test_bad_images_raise_one_error_after_the_others_are_read(engine, folder, tmp_path):
    (folder / "1.png").write_bytes(b"damaged")
    (folder / "4.png").unlink()
    options = {"root": folder, "cache_dir": tmp_path / "cache"}
    with pytest.raises(BadImagesError, match=r"2 of 6 images .*1\.png is truncated.*are in the cache") as raised:
        TextReader().read_files(PATHS, **options)
    assert len(raised.value.reasons) == 2
    assert "4.png does not exist" in raised.value.reasons[1]
    assert engine.read == [0, 2, 3, 5]
    with pytest.raises(BadImagesError, match=r"`on_bad_image='skip'`\)\. The others"):
        TextReader().read_files(PATHS, root=folder)


def test_bad_images_that_are_skipped_have_no_text(engine, folder, tmp_path, caplog):
    (folder / "1.png").write_bytes(b"damaged")
    texts = TextReader().read_files(PATHS, root=folder, on_bad_image="skip", cache_dir=tmp_path / "cache")
    assert texts == ["text 0", "", "text 2", "text 3", "text 4", "text 5"]
    assert "1.png is truncated or not an image" in caplog.text
    with pytest.raises(BadImagesError, match=r"6 of 6 images"):
        TextReader().read_files(PATHS, root=tmp_path / "elsewhere", on_bad_image="skip")


def test_an_error_of_the_engine_names_the_image(monkeypatch, folder):
    def fail(image):
        raise RuntimeError("the network failed")

    monkeypatch.setattr("mlmetric.text._text_reader.load_ocr_engine", lambda side: fail)
    with pytest.raises(RuntimeError, match="the network failed") as raised:
        TextReader().read_files(PATHS, root=folder)
    assert raised.value.__notes__ == [f"The image was {folder / '0.png'}."]


def test_a_cache_that_cannot_be_created_raises(engine, folder, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match=r"The cache folder .*cache.* could not be created: .* Choose another\."):
        TextReader().read_files(PATHS, root=folder, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"paths": "0.png"}, TypeError, "`paths` must be a sequence of paths, got a single one, '0.png'"),
        ({"on_bad_image": "ignore"}, ValueError, "`on_bad_image` must be 'error' or 'skip', got 'ignore'"),
        ({"num_workers": 0}, ValueError, "`num_workers` must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_raise(folder, arguments, error, match):
    with pytest.raises(error, match=match):
        TextReader().read_files(**({"paths": PATHS, "root": folder} | arguments))


# The networks


@pytest.mark.slow
def test_lettering_is_read_with_the_real_engine(tmp_path, capfd):
    pytest.importorskip("rapidocr")
    pytest.importorskip("onnxruntime")
    poster = Image.new("RGB", (400, 300), "navy")
    draw = ImageDraw.Draw(poster)
    for text, place, size in (("GRAND SALE", (40, 30), 40), ("from", (40, 130), 24), ("Monday", (220, 130), 24)):
        draw.text(place, text, fill="white", font=ImageFont.load_default(size))
    poster.save(tmp_path / "poster.png")
    Image.new("RGB", (400, 300), "navy").save(tmp_path / "plain.png")
    Image.new("RGB", (1500, 1), "navy").save(tmp_path / "thin.png")
    texts = TextReader().read_files(
        ["poster.png", "plain.png", "thin.png"], root=tmp_path, cache_dir=tmp_path / "cache", num_workers=2
    )
    assert texts == ["GRAND SALE\nfrom Monday", "", ""]
    assert capfd.readouterr() == ("", "")
