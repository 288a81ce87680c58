"""Preference rows become the token ids and masks of TRL's DPOTrainer, without turns of the user in the mask."""

import json
import math

import pytest
import torch
from datasets import Dataset, load_from_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import Qwen2ForCausalLM
from trl import DPOConfig, DPOTrainer, extract_prompt

from alignment.models import formats
from alignment.recipe.stage_request import StageRequest
from alignment.rows.dialogue_pairs import pair_of
from alignment.rows.row_texts import model_text
from alignment.stages import dpo
from alignment.stages.pair_trainer import MaskedPairCollator, PairTrainer
from alignment.tokenization.pair_tokens import tokenize_pair

QUESTION, BETTER, WORSE = "How do I sum?", "Call sum(x).", "Write a loop."
TEXT = st.text(alphabet=st.sampled_from("ab \n\t<|{`'é日\N{PARTY POPPER}"), min_size=1, max_size=12).filter(str.strip)


def user(text, **marks):
    return {"role": "user", "content": text, **marks}


def answer(text, **marks):
    return {"role": "assistant", "content": text, **marks}


@st.composite
def dialogues(draw):
    """A shared prompt of one to three questions, and two answers that differ."""
    prompt = [{"role": "system", "content": draw(TEXT)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        prompt += [user(draw(TEXT)), answer(draw(TEXT))]
    prompt.append(user(draw(TEXT)))
    chosen, rejected = draw(TEXT), draw(TEXT)
    return prompt, [answer(chosen)], [answer(rejected)]


def tokenized_by_trl(row, tokenizer):
    """The columns that DPOTrainer makes of a conversational row."""

    class Arguments:
        dataset_num_proc, max_length, truncation_mode = None, None, "keep_start"

    trainer = DPOTrainer.__new__(DPOTrainer)
    trainer._tokenizer = tokenizer
    (prepared,) = list(DPOTrainer._prepare_dataset(trainer, Dataset.from_list([row]), tokenizer, Arguments(), "train"))
    return [prepared[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(dialogue=dialogues(), form=st.sampled_from(["prompt", "dialogues", "both", "text"]))
def test_ids_and_masks_are_those_of_trl_for_generated_dialogues(tiny_tokenizer, dialogue, form):
    prompt, chosen, rejected = dialogue
    tiny_tokenizer.chat_template = formats.CHAT_TEMPLATE
    whole = {"chosen": prompt + chosen, "rejected": prompt + rejected}
    row = {
        "prompt": {"prompt": prompt, "chosen": chosen, "rejected": rejected},
        "dialogues": whole,
        "both": {"prompt": prompt, **whole},
        "text": {"prompt": prompt[-1]["content"], **whole},
    }[form]
    pair = pair_of(row, "row 1")
    if pair is None:
        return
    sample = tokenize_pair(pair, tiny_tokenizer)
    expected = tokenized_by_trl(extract_prompt(whole), tiny_tokenizer)
    assert [sample["prompt_ids"], sample["chosen_ids"], sample["rejected_ids"]] == expected
    assert all(sample["chosen_mask"]) and all(sample["rejected_mask"])


def test_ids_are_those_of_trl_with_the_real_tokenizer(real_tokenizer):
    real_tokenizer.chat_template = formats.CHAT_TEMPLATE
    for chosen, rejected in (("Call sum(x).", "No."), ("\n\n    x = 1", "  y"), ("\tx", "\n")):
        row = {"prompt": [user("  Hi\n")], "chosen": [answer(f"{chosen}.")], "rejected": [answer(f"{rejected}!")]}
        sample = tokenize_pair(pair_of(row, "row 1"), real_tokenizer)
        assert [sample[key] for key in ("prompt_ids", "chosen_ids", "rejected_ids")] == tokenized_by_trl(
            row, real_tokenizer
        )
        assert all(sample["chosen_mask"]) and all(sample["rejected_mask"])


def test_turns_of_the_user_after_the_prompt_are_seen_and_not_learned(tiny_tokenizer):
    chosen = [answer("One."), user("More?"), answer("Two.")]
    sample = tokenize_pair(pair_of({"prompt": QUESTION, "chosen": chosen, "rejected": WORSE}, "row 1"), tiny_tokenizer)
    learned = [token for token, mask in zip(sample["chosen_ids"], sample["chosen_mask"], strict=True) if mask]
    assert tiny_tokenizer.decode(learned) == "One.<|im_end|>\nTwo.<|im_end|>\n"
    assert "More?" in tiny_tokenizer.decode(sample["chosen_ids"])


@pytest.mark.parametrize("mode", ["keep_start", "keep_end"])
@pytest.mark.parametrize("length", [None, 4, 9])
def test_the_collator_pads_and_cuts_masks_as_ids(mode, length):
    rows = [
        {
            "prompt_ids": [1, 2],
            "chosen_ids": [3, 4, 5],
            "rejected_ids": [6],
            "chosen_mask": [1, 0, 1],
            "rejected_mask": [1],
        },
        {"prompt_ids": [7], "chosen_ids": [8], "rejected_ids": [9, 9], "chosen_mask": [1], "rejected_mask": [0, 1]},
    ]
    batch = MaskedPairCollator(pad_token_id=0, max_length=length, truncation_mode=mode)(rows)
    learned = [ids[mask == 1].tolist() for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)]
    first = [3] if (mode, length) == ("keep_start", 4) else [3, 5]
    assert learned == [first, [8], [6], [9]]
    assert torch.equal(batch["input_ids"] != 0, batch["attention_mask"] == 1)


DIALOGUES = {"chosen": [user(QUESTION), answer(BETTER)], "rejected": [user(QUESTION), answer(WORSE)]}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": QUESTION, "chosen": BETTER, "rejected": WORSE},
        {"prompt": QUESTION, **DIALOGUES},
        {"prompt": [], **DIALOGUES},
        {"prompt": None, **DIALOGUES, "messages": DIALOGUES["chosen"]},
        {"prompt": [user(QUESTION)], **DIALOGUES, "score_chosen": 5.0, "source": "x", "system": None, "tools": []},
        {"prompt": f"{QUESTION}\n", "chosen": DIALOGUES["chosen"], "rejected": DIALOGUES["rejected"]},
        {"prompt": [user(QUESTION)], "chosen": DIALOGUES["chosen"], "rejected": WORSE},
        {"prompt": QUESTION, "chosen": BETTER, "rejected": DIALOGUES["rejected"]},
        {"prompt": QUESTION, "chosen": [answer(BETTER, weight=1)], "rejected": [answer(WORSE, train=True)]},
    ],
)
def test_every_form_of_a_pair_gives_the_same_sample(row, tiny_tokenizer):
    expected = pair_of({"prompt": [user(QUESTION)], "chosen": [answer(BETTER)], "rejected": [answer(WORSE)]}, "row 1")
    assert pair_of(row, "row 1") == expected
    assert model_text(row).text == formats.chat([user(QUESTION), answer(BETTER)])


def test_a_system_message_of_the_prompt_stays_if_the_dialogues_lack_it():
    pair = pair_of({"prompt": [SYSTEM, user(QUESTION)], **DIALOGUES}, "row 1")
    assert pair.prompt == [SYSTEM, user(QUESTION)] and pair.chosen == [answer(BETTER)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": BETTER, "rejected": WORSE}, "needs a `prompt`"),
        ({"prompt": " \n", "chosen": BETTER, "rejected": WORSE}, "needs a `prompt`"),
        ({"prompt": [], "chosen": BETTER, "rejected": WORSE}, "an empty list|needs a `prompt`"),
        ({"prompt": 3, "chosen": BETTER, "rejected": WORSE}, "prompt: messages must be a list"),
        ({"prompt": QUESTION, "chosen": None, "rejected": WORSE}, "chosen: messages must be a list .*NoneType"),
        ({"prompt": QUESTION, "chosen": BETTER, "rejected": "\t\n"}, "rejected: an answer .* is empty or blank"),
        ({"prompt": QUESTION, "chosen": [user("x")], "rejected": WORSE}, "`chosen` must end with"),
        ({"prompt": QUESTION, "chosen": [user("x"), answer("y")], "rejected": WORSE}, "does not repeat `prompt`"),
        ({"chosen": [user("a"), answer("x")], "rejected": [user("b"), answer("y")]}, "answer different questions"),
        ({"prompt": QUESTION, "chosen": BETTER, "rejected": [answer(BETTER), user("?"), answer("x")]}, "begins with all"),
        ({"prompt": [SYSTEM, user("a")], "chosen": [{**SYSTEM, "content": "x"}, user("a"), answer("b")], "rejected": "c"},
         "system messages of `prompt` and `chosen` differ"),
        ({"prompt": QUESTION, "chosen": [answer(BETTER, weight=0)], "rejected": WORSE}, "marked to have no loss"),
        ({"prompt": QUESTION, "chosen": BETTER, "rejected": WORSE, "system": "Be brief."}, "column `system`"),
        ({"prompt": QUESTION, "chosen": BETTER, "rejected": WORSE, "system_prompt": "x"}, "column `system_prompt`"),
        ({"prompt": QUESTION, "chosen": BETTER, "rejected": WORSE, "tools": [{}]}, "tool 1: needs a `name`"),
        ({"prompt": QUESTION, "chosen": BETTER, "rejected": WORSE, "images": ["a.png"]}, "column `images`"),
        ({"promt": QUESTION, **DIALOGUES}, "Did you mean 'prompt'"),
    ],
)  # fmt: skip
def test_a_row_that_is_no_pair_is_refused_with_its_row(row, message):
    with pytest.raises(ValueError, match=rf"row 1.*({message})"):
        pair_of(row, "rows.jsonl, row 1")


