"""A headless Chromium, and pages that must not fail or load other files."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


@contextlib.contextmanager
def browser() -> Iterator:
    """Start Chromium; the test is skipped if it is not installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    playwright = pytest.importorskip("playwright.sync_api")
    if program is None:
        pytest.skip("Chromium is not on the PATH")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield opened
        opened.close()


@contextlib.contextmanager
def opened(chromium, path: Path, before: str = "", **options) -> Iterator:
    """Open a file as a page; errors, dialogs and outside requests fail the test.

    `before` is a script that runs before those of the page.
    """
    problems: list[str] = []
    context = chromium.new_context(**{"reduced_motion": "reduce", **options})
    page = context.new_page()

    def read(message):
        if message.type == "error":
            problems.append(f"console: {message.text}")

    page.on("console", read)
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (problems.append("dialog"), dialog.dismiss()))

    def look(request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            problems.append(f"request: {request.url}")

    page.on("request", look)
    page.add_init_script(before)
    page.goto(path.as_uri())
    yield page
    context.close()
    assert not problems, problems


def wait(page, expression: str, *arguments) -> None:
    """Wait until an expression is true; the page forbids polling inside it."""
    for _ in range(200):
        if page.evaluate(expression, *arguments):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never true: {expression}")


def contrasts(page, *selectors: str) -> dict[str, float]:
    """Return the WCAG contrast ratio of the first element that each selector finds."""
    return page.evaluate(_CONTRASTS, selectors)


_CONTRASTS = """(selectors) => {
  const rgb = (text) => text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255);
  const light = (text) => rgb(text)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const c = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(c)) return c;
    }
  };
  const found = {};
  for (const s of selectors) {
    const e = document.querySelector(s);
    if (!e) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
    found[s] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }
  return found;
}"""
