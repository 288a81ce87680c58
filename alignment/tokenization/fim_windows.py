"""Context-level fill-in-the-middle: plain pieces and FIM samples of documents, none of which is longer than a row.

A document is read from front to back. Each step makes a plain piece of the next tokens, or a FIM sample: it chooses a
middle in the next tokens, and then the text around the middle. (In arXiv 2207.14255, section 4.4, documents are first
cut to the context length. Here the middle is chosen first, so that no cut falls into it.) The prefix of a sample may
overlap with earlier samples; no text is skipped.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from alignment.models import formats
from alignment.recipe.stage_parts import FIM_WINDOW, Fim, FimMiddles
from alignment.tokenization.fim_middles import FileText, choose_middle
from alignment.tokenization.related_chunks import RepositoryFile, RepositoryFiles

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EDITOR_LAYOUT = 0.5
"""Among the samples that begin with chunks of related files, the share that is written in llama.cpp's layout. The other
samples are written in Qwen2.5-Coder's layout."""
NEAR = 2000
"""Number of characters on each side of the middle that are compared with chunks of related files."""
PREFIX_SHARE = (0.5, 0.9)
"""Smallest and largest share of the prefix in the text around a middle. Editors send more prefix than suffix."""
LONGEST_MIDDLE = 2 / 3
"""Largest length of a middle, as a share of the characters among which the middle is chosen."""
SPECIAL_TOKENS = 4
"""Number of special tokens in a FIM sample."""
FITTINGS = 6
"""Number of attempts to fit a sample into a row. Each attempt takes less text around the middle than the previous
attempt."""


class TokenSample(NamedTuple):
    """A sample whose tokens are all learned."""

    ids: list[int]
    middle: int
    """Number of tokens in the middle, or 0 for plain text."""


@dataclass(frozen=True)
class _Encoded:
    """A file and its token ids."""

    file: FileText
    ids: Sequence[int]
    starts: Sequence[int]
    """For each token, the offset of its first character in the file."""
    path: str = ""
    related: RepositoryFiles | None = None
    """The files of the repository. None if the FIM samples of the file must not begin with chunks of other files."""

    def position(self, token: int) -> int:
        """Return the offset of a token's first character. For the index after the last token: the end of the text."""
        return self.starts[token] if token < len(self.ids) else len(self.file.text)


