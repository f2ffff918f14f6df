"""The site that `make docs` has built: its links lead somewhere, its parts are there."""

import html.parser
import shutil
import urllib.parse
from pathlib import Path

import pytest

import skstack
from skstack import ensemble, inspection, losses, networks, preprocessing

SITE = Path(__file__).resolve().parents[2] / "build" / "site"
MODULES = (skstack, ensemble, inspection, losses, networks, preprocessing)
NAMES = [f"{module.__name__}.{name}" for module in MODULES for name in module.__all__]

pytestmark = pytest.mark.skipif(
    not (SITE / "index.html").exists(), reason="the site is not built: run `make docs`"
)


class Page(html.parser.HTMLParser):
    """Links, pictures and anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.pictures_without_text = [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors.update(values[key] for key in ("id", "name") if values.get(key))
        key = {"a": "href", "img": "src", "script": "src", "link": "href"}.get(tag)
        if key and values.get(key):
            self.links.append(values[key])
        if tag == "img" and "alt" not in values:  # an empty one marks a picture beside its title
            self.pictures_without_text.append(values["src"])


@pytest.fixture(scope="module")
def pages():
    return {
        path: Page(path) for path in sorted(SITE.rglob("*.html")) if "_static" not in path.parts
    }


def target_of(path, link):
    """The file and the anchor that a link on a page leads to; None if it leaves the site."""
    parts = urllib.parse.urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
    return target / "index.html" if target.is_dir() else target, parts.fragment


def test_every_internal_link_leads_somewhere(pages):
    broken = []
    n_links = 0
    for path, page in pages.items():
        for target, anchor in filter(None, (target_of(path, link) for link in page.links)):
            n_links += 1
            known = pages.get(target)
            missing = anchor and known and urllib.parse.unquote(anchor) not in known.anchors
            if not target.exists() or missing:
                broken.append(f"{path.relative_to(SITE)} -> {target.name}#{anchor}")
    assert n_links > 1000
    assert broken == []


def test_every_page_is_reached_from_the_front_page(pages):
    reached, new = set(), [SITE / "index.html"]
    while new:
        path = new.pop()
        if path in reached or path not in pages:
            continue
        reached.add(path)
        targets = filter(None, (target_of(path, link) for link in pages[path].links))
        new += [target for target, _ in targets]
    assert {str(path.relative_to(SITE)) for path in set(pages) - reached} == set()


def test_pictures_have_a_text(pages):
    without = {path.name: page.pictures_without_text for path, page in pages.items()}
    assert {name: pictures for name, pictures in without.items() if pictures} == {}


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_an_entry_with_an_example(name):
    text = (SITE / "api" / "generated" / f"{name}.html").read_text(encoding="utf-8")
    assert f'id="{name}"' in text
    assert "&gt;&gt;&gt;" in text


def test_the_search_knows_the_stack():
    assert "StackedKerasClassifier" in (SITE / "searchindex.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chromium():
    browsers = ("chromium", "chromium-browser", "google-chrome")
    binary = next(filter(None, map(shutil.which, browsers)), None)
    if binary is None:
        pytest.skip("no Chromium is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as tools:
        quiet = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
        browser = tools.chromium.launch(executable_path=binary, args=quiet)
        yield browser
        browser.close()


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def page(request, chromium):
    """The front page, as wide as a screen."""
    page = chromium.new_page(viewport={"width": request.param, "height": 900})
    page.goto((SITE / "index.html").as_uri())
    yield page
    page.close()


def test_clicks_lead_from_the_front_page_to_the_stack(page):
    page.click("article a:has-text('StackedKerasClassifier')")
    assert "skstack.StackedKerasClassifier" in page.url
    assert "out-of-fold features" in page.inner_text("article")


def test_the_search_finds_the_stack(page):
    page.locator("button.search-button__button:visible").first.click()
    page.locator("input[type=search]:visible").fill("StackedKerasClassifier")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=*")
    page.locator("#search-results li a[href*='skstack.StackedKerasClassifier']").first.click()
    assert "skstack.StackedKerasClassifier" in page.url


def test_the_gallery_opens_a_script_with_its_picture(page):
    page.click("article a:has-text('gallery')")
    assert page.url.endswith("gallery/index.html")
    page.click("article a:has-text('Sequences of unequal length')")
    assert page.url.endswith("voices.html")
    shown = "figure => figure.complete && figure.naturalWidth > 300"
    assert page.locator("article img").last.evaluate(shown)


def test_pages_are_as_wide_as_the_screen(page, pages):
    """Nothing has to be scrolled to the side, nor is cut off, but blocks of code and tables."""
    width = page.viewport_size["width"]
    too_wide = {}
    for path in pages:
        page.goto(path.as_uri())
        found = page.evaluate(TOO_WIDE)
        if found or page.evaluate("document.documentElement.scrollWidth") > width:
            too_wide[str(path.relative_to(SITE))] = found
    assert too_wide == {}


# Text of an article that ends beyond the right edge, and cannot be reached by scrolling in it.
TOO_WIDE = """
Array.from(document.querySelectorAll("article h1, article h2, article p, article dt, article code"))
  .filter(e => !e.closest("pre, table, .highlight, .pst-scrollable-table-container, .math"))
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(e => e.textContent.slice(0, 60))
"""
