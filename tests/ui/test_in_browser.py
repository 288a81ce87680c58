"""The live page in headless Chromium: live updates, ten thousand rollouts, the keyboard, narrow screens, hostile texts."""

import socket
import threading

import pytest
import sample_run

pytest.importorskip("starlette", reason="needs the extra [serve]")

import uvicorn
from chromium import BROWSER, Chromium

from alignment.ui.page_server import application
from alignment.ui.run_library import RunLibrary

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs chromium")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with two runs: `shop` with 10,000 rollouts, and `hostile`, whose files contain markup."""
    folder = tmp_path_factory.mktemp("runs")
    sample_run.write_run(folder / "shop", count=10_000)
    sample_run.write_run(folder / "hostile", hostile=sample_run.HOSTILE, message="failed ", count=20)
    return folder


@pytest.fixture(scope="module")
def address(runs):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(application(RunLibrary([runs])), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser):
    """The browser, with a window of a desktop. The page may not log an error."""
    browser.errors.clear()
    browser.window(1280, 900)
    yield browser
    assert browser.errors == []


def test_a_run_is_chosen_and_its_stages_are_shown(page, address):
    page.open(address)
    page.wait_for("document.querySelectorAll('#runs a').length === 2")
    page.click("#runs li:last-child a")
    page.wait_for("document.querySelector('h1').textContent === 'shop'")
    states = "[...document.querySelectorAll('#view tbody tr')].map(row => row.children[0].textContent + ' ' + row.children[2].textContent)"
    page.wait_for("document.querySelectorAll('#view svg').length")
    assert page.evaluate(states)[:6] == [
        "corpus done", "evaluate-base done", "sft done", "evaluate-sft done", "rl failed", "export to do",
    ]  # fmt: skip


def test_a_curve_grows_while_the_page_is_open(page, address, runs):
    page.open(f"{address}#/shop/curves")
    page.wait_for("document.body.innerText.includes('rl: loss') && document.body.innerText.includes('at step 3')")
    page.evaluate(
        "window.marked = document.querySelector('section[aria-label=rl] polyline'); window.marked.dataset.kept = 1"
    )
    before = page.evaluate("window.marked.getAttribute('points').split(' ').length")
    sample_run.write_lines(sample_run.folder_of(runs / "shop", "rl") / "metrics.jsonl", sample_run.metrics(4, 40))
    page.wait_for("document.body.innerText.includes('1.6 at step 40')", 30)
    assert before == 3
    assert page.evaluate("window.marked.isConnected && window.marked.getAttribute('points').split(' ').length") == 40


def test_ten_thousand_rollouts_scroll_with_few_rows(page, address):
    page.open(f"{address}#/shop/rollouts")
    page.wait_for("document.querySelector('.count')?.textContent === '10,000 rollouts'")
    page.wait_for("document.querySelectorAll('.row').length > 5")
    frames = page.evaluate(
        """new Promise(done => {
          const list = document.querySelector('.list'); let frames = 0, most = 0;
          const move = () => {
            list.scrollTop = list.scrollHeight * frames / 60; frames += 1;
            most = Math.max(most, document.querySelectorAll('.row').length);
            if (frames <= 60) requestAnimationFrame(move); else done([frames, most]);
          };
          move();
        })"""
    )
    assert frames[0] == 61 and frames[1] < 60
    page.evaluate("document.querySelector('.list').scrollTop = 1e9")
    page.wait_for("[...document.querySelectorAll('.row')].at(-1)?.textContent.includes('task-49')")
    assert page.evaluate("[...document.querySelectorAll('.row')].at(-1).getAttribute('aria-posinset')") == "10000"


def test_a_rollout_is_opened_by_click_and_by_keyboard(page, address):
    page.open(f"{address}#/shop/rollouts")
    page.wait_for("document.querySelector('.row')?.textContent.includes('task-0')")
    page.click(".row")
    page.wait_for("document.querySelector('.detail')?.innerText.includes('Add 0.')")
    page.evaluate("document.querySelector('.list').focus()")
    page.press("ArrowDown")
    page.wait_for("document.querySelector('.detail').innerText.includes('x + 1')")
    page.press("End")
    page.wait_for("document.querySelector('.detail').innerText.includes('x + 9999')")
    active = "document.getElementById(document.querySelector('.list').getAttribute('aria-activedescendant'))"
    assert page.evaluate(f"{active}.getAttribute('aria-selected')") == "true"


