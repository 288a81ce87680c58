"""Special tokens of Qwen2.5 and Qwen2.5-Coder, the reference family of `alignment.models.model_family`."""

from __future__ import annotations

ENDOFTEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
FIM_PREFIX = "<|fim_prefix|>"
FIM_MIDDLE = "<|fim_middle|>"
FIM_SUFFIX = "<|fim_suffix|>"
FIM_PAD = "<|fim_pad|>"
REPO_NAME = "<|repo_name|>"
FILE_SEP = "<|file_sep|>"
TOOL_CALL = "<tool_call>"
TOOL_CALL_END = "</tool_call>"

# The added tokens in Qwen2.5's tokenizer.json, in the order of their ids 151643 to 151664. The second value says
# whether the tokenizer marks the token as special, so that `skip_special_tokens` hides the token.
ADDED_TOKENS: tuple[tuple[str, bool], ...] = (
    (ENDOFTEXT, True),
    (IM_START, True),
    (IM_END, True),
    ("<|object_ref_start|>", True),
    ("<|object_ref_end|>", True),
    ("<|box_start|>", True),
    ("<|box_end|>", True),
    ("<|quad_start|>", True),
    ("<|quad_end|>", True),
    ("<|vision_start|>", True),
    ("<|vision_end|>", True),
    ("<|vision_pad|>", True),
    ("<|image_pad|>", True),
    ("<|video_pad|>", True),
    (TOOL_CALL, False),
    (TOOL_CALL_END, False),
    (FIM_PREFIX, False),
    (FIM_MIDDLE, False),
    (FIM_SUFFIX, False),
    (FIM_PAD, False),
    (REPO_NAME, False),
    (FILE_SEP, False),
)

# Tokens that end generation after a FIM prompt (ids 151659, 151661-151664, 151643, 151645 in Qwen2.5's tokenizer).
FIM_STOP_TOKENS = (FIM_PREFIX, FIM_SUFFIX, FIM_PAD, REPO_NAME, FILE_SEP, ENDOFTEXT, IM_END)
CHAT_STOP_TOKENS = (IM_END, ENDOFTEXT)
