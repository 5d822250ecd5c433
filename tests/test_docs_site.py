"""The built site: nothing is shown as markup, links and anchors lead somewhere, images have a text."""

import importlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

import mlmetric
from documentation import DOCS, PAGES


class VisibleText(HTMLParser):
    """What a reader sees of a page's article outside code; `>>>` of a doctest becomes a quotation in Markdown."""

    HIDDEN = ("pre", "code", "script", "style")

    def __init__(self, html):
        super().__init__()
        self.text, self.inside = "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag in ("article", *self.HIDDEN):
            self.inside.append(tag)
        self.text += "<blockquote>" if tag == "blockquote" else ""

    def handle_endtag(self, tag):
        if tag in self.inside:
            self.inside.remove(tag)

    def handle_data(self, data):
        if self.inside == ["article"]:
            self.text += data


MARKUP = re.compile(
    r"```|<blockquote>|!!!|\*\*|\]\(|\]\[|\| ?:?--|^ *(?:#+|[-*]|\d+\.) |^ *(?:Args|Source):", re.MULTILINE
)


def markup_shown(html):
    """Lines of a page in which Markdown or a docstring's section is shown as text."""
    return [line for line in VisibleText(html).text.splitlines() if MARKUP.search(line)]


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        ("<p>```python notest\nimport torch</p>", ["```python notest"]),
        ("<blockquote><p>print(1)</p></blockquote>", ["<blockquote>print(1)"]),
        ("<p>Take:\n- one\n- another</p>", ["- one", "- another"]),
        ("<p>| a | b |\n| --- | --- |</p>", ["| --- | --- |"]),
        ("<p>Source: a paper</p>", ["Source: a paper"]),
        ("<p>see [a page](page.md)</p>", ["see [a page](page.md)"]),
        ("<pre><code>- one ```</code></pre><ul><li>one</li></ul><p>so <code>**kwargs</code> - fine</p>", []),
    ],
)
def test_markup_shown_finds_what_was_not_rendered(html, shown):
    assert markup_shown(f"<nav>- menu</nav><article>{html}</article>") == shown


class References(HTMLParser):
    """The identifiers of a page, its links, the sources of its images, and images without an alternative text."""

    def __init__(self, html):
        super().__init__()
        self.identifiers, self.links, self.without_text = set(), [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.identifiers.add(attrs.get("id"))
        self.links += [attrs[name] for name in ("href", "src") if attrs.get(name)]
        if tag == "img" and not attrs.get("alt"):
            self.without_text.append(attrs.get("src"))


def dead_links(site):
    """Links of a built site to files and anchors that it does not contain, and how many were checked."""
    pages = {path: References(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}
    dead, num_links, num_anchors = [], 0, 0
    for path, references in pages.items():
        for link in references.links:
            if re.match(r"[a-z]+:|//", link):
                continue
            target, _, anchor = unquote(link).partition("#")
            file = (path.parent / target).resolve() if target else path
            file = file / "index.html" if file.is_dir() else file
            num_links, num_anchors = num_links + 1, num_anchors + bool(anchor)
            if not file.exists() or (anchor and file in pages and anchor not in pages[file].identifiers):
                dead.append(f"{path.relative_to(site)}: {link}")
    return dead, num_links, num_anchors


def test_dead_links_and_images_without_text_are_found(tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text('<h1 id="top"></h1><img src="../a.png"><img src="../a.png" alt="A">')
    (tmp_path / "a.png").write_text("")
    links = ["page/", "page/#top", "page/#gone", "gone/", "#here", "https://example.org/gone"]
    (tmp_path / "index.html").write_text("".join(f'<a href="{link}"></a>' for link in links))
    expected = ["index.html: page/#gone", "index.html: gone/", "index.html: #here"]
    assert dead_links(tmp_path) == (expected, 7, 3)
    assert References((tmp_path / "page" / "index.html").read_text()).without_text == ["../a.png"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; the build stops at any warning, such as a page outside the navigation."""
    pytest.importorskip("mkdocs", reason='the documentation is built with pip install -e ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet: it keeps mkdocs from counting the warnings that --strict stops at.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    build = subprocess.run([*command, "--config-file", DOCS / "mkdocs.yml"], capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    return folder


@pytest.mark.slow
def test_site_shows_no_markup_as_text(site):
    pages = {str(page.relative_to(site)): markup_shown(page.read_text()) for page in site.rglob("*.html")}
    assert len(pages) > len(PAGES)
    assert {page: lines for page, lines in pages.items() if lines} == {}


@pytest.mark.slow
def test_site_has_no_dead_link_or_anchor(site):
    dead, num_links, num_anchors = dead_links(site)
    print(f"{num_links} links checked, {num_anchors} of them with an anchor")
    assert dead == []
    assert num_anchors > 100


@pytest.mark.slow
def test_images_of_the_site_have_an_alternative_text(site):
    pages = {str(page.relative_to(site)): References(page.read_text()).without_text for page in site.rglob("*.html")}
    assert {page: images for page, images in pages.items() if images} == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "page"), [("export", "guide/saving/"), ("save", "guide/saving/"), ("gpu", "guide/gpu/")]
)
def test_search_finds_titles(site, query, page):
    entries = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    found = {entry["location"].partition("#")[0] for entry in entries if query in entry["title"].lower()}
    assert page in found


@pytest.mark.slow
def test_api_pages_of_the_site_show_all_public_names_and_no_private_path(site):
    for name in mlmetric.__all__:
        html = (site / "api" / name / "index.html").read_text()
        references, exported = References(html), importlib.import_module(f"mlmetric.{name}").__all__
        assert {f"mlmetric.{name}.{public}" for public in exported} <= references.identifiers
        assert html.partition("</table>")[0].count("<tr>") == len(exported) + 1
        assert re.findall(r"mlmetric\.(?:\w+\.)*_(?!_)\w[\w.]*|&gt;&gt;&gt;", html) == []
        assert all(len(line) <= 100 for line in Signatures(html).text.splitlines())


class Signatures(HTMLParser):
    """The signatures of an API page."""

    def __init__(self, html):
        super().__init__()
        self.text, self.inside = "", False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "div":
            self.inside = "doc-signature" in (dict(attrs).get("class") or "")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "div"

    def handle_data(self, data):
        self.text += data if self.inside else ""
