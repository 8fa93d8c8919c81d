"""The dashboard in a browser, headless Chromium: what is shown, by mouse, by keys, narrow, dark, and from files."""

from collections.abc import Iterator
import filecmp
from pathlib import Path
import shutil
import subprocess
import threading
import time
from typing import Any

import pytest

from interp_jax import report
from interp_jax.report.serving import BUNDLE

pytestmark = pytest.mark.long

CAT, EVIL_TOKEN, DEAD = 2, 3, 7
UNIT = "#/units/seen"
WEB = BUNDLE.parent


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def url(board) -> Iterator[str]:
    import uvicorn

    at = report.listening(0)
    server = uvicorn.Server(uvicorn.Config(report.dashboard_app(board), log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [at]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{at.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture
def open_page(chromium, url) -> Iterator[Any]:
    """A page that must not log an error, ask another host or break the policy."""
    complaints: list[str] = []

    def listen(told: Any) -> None:
        if told.type == "error" and "the server responded with" not in told.text:  # which a page then shows
            complaints.append(told.text)

    contexts = []

    def opened(where: str = "", *, base: str = url, width: int = 1280, dark: bool = False) -> Any:
        scheme = "dark" if dark else "light"
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        context.set_default_timeout(5000)
        page = context.new_page()
        page.on("console", listen)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith(local) else None)
        local = (base.split("index.html")[0], "data:")
        page.goto(base + where)
        page.wait_for_selector("h1")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not complaints


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect

    return expect(locator)


def numbers(page: Any) -> list[str]:
    return page.locator("[data-row]").all_inner_texts()


def test_the_list_is_searched_and_sorted(open_page) -> None:
    page = open_page()
    page.wait_for_selector("[data-row]")
    assert numbers(page) == ["1", "2", "3", "4", "5", "6"]  # 0 and 7 never fire
    page.fill("#search", "cat")
    expect(page.locator("[data-row]")).to_have_count(1)
    assert numbers(page) == ["2"] and "q=cat" in page.url
    page.fill("#search", "")
    page.get_by_role("button", name="maximum").click()
    expect(page.locator("[data-row]").first).to_have_text("6")
    page.get_by_label("that never fire").check()
    expect(page.locator("[data-row]")).to_have_count(8)
    page.get_by_role("button", name="simulation").click()
    expect(page.locator("[data-row]").first).to_have_text("2")
    again = open_page(page.url.split("/", 3)[3])  # the same view from its address
    again.wait_for_selector("[data-row]")
    assert numbers(again) == numbers(page)
    page.select_option("#source", "other")
    expect(page.locator("h1")).to_have_text("other")


def test_keys_reach_everything(open_page) -> None:
    page = open_page()
    page.wait_for_selector("[data-row]")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("t")
    page.keyboard.press("Escape")
    for key in ("j", "j", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.textContent") == "2"  # of those with a t: the, cat, script
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Feature 2")
    page.keyboard.press("j")
    page.wait_for_selector("text=Feature 3")
    assert page.locator("[data-key='j']").count() == 0  # it is the last of the list that was searched
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("text=Feature 2")
    page.keyboard.press("u")
    page.wait_for_selector("[data-row]")
    assert numbers(page) == ["1", "2", "3"]


def test_values_are_told_by_mouse_and_by_keys(open_page) -> None:
    page = open_page(f"{UNIT}/{CAT}")
    passage = page.locator("#examples .passage").first
    passage.locator(".focus").hover()
    assert page.locator(".told").inner_text() == "cat 3.00"
    page.mouse.move(0, 0)
    expect(page.locator(".told")).to_have_count(0)
    page.locator("#examples [tabindex='0']").first.focus()
    assert page.locator(".told").inner_text() == "cat 3.00"
    page.keyboard.press("ArrowLeft")
    assert page.locator(".told").count() == 1 and "Feature 2" in page.locator("h1").inner_text()
    shown = passage.locator(".t").count()
    more = passage.get_by_role("button", name="more")
    if more.count():
        more.click()
        assert passage.locator(".t").count() > shown


def test_what_is_on_the_page_of_a_feature(open_page) -> None:
    page = open_page(f"{UNIT}/{CAT}")
    page.wait_for_selector("#explanations")
    text = page.locator("main").inner_text()
    for part in ("cats <script>", "simulation 0.50 (0.25 to 0.75)", "14%", "Strongest", "each fifth"):
        assert part in text
    for title in ("ACTIVATIONS", "FIRES ON", "LOGITS RAISED", "LOGITS LOWERED", "FIRES TOGETHER", "NEAREST BY WHAT"):
        assert title in text
    page.locator(".near a").first.click()
    expect(page.locator("h1")).not_to_have_text("Feature 2")


def test_no_token_becomes_markup(open_page) -> None:
    page = open_page(f"{UNIT}/{EVIL_TOKEN}")
    page.wait_for_selector(".passage")
    assert "<script>document.title='owned'</script>" in page.locator("#examples").inner_text()
    assert "owned" not in page.title() and page.locator("main script").count() == 0
    shown = page.locator("main").inner_text()
    assert "⟨200B⟩" in shown and "⟨202E⟩" in shown and "↵" in shown and "\u200b" not in shown


def test_a_text_is_tried_and_the_model_is_steered(open_page) -> None:
    page = open_page(f"{UNIT}/{CAT}")
    page.locator("#live textarea").fill("the cat sat")
    page.wait_for_selector("#live .fires")
    assert page.locator("#live .fires").inner_text() == "cat" and "0.67 of its maximum" in page.content()
    page.locator("#steer textarea").fill("the")
    page.wait_for_selector("text=held 2 at 2 <b>")
    slider = page.locator("#steer input[type=range]")
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("text=held 2 at 2.25 <b>")
    assert "text=the+cat+sat" in page.url and "strength=2.25" in page.url
    page.locator("#steer textarea").fill("impossible")
    page.wait_for_selector("#steer [role=alert]")
    assert page.locator("#steer [role=alert]").inner_text() == "the text is too long; shorten it"


def test_a_feature_that_never_fires_says_so(open_page) -> None:
    page = open_page(f"{UNIT}/{DEAD}")
    page.wait_for_selector("text=It never fires")
    assert page.locator("#steer").count() == 0 and page.locator("svg").count() == 0


def test_heads(open_page) -> None:
    page = open_page("#/heads")
    page.wait_for_selector("[data-row]")
    assert numbers(page) == ["0.0", "0.1"] and page.locator(".maps svg").count() == 2
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-key='j']")
    assert page.locator("h1").inner_text() == "Head 0.0"
    page.keyboard.press("j")
    page.wait_for_selector("text=Head 0.1")
    page.locator("#examples .fires").first.hover()
    assert page.locator(".told").inner_text().endswith("0.50")
    assert page.locator(".written").first.inner_text().startswith("<script>")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("where", ["", f"{UNIT}/{CAT}?text=cat&prompt=the", f"{UNIT}/{DEAD}", "#/heads", "#/heads/0.1"])
def test_no_page_is_wider_than_the_screen(open_page, where: str, width: int) -> None:
    page = open_page(where, width=width)
    page.wait_for_selector(".card")
    page.wait_for_timeout(500)
    for element in page.locator("#examples [tabindex='0']").all()[:3]:
        element.focus()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_light_and_dark(open_page) -> None:
    def ground(page: Any) -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = open_page(), open_page(dark=True)
    assert ground(light) != ground(dark)
    light.get_by_role("button", name="turn to dark colours").click()
    assert ground(light) == ground(dark)
    light.reload()
    light.wait_for_selector("h1")
    assert ground(light) == ground(dark)  # it is kept


def test_what_is_not_there_is_said(open_page) -> None:
    for where in ("#/units/nothing", f"{UNIT}/99", f"{UNIT}/x", "#/heads/7.7"):
        page = open_page()
        page.goto(page.url.split("#")[0] + where)
        page.wait_for_selector("[role=alert]")
        page.context.close()


def test_a_static_copy_opens_from_its_file(open_page, board, tmp_path) -> None:
    report.write_static(board, tmp_path)
    page = open_page(base=(tmp_path / "index.html").as_uri())
    page.wait_for_selector("[data-row]")
    page.fill("#search", "cat")
    expect(page.locator("[data-row]")).to_have_count(1)
    page.locator("[data-row]").click()
    page.wait_for_selector(".passage")
    assert page.locator("textarea").count() == 0
    assert "interp-jax dashboard DICT" in page.locator("#live").inner_text()
    assert "interp-jax dashboard DICT" in page.locator("#steer").inner_text()
    page.goto(page.url.split("#")[0] + "#/heads/0.1")
    page.wait_for_selector("#examples .fires")


def test_the_bundle_is_what_its_sources_give(tmp_path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("no npm: apt-get install npm")
    for name in ("package.json", "package-lock.json", "tsconfig.json"):
        shutil.copy(WEB / name, tmp_path / name)
    shutil.copytree(WEB / "src", tmp_path / "src")
    for words in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
        done = subprocess.run(["npm", *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    built = sorted(path.name for path in (tmp_path / "dist").iterdir())
    assert built == sorted(path.name for path in Path(BUNDLE).iterdir())
    _, different, missing = filecmp.cmpfiles(BUNDLE, tmp_path / "dist", built, shallow=False)
    assert not different and not missing, "build the bundle anew: npm ci && npm run build"