class FimWindows:
    """Cuts documents into plain pieces and FIM samples, such that a given share of all tokens is in FIM samples.

    Args:
        tokenizer: a fast tokenizer.
        settings: the stage's `fim:`.
        max_length: number of tokens in a row.
        rng: random generator of all draws.
        counts: counter whose `fim` and `fim_KIND` (the kind of the middle) are increased for each FIM sample, and
            `fim_with_files` if the sample begins with texts of other files.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        settings: Fim,
        max_length: int,
        rng: random.Random,
        counts: Counter[str],
    ) -> None:
        self.tokenizer, self.settings, self.max_length = tokenizer, settings, max_length
        self.rng, self.counts = rng, counts
        self.window = min(settings.window or FIM_WINDOW, max_length)
        self.middles = settings.middles or FimMiddles()
        self.tokens = self.fim_tokens = 0
        """Number of tokens in all samples so far, and in the FIM samples so far."""
        self._special = {token: formats.token_id(tokenizer, token) for token in formats.FIM_STOP_TOKENS}
        self._special[formats.FIM_MIDDLE] = formats.token_id(tokenizer, formats.FIM_MIDDLE)

    def document_samples(
        self, text: str, language: str, path: str = "", related: RepositoryFiles | None = None
    ) -> Iterator[TokenSample]:
        """Yield the samples of a document.

        Args:
            text: the document.
            language: its language, one of `languages.LANGUAGES`, or an empty string.
            path: its path in the repository.
            related: the files of the repository, or None if they are unknown.
        """
        yield from self._file_samples(self._encoded(text, language, path, related), ())

    def repository_samples(
        self, repository: str, files: Sequence[tuple[str, str]], languages: Sequence[str]
    ) -> Iterator[TokenSample]:
        """Yield the samples of a repo-level document.

        A document that fits a row stays whole, and only its last file can become FIM, as in figure 4 of the
        Qwen2.5-Coder report. A longer document is split into files, and each file is cut separately. The repository's
        name and the file's path are written before its first piece and before every FIM sample.

        Args:
            repository: name of the repository.
            files: path and text of each file.
            languages: language of each file, as in `document_samples`.
        """
        (path, text), others = files[-1], files[:-1]
        header = [*formats.repo_segments(repository, others), (formats.FILE_SEP, True), (f"{path}\n", False)]
        header_ids, last = self._encode(header), self._encoded(text, languages[-1])
        if len(header_ids) + len(last.ids) + SPECIAL_TOKENS <= self.max_length:
            made = self._fim_sample(last, 0, header_ids, self.max_length) if self._wants_fim() else None
            sample, end = made or self._plain_piece(last, 0, header_ids)
            yield self._count(sample)
            if end < len(last.ids):  # cut parts have more tokens than the whole file, and did not fit by a few
                yield self._count(self._plain_piece(last, end, ())[0])
            return
        related = None
        if self.settings.context_files_rate:
            members = zip(files, languages, strict=True)
            related = RepositoryFiles(repository, [RepositoryFile(*file, language) for file, language in members])
        for (path, text), language in zip(files, languages, strict=True):
            name = [*formats.repo_segments(repository, ()), (formats.FILE_SEP, True), (f"{path}\n", False)]
            yield from self._file_samples(self._encoded(text, language, path, related), self._encode(name))

    def _file_samples(self, file: _Encoded, header: Sequence[int]) -> Iterator[TokenSample]:
        """Yield the samples of one file. `header` is put before the first plain piece and before every FIM sample."""
        at, end = 0, len(file.ids)
        header = header if len(header) <= self.window // 2 else ()
        while at < end:
            made = None
            if self._wants_fim():
                whole = end + len(header) + SPECIAL_TOKENS <= self.window
                size = self.window if whole else self.rng.randint(self.window // 4, self.window)
                made = self._fim_sample(file, at, header, size)
            if made:
                sample, at = made
            else:
                sample, at = self._plain_piece(file, at, header if at == 0 else ())
            yield self._count(sample)

    def _plain_piece(self, file: _Encoded, at: int, header: Sequence[int]) -> tuple[TokenSample, int]:
        """Return a plain piece of the file, and the index of the first token after the piece.

        The piece starts at the token with index `at`, and fills a row or ends with the file and `<|endoftext|>`.
        """
        space, end = self.max_length - len(header), len(file.ids)
        if end - at < space:
            return TokenSample([*header, *file.ids[at:], self._special[formats.ENDOFTEXT]], 0), end
        stop = at + space - (end - at == space)  # the last piece has text, not the end alone
        return TokenSample([*header, *file.ids[at:stop]], 0), stop

    def _wants_fim(self) -> bool:
        """Decide at random whether the next sample is a FIM sample, such that the share of FIM tokens stays near the
        rate that the recipe sets.
        """
        rate = self.settings.rate
        if rate in (0, 1):
            return rate == 1
        return self.fim_tokens < rate * self.tokens + self.rng.uniform(-1, 1) * self.window

    def _fim_sample(self, file: _Encoded, at: int, header: Sequence[int], size: int) -> tuple[TokenSample, int] | None:
        """Make a FIM sample whose middle is in the text that follows a token.

        Args:
            file: the file.
            at: index of the first token that is in no sample yet. The new sample contains this token.
            header: token ids before the FIM block.
            size: largest number of tokens in the sample.

        Returns:
            The sample, and the index of the first token after the sample. None if no suitable middle was found.
        """
        with_files = file.related is not None and self.rng.random() < self.settings.context_files_rate
        reserved = max(len(header), self._context_tokens(size)) if with_files else len(header)
        room = size - reserved - SPECIAL_TOKENS
        if room < 1:
            return None
        region = file.position(at), file.position(min(at + room, len(file.ids)))
        if region[0] >= region[1]:
            return None
        longest = max(1, int((region[1] - region[0]) * LONGEST_MIDDLE))
        chosen = choose_middle(file.file, region, longest, self.middles, self.rng)
        if chosen is None:
            return None
        middle, kind = chosen
        share = self.rng.uniform(*PREFIX_SHARE)
        mode: formats.FimMode = "spm" if self.rng.random() < self.settings.spm_rate else "psm"
        text = file.file.text
        if with_files:
            near = text[max(middle[0] - NEAR, 0) : middle[0]] + "\n" + text[middle[1] : middle[1] + NEAR]
            header = self._related_header(file, near, reserved)
        for _ in range(FITTINGS):
            start, end = _window(file, at, middle, room, share)
            parts = text[start : middle[0]], text[middle[0] : middle[1]], text[middle[1] : end]
            ids = [*header, *self._encode(formats.fim_segments(*parts, mode))]
            if len(ids) <= size:
                self.counts["fim"] += 1
                self.counts[f"fim_{kind}"] += 1
                if header.count(self._special[formats.FILE_SEP]) > 1:
                    self.counts["fim_with_files"] += 1
                length = len(formats.encode_text(self.tokenizer, parts[1]))
                return TokenSample(ids, length), bisect_left(file.starts, end)
            room -= len(ids) - size + 1
            if room < 1:
                return None
        return None

    def _context_tokens(self, size: int) -> int:
        """Return the largest number of tokens of related chunks in a sample of at most `size` tokens."""
        budget = self.settings.context_tokens or self.window // 2
        return budget * size // self.window

    def _related_header(self, file: _Encoded, near: str, budget: int) -> list[int]:
        """Return the token ids before a FIM block: as many chunks of related files as fit, the best chunk last.

        Args:
            file: the file with the FIM block.
            near: the text around the middle.
            budget: largest number of ids. If not even the names fit, the result is an empty list.
        """
        assert file.related is not None
        editor = self.rng.random() < EDITOR_LAYOUT
        header: list[int] = []
        chosen: list[tuple[str, str]] = []
        for path, text in [("", ""), *file.related.chunks(file.path, near, budget, self.rng)]:
            chunks = [(path, text), *chosen] if text else []
            if editor:
                segments = formats.infill_segments([(path, text.rstrip("\n")) for path, text in chunks])
            else:
                segments = formats.repo_segments(file.related.repository, chunks)
                segments += [(formats.FILE_SEP, True), (f"{file.path}\n", False)]
            ids = self._encode(segments)
            if len(ids) > budget:
                break
            header, chosen = ids, chunks
        return header

    def _encoded(self, text: str, language: str, path: str = "", related: RepositoryFiles | None = None) -> _Encoded:
        return _Encoded(FileText(text, language), *formats.encode_with_starts(self.tokenizer, text), path, related)

    def _encode(self, segments: Sequence[tuple[str, bool]]) -> list[int]:
        ids: list[int] = []
        for text, special in segments:
            ids += [self._special[text]] if special else formats.encode_text(self.tokenizer, text)
        return ids

    def _count(self, sample: TokenSample) -> TokenSample:
        self.tokens += len(sample.ids)
        self.fim_tokens += len(sample.ids) if sample.middle else 0
        return sample


def _window(file: _Encoded, at: int, middle: tuple[int, int], room: int, share: float) -> tuple[int, int]:
    """Return the start and end offsets of the text around a middle.

    Args:
        file: the file.
        at: index of a token. The text begins at this token or before it.
        middle: start and end offset of the middle.
        room: number of tokens in the text, including the middle.
        share: the prefix's share of the tokens around the middle. If the file has fewer tokens on one side, the other
            side gets more tokens.
    """
    text, count = file.file.text, len(file.ids)
    first, last = bisect_right(file.starts, middle[0]) - 1, bisect_left(file.starts, middle[1])
    around = max(room - (last - first), 0)
    prefix = min(round(share * around), first)
    suffix = min(around - prefix, count - last)
    prefix = min(around - suffix, first)
    begin, stop = first - prefix, last + suffix
    if begin > at:
        begin, stop = at, max(last, stop - (begin - at))
    start, end = file.position(begin), file.position(stop)
    # Editors send whole lines: cut at line ends, where that costs little.
    used = file.position(at)
    newline = text.find("\n", max(start - 1, 0), used)
    if start and newline >= 0 and newline - start <= (used - start) / 2:
        start = newline + 1
    newline = text.rfind("\n", middle[1], end)
    if end < len(text) and newline >= 0 and end - newline <= (end - middle[1]) / 2:
        end = newline + 1
    return start, end
