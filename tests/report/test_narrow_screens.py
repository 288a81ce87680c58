"""The report in a browser: nothing but the tables scrolls sideways on a phone."""

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from jinja2 import Environment, FileSystemLoader

from alignment.report import charts, page

TEMPLATES = Path(page.__file__).parent / "templates"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
MEASURE = """<!doctype html><body><iframe src="report.html" style="width:{width}px;height:30000px;border:0"></iframe><script>
document.querySelector("iframe").onload = event => {{
  const page = event.target.contentDocument.documentElement;
  document.body.append(`page is ${{page.scrollWidth}} of ${{page.clientWidth}} wide`);
}};
</script>"""


def report(**changes):
    """A report with long names everywhere."""
    long = "pretrain-on-everything-that-the-team-wrote-0123456789"
    rungs = [
        {"stage": name, "metric": "m", "value": value, "low": value - 5, "high": value + 5, "n": 300, "seed": 1}
        for name, value in ((f"{long}-{number}", 10.0 * number) for number in range(1, 8))
    ]
    metric = page.MetricSection(
        f"{long}.pass@1", rungs, {rung["stage"]: "+10.0 [+5.0, +15.0]" for rung in rungs}, charts.bars(rungs)
    )
    row = page.StageRow(
        long, "pretrain", "done", "1 h", "3.1 GB", long, f"{long}, {long}", "loss 0.123, tokens 12345678", "{}"
    )
    values = {
        "recipe": SimpleNamespace(name=long, seed=1), "metrics": [metric, metric], "stages": [row] * 3,
        "curves": [page.CurveSection(f"{long}: loss", charts.curve([(1, 2.0), (5, 1.0), (9, 0.2)]))] * 3,
        "exports": [{"target": "gguf", "file": f"/runs/{long}/{long}.gguf", "greedy_agreement": "0.99"}] * 2,
        "total": "3 h", "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    }  # fmt: skip
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)
    return environment.get_template("report.html.jinja").render(**values | changes)


def page_width(folder, html, width):
    """The width of a page's content in a window of this width."""
    (folder / "report.html").write_text(html)
    (folder / "measure.html").write_text(MEASURE.format(width=width))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    command += [
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=5000",
        f"file://{folder / 'measure.html'}",
    ]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
    content, window = map(int, re.search(r"page is ([0-9]+) of ([0-9]+) wide<?", printed).groups())
    assert window == width
    return content


def test_the_page_says_that_it_fits_narrow_screens():
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in report()


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
@pytest.mark.parametrize("width", [360, 768])
def test_the_page_is_no_wider_than_the_window(width, tmp_path):
    assert page_width(tmp_path, report(), width) == width


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_a_table_that_does_not_scroll_by_itself_would_be_noticed(tmp_path):
    assert page_width(tmp_path, report().replace('class="scroll"', ""), 360) > 360
