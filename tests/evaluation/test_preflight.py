"""Checks of a checkpoint before an evaluation: each defect is an error that names it."""

import json
import shutil

import pytest

from alignment.evaluation.preflight import check_checkpoint


@pytest.fixture
def broken(tiny_checkpoint, tmp_path):
    """A copy of the checkpoint, and a way to change one of its JSON files."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "broken")

    def change(name, **values):
        content = json.loads((folder / name).read_text())
        content |= values
        (folder / name).write_text(json.dumps(content))

    return folder, change


def test_a_sound_checkpoint_passes(tiny_checkpoint):
    assert check_checkpoint(tiny_checkpoint, ["chat"], fim=True) == []


def test_a_template_of_another_family_is_an_error(broken):
    folder, _ = broken
    (folder / "chat_template.jinja").write_text("{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}")
    with pytest.raises(ValueError, match="chat template is not ChatML"):
        check_checkpoint(folder, ["chat"])
    check_checkpoint(folder, ["base"])


def test_a_missing_template_is_an_error(broken):
    folder, _ = broken
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        check_checkpoint(folder, ["chat"])


def test_a_generation_config_without_the_end_of_turn_is_an_error(broken):
    folder, change = broken
    change("generation_config.json", eos_token_id=65)
    with pytest.raises(ValueError, match=r"without <\|im_end\|>"):
        check_checkpoint(folder, ["chat"])


def test_a_tokenizer_with_more_tokens_than_the_embedding_is_an_error(broken):
    from transformers import AutoTokenizer

    folder, _ = broken
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<new{index}>" for index in range(100)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="tokenizer does not fit"):
        check_checkpoint(folder, ["base"])


def test_a_folder_without_a_checkpoint_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="not a checkpoint"):
        check_checkpoint(tmp_path, ["base"])


def test_an_embedding_that_differs_from_the_config_is_an_error(broken):
    folder, change = broken
    change("config.json", vocab_size=300)
    with pytest.raises(ValueError, match=r"vocab_size in config\.json is 300, but the embedding has 288 rows"):
        check_checkpoint(folder, ["base"])


def test_damaged_weights_are_an_error(broken):
    folder, _ = broken
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        check_checkpoint(folder, ["base"])


@pytest.mark.parametrize("path", ["runs/shop/sft/model", "./model", "../model", "/srv/models/none"])
def test_a_folder_that_does_not_exist_is_not_looked_up_on_the_hub(path, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(ValueError, match=f"there is no folder {path}"):
        check_checkpoint(path, ["base"])