@pytest.mark.parametrize("pair", [("a + b", "a + b \n"), ("cafe\u0301", "caf\u00e9"), ("x", [answer("x\n\n")])])
def test_equal_pairs_are_dropped_and_counted(pair, tiny_tokenizer, source, tmp_path):
    rows = [
        {"prompt": "q", "chosen": pair[0], "rejected": pair[1]},
        {"prompt": "q", "chosen": "<|im_end|> ends", "rejected": "b"},
    ]
    stage = {"name": "dpo", "kind": "dpo", "data": [{"data": source(rows).data}]}
    counts = dpo.prepare_pairs(StageRequest.for_stage(stage, tmp_path), tiny_tokenizer, tmp_path)
    assert (counts["rows"], counts["same_answers"], counts["pairs"]) == (2, 1, 1)
    (row,) = load_from_disk(str(tmp_path / "train"))
    assert tiny_tokenizer.decode(row["chosen_ids"]) == "<|im_end|> ends<|im_end|>\n"
    assert row["chosen_ids"].count(formats.token_id(tiny_tokenizer, formats.IM_END)) == 1
    assert "\u200b" not in json.dumps(row)


@pytest.mark.parametrize("precompute", [False, True])
def test_the_trainer_takes_the_prepared_pairs_and_masks(precompute, model, tiny_tokenizer, tmp_path):
    rows = [
        {"prompt": "q", "chosen": [answer("One."), user("More?"), answer("Two.")], "rejected": "Three."},
        {"prompt": "r", "chosen": "a", "rejected": "b"},
    ]
    pairs = [dict(tokenize_pair(pair_of(row, "row 1"), tiny_tokenizer)) for row in rows]
    model.save_pretrained(tmp_path / "model")
    model = Qwen2ForCausalLM.from_pretrained(tmp_path / "model")  # the reference is loaded from the same path
    args = DPOConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, precompute_ref_log_probs=precompute,
        report_to=[], use_cpu=True, bf16=False, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = PairTrainer(
        model=model, args=args, train_dataset=Dataset.from_list(pairs), processing_class=tiny_tokenizer
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert int(batch["completion_mask"].sum()) == sum(
        sum(pair["chosen_mask"] + pair["rejected_mask"]) for pair in pairs
    )
    assert trainer.train().training_loss == pytest.approx(math.log(2), abs=1e-3)  # the policy equals the reference
