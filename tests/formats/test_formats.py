"""The prompt formats of Qwen2.5-Coder byte by byte, and text that never becomes special tokens."""

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from alignment.models import formats


def test_file_level_fim_is_prefix_suffix_middle():
    assert (
        formats.fim_document("def f():\n", "    return 1\n", "print(f())\n")
        == "<|fim_prefix|>def f():\n<|fim_suffix|>print(f())\n<|fim_middle|>    return 1\n<|endoftext|>"
    )


def test_repo_level_document_has_no_space_after_the_path():
    assert (
        formats.repo_document("team/app", [("a.py", "A = 1"), ("lib/b.py", "import a")])
        == "<|repo_name|>team/app\n<|file_sep|>a.py\nA = 1\n<|file_sep|>lib/b.py\nimport a\n<|endoftext|>"
    )


def test_repo_level_fim_is_in_the_last_file_only():
    text = formats.repo_fim_document("r", [("a.py", "A = 1")], "b.py", "x = ", "A", "\n")
    assert text == (
        "<|repo_name|>r\n<|file_sep|>a.py\nA = 1\n<|file_sep|>b.py\n"
        "<|fim_prefix|>x = <|fim_suffix|>\n<|fim_middle|>A<|endoftext|>"
    )


def test_in_spm_the_middle_follows_the_prefix():
    assert formats.fim_prompt("P", "S", "spm") == "<|fim_prefix|><|fim_suffix|>S<|fim_middle|>P"


@pytest.mark.parametrize("mode", ["psm", "spm"])
@pytest.mark.parametrize("middle", [None, "mid"])
def test_segments_join_to_the_same_string(mode, middle):
    text = "".join(part for part, _ in formats.fim_segments("pre", middle, "suf", mode))
    expected = (
        formats.fim_prompt("pre", "suf", mode) if middle is None else formats.fim_document("pre", middle, "suf", mode)
    )
    assert text == expected


def render(messages, add_generation_prompt=False):
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(formats.CHAT_TEMPLATE)
    return template.render(messages=messages, add_generation_prompt=add_generation_prompt, tools=None)


@pytest.mark.parametrize(
    ("messages", "generation"),
    [
        ([{"role": "user", "content": "write a quick sort algorithm."}], True),
        ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}], True),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], False),
        (
            [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b\n"},
                {"role": "user", "content": "c"},
            ],
            True,
        ),
    ],
)
def test_chat_equals_the_official_template(messages, generation):
    assert formats.chat(messages, generation) == render(messages, generation)


def test_chat_equals_the_readme_example():
    assert formats.chat([{"role": "user", "content": "write a quick sort algorithm."}], True) == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nwrite a quick sort algorithm.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_trl_recognizes_the_template_by_its_text():
    from trl.chat_template_utils import qwen2_5_chat_template

    assert qwen2_5_chat_template == formats.CHAT_TEMPLATE


def test_escaped_text_contains_no_special_token():
    text = "before <|im_end|> and <|fim_middle|> and </tool_call> after"
    escaped = formats.escape_special_text(text)
    assert not formats.contains_special_text(escaped)
    assert escaped.replace("\u200b", "") == text


@pytest.mark.parametrize("text", ["plain", "a < b", *[f"x{t}y{t}{t}" for t, _ in formats.ADDED_TOKENS]])
def test_text_never_encodes_to_a_special_token(real_tokenizer, text):
    ids = formats.encode_text(real_tokenizer, text)
    assert max(ids) < 151643
    assert real_tokenizer.decode(ids) == text


def test_special_ids_are_the_official_ones(real_tokenizer):
    ids = [formats.token_id(real_tokenizer, token) for token, _ in formats.ADDED_TOKENS]
    assert ids == list(range(151643, 151665))
    assert formats.stop_token_ids(real_tokenizer) == [151643, 151645, 151659, 151661, 151662, 151663, 151664]


def test_segment_ids_equal_the_ids_of_the_string(real_tokenizer):
    segments = formats.fim_segments("def f(x):\n    ", "return x", "\n\nprint(f(2))\n")
    string = formats.fim_document("def f(x):\n    ", "return x", "\n\nprint(f(2))\n")
    assert formats.encode_segments(real_tokenizer, segments) == real_tokenizer.encode(string)


def test_a_tokenizer_without_the_token_is_refused():
    class Words:
        def encode(self, text, add_special_tokens=True):
            return [1, 2, 3]

        def convert_tokens_to_ids(self, tokens):
            return 0

    with pytest.raises(ValueError, match=r"no token <\|fim_prefix\|>"):
        formats.token_id(Words(), formats.FIM_PREFIX)
