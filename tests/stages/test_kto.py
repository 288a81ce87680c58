"""KTO: token ids and batches as TRL makes them, and rows that cannot be trained on."""

import pytest
from datasets import Dataset, load_from_disk
from transformers import Qwen2ForCausalLM
from trl import KTOConfig, KTOTrainer

from alignment.models import formats
from alignment.recipe.stage_request import StageRequest
from alignment.rows.feedback_rows import feedback_of
from alignment.stages import kto
from alignment.stages.feedback_trainer import FeedbackTrainer
from alignment.tokenization.feedback_tokens import mismatched_completions, tokenize_feedback

ASKED = [{"role": "user", "content": "Add."}]
CHATS = [
    {"prompt": ASKED, "completion": [{"role": "assistant", "content": text}], "label": label}
    for text, label in (("a + b", True), ("a - b", False), ("return a", True), ("?", False))
]
EDITOR = {"prefix": "def f(a):\n    return ", "suffix": "\n", "completion": "a", "label": True}


def config(folder, **settings):
    return KTOConfig(
        output_dir=str(folder), max_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True, bf16=False,
        save_strategy="no", disable_tqdm=True, **settings,
    )  # fmt: skip


@pytest.fixture
def on_disk(model, tmp_path):
    """A model that was loaded from a folder, from which the trainer loads its reference."""
    model.save_pretrained(tmp_path / "model")
    return Qwen2ForCausalLM.from_pretrained(tmp_path / "model")


def test_conversations_get_the_token_ids_of_trls_own_preparation(on_disk, tiny_tokenizer, tmp_path):
    tiny_tokenizer.chat_template = formats.CHAT_TEMPLATE
    reference = KTOTrainer(
        model=on_disk, args=config(tmp_path), train_dataset=Dataset.from_list(CHATS), processing_class=tiny_tokenizer
    ).train_dataset
    samples = [tokenize_feedback(feedback_of(row, "row"), tiny_tokenizer) for row in CHATS]
    for ours, theirs in zip(samples, reference, strict=True):
        assert {name: theirs[name] for name in ours} == ours
    shifted = mismatched_completions([sample["completion_ids"] for sample in samples], 2)
    assert shifted == reference["KL_completion_ids"]


def test_a_completion_in_an_editor_is_a_fill_in_the_middle_sample(tiny_tokenizer):
    sample = tokenize_feedback(feedback_of(EDITOR, "row"), tiny_tokenizer)
    whole = tiny_tokenizer.decode(sample["prompt_ids"] + sample["completion_ids"])
    assert whole == formats.fim_prompt(EDITOR["prefix"], EDITOR["suffix"]) + "a" + formats.ENDOFTEXT
    assert sample["label"] is True


def test_written_out_special_tokens_stay_text(tiny_tokenizer):
    end = formats.token_id(tiny_tokenizer, formats.ENDOFTEXT)
    sample = tokenize_feedback(feedback_of({**EDITOR, "completion": "'<|endoftext|>'"}, "row"), tiny_tokenizer)
    assert sample["completion_ids"].count(end) == 1 and sample["completion_ids"][-1] == end


@pytest.mark.parametrize("loss", ["kto", "apo_zero_unpaired"])
@pytest.mark.parametrize("precompute", [False, True])
def test_the_trainer_takes_the_prepared_rows(loss, precompute, on_disk, tiny_tokenizer, tmp_path):
    rows = [dict(tokenize_feedback(feedback_of(row, "row"), tiny_tokenizer)) for row in [*CHATS, EDITOR]]
    trainer = FeedbackTrainer(
        model=on_disk,
        args=config(tmp_path, loss_type=loss, precompute_ref_log_probs=precompute),
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer,
    )
    assert ("KL_completion_ids" in trainer.train_dataset.column_names) == (loss == "kto")
    # The policy equals the reference, so every reward is 0. The loss is then 1 - sigmoid(0).
    assert trainer.train().training_loss == pytest.approx(0.5, abs=1e-3)


def request(tmp_path, rows, source, **settings):
    stage = {"name": "kto", "kind": "kto", "data": [{"data": source(rows).data}], **settings}
    return StageRequest.for_stage(stage, tmp_path)


def test_rows_are_counted_by_label_and_written(tiny_tokenizer, source, tmp_path):
    rows = [*CHATS, EDITOR, {**EDITOR, "completion": "b", "label": 0}]
    counts = kto.prepare_feedback(request(tmp_path, rows, source), tiny_tokenizer, tmp_path)
    assert (counts["rows"], counts["accepted"], counts["rejected"], counts["chat"]) == (6, 3, 3, 4)
    assert sorted(load_from_disk(str(tmp_path / "train"))["label"]) == [False] * 3 + [True] * 3


def test_rows_that_are_too_long_are_dropped_and_counted(tiny_tokenizer, source, tmp_path):
    rows = [*CHATS, {**EDITOR, "completion": "x = 1\n" * 200}]
    counts = kto.prepare_feedback(request(tmp_path, rows, source, train={"max_length": 200}), tiny_tokenizer, tmp_path)
    assert counts["dropped_overlong"] == 1 and counts["accepted"] == 2


def test_rows_of_one_label_alone_are_refused(tiny_tokenizer, source, tmp_path):
    with pytest.raises(ValueError, match="all 1 rows are accepted: KTO needs both kinds"):
        kto.prepare_feedback(request(tmp_path, [EDITOR], source), tiny_tokenizer, tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**EDITOR, "label": "yes"}, "`label` must be true"),
        ({**EDITOR, "label": None}, "`label` must be true"),
        ({**EDITOR, "prompt": "Add."}, "this one has both"),
        ({"completion": "a", "label": True}, "this one has neither"),
        ({**EDITOR, "completion": " \n"}, "`completion` is empty"),
        ({**EDITOR, "suffix": 3}, "`suffix` of a completion in an editor must be text"),
        ({"prompt": "Add.", "completion": "", "label": True}, "empty"),
        (
            {"prompt": "Add.", "completion": [*CHATS[0]["completion"], *ASKED], "label": True},
            "one message of the assistant",
        ),
        ({"prompt": CHATS[0]["completion"], "completion": "a", "label": True}, "ends with a message of the assistant"),
        ({**EDITOR, "weight": 2.0}, "the column `weight` would be ignored"),
    ],
)
def test_a_wrong_row_is_refused_with_its_reason(row, message):
    with pytest.raises(ValueError, match=message):
        feedback_of(row, "rows.jsonl, row 1")