def test_a_filter_reduces_the_list_and_is_part_of_the_address(page, address):
    page.open(f"{address}#/shop/rollouts")
    page.wait_for("document.querySelector('.count')?.textContent === '10,000 rollouts'")
    page.click("input[name=task]")
    page.type("task-49")
    page.wait_for("document.querySelector('.count').textContent === '200 of 10,000 rollouts'")
    assert page.evaluate("location.hash") == "#/shop/rollouts?task=task-49"
    page.open(f"{address}#/shop/rollouts?verdict=error")
    page.wait_for("document.querySelector('.count')?.textContent === '2,500 of 10,000 rollouts'")


def test_completions_are_side_by_side(page, address):
    page.open(f"{address}#/shop/completions?change=better")
    page.wait_for("document.querySelectorAll('.row').length === 2")
    page.click(".row")
    page.wait_for("document.querySelector('.detail').innerText.includes('by sft')")
    assert "by base" in page.evaluate("document.querySelector('.detail').innerText")


def test_a_log_is_followed(page, address, runs):
    page.open(f"{address}#/shop/log?stage=rl")
    page.wait_for("document.querySelector('.log')?.textContent.includes('step 2')")
    with (sample_run.folder_of(runs / "shop", "rl") / "logs" / "rank0.log").open("a") as file:
        file.write("step 77\n")
    page.wait_for("document.querySelector('.log').textContent.includes('step 77')", 30)


VIEWS = ["overview", "curves", "rollouts", "completions", "data", "log", "chat"]


@pytest.mark.parametrize("view", VIEWS)
def test_markup_in_files_is_text(page, address, view):
    page.open(f"{address}#/hostile/{view}")
    page.wait_for("document.querySelector('#head')?.textContent.includes('<script>')")
    page.wait_for("document.querySelector('#view').children.length")
    if view in ("rollouts", "completions"):
        page.wait_for("!!document.querySelector('.row')")
        page.click(".row")
        page.wait_for("document.querySelector('.detail').textContent.includes('<img src=x')")
    assert page.evaluate("window.stolen") is None
    assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("run", ["shop", "hostile"])
def test_nothing_is_wider_than_a_phone(page, address, run, view):
    page.window(360, 740)
    page.open(f"{address}#/{run}/{view}")
    page.wait_for("document.querySelector('#view')?.children.length && !document.querySelector('.offline')")
    page.wait_for("document.documentElement.scrollWidth <= document.documentElement.clientWidth", 10)


def test_the_theme_follows_the_system_and_the_switch(page, address):
    background = "getComputedStyle(document.body).backgroundColor"
    page.window(1280, dark=True)
    page.open(f"{address}#/shop/overview")
    page.wait_for("document.querySelector('[data-theme-switch]')?.textContent === 'Theme: auto'")
    dark = page.evaluate(background)
    page.click("[data-theme-switch]")
    assert page.evaluate("document.querySelector('[data-theme-switch]').textContent") == "Theme: light"
    assert page.evaluate(background) != dark
    page.click("[data-theme-switch]")
    page.window(1280)
    assert page.evaluate(background) == dark
    page.click("[data-theme-switch]")
    assert page.evaluate(background) != dark


def test_the_first_tab_stop_skips_to_the_content(page, address):
    page.open(f"{address}#/shop/overview")
    page.wait_for("document.querySelectorAll('#view svg').length")
    page.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.press("Enter")
    page.wait_for("document.activeElement.id === 'main' && location.hash === '#/shop/overview'")
    page.press("Tab")
    assert (
        page.evaluate("document.activeElement.matches(':focus-visible') && document.activeElement.textContent")
        == "Overview"
    )
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
