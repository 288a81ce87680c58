"""Fixtures that all tests share."""

import logging
import os
from pathlib import Path

import pytest

from alignment import logs

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["SECRET_TOKEN"] = "trainer-secret-token"  # what hostile programs look for

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("ALIGN_DATA_DIR", ROOT.parent / "shared" / "data"))


@pytest.fixture(autouse=True)
def default_logging():
    """Undo `logs.configure`, so that `caplog` sees the messages of the next test."""
    yield
    for name in logs.ROOTS:
        logger = logging.getLogger(name)
        logger.handlers = [handler for handler in logger.handlers if not isinstance(handler, logs.TerminalHandler)]
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Public benchmarks and the real tokenizer, where the developer has them."""
    if not DATA.is_dir():
        pytest.skip(f"no reference data at {DATA}: set ALIGN_DATA_DIR to its folder")
    return DATA


@pytest.fixture
def checkpoint_folder(tmp_path) -> Path:
    """A folder `base` that has the files of a checkpoint, but can't be loaded."""
    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture(scope="session")
def real_tokenizer(data_dir):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(data_dir / "qwen2.5-coder-tokenizer")


@pytest.fixture(scope="session")
def tiny_tokenizer_dir(tmp_path_factory) -> Path:
    """Folder of a byte-level BPE tokenizer of 320 tokens, with the structure and added tokens of Qwen2.5-Coder."""
    from data_builders.synthetic.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["def add(a, b):\n    return a + b\n"] * 3, 320, folder)
    return folder


@pytest.fixture
def tiny_tokenizer(tiny_tokenizer_dir):
    """The tiny tokenizer, loaded anew for each test, because stages change its EOS token and template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_tokenizer_dir)


@pytest.fixture(scope="session")
def grader():
    """One grader for all tests, because starting a sandbox takes a fraction of a second."""
    from alignment.grading import Grader, Limits
    from alignment.sandbox import SandboxUnavailable

    with Grader(workers=2, limits=Limits(cpu_seconds=3, wall_seconds=4)) as made:
        task = {"kind": "calls", "tests": '{"cases": [{"args": [], "expected": 1}]}', "entry_point": "f"}
        try:
            made.grade_many([(task, "def f(): return 1")])
        except SandboxUnavailable as error:
            pytest.skip(f"this machine refuses the sandbox: {error}")
        yield made
