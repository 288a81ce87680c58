"""The report in a browser: nothing but the tables scrolls sideways on a phone."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from alignment.report import components, page
from alignment.report.run_folder import StageFolder
from alignment.report.training_curves import Curve

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
MEASURE = """<!doctype html><body><iframe src="report.html" style="width:{width}px;height:30000px;border:0"></iframe><script>
document.querySelector("iframe").onload = event => {{
  const page = event.target.contentDocument.documentElement;
  document.body.append(`page is ${{page.scrollWidth}} of ${{page.clientWidth}} wide`);
}};
</script>"""


def report():
    """A report with long names everywhere."""
    long = "pretrain-on-everything-that-the-team-wrote-0123456789"
    rungs = [
        {
            "stage": name,
            "metric": f"{long}.pass@1",
            "value": value,
            "low": value - 5,
            "high": value + 5,
            "n": 300,
            "seed": 1,
        }
        for name, value in ((f"{long}-{number}", 10.0 * number) for number in range(1, 8))
    ]
    gains = {(rung["stage"], rung["metric"]): "+10.0 [+5.0, +15.0]" for rung in rungs}
    exports = [{"target": "gguf", "file": f"/runs/{long}/{long}.gguf", "greedy_agreement": "0.99"}] * 2
    stages = [
        StageFolder(
            name=long, kind="pretrain", folder=Path(long), state="done", model=long, inputs=(long,),
            content={"seconds": 3600, "peak_memory_mb": 3100, "metrics": {"train_loss": 0.123, "tokens_per_second": 12345678}},
        )
    ] * 3  # fmt: skip
    stages.append(StageFolder("export", "export", Path("export"), "done", content={"seconds": 1, "exports": exports}))
    curves = [(long, [Curve("loss", "loss", [(1, 2.0), (5, 1.0), (9, 0.2)])])] * 3
    sections = {"The ladder": components.ladder(rungs, gains), "All curves": components.curves(curves)}
    return page.render(long, 1, stages, sections)


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
