"""Call llama.cpp through ctypes, from the prebuilt wheel `xllamacpp`. Nothing is compiled or downloaded.

The wheel exports llama.cpp's C functions. Two of the parameter structs are passed by value and grow from version to
version. Here they are opaque blobs in which a few fields are set at known offsets. When the library is loaded,
`LlamaCppLibrary` checks that the default values are at those offsets, and refuses a wheel with another layout.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# Offsets in `llama_context_params` and `llama_model_params` (include/llama.h of llama.cpp 0.5.0 and 0.6.0).
_N_CTX, _N_BATCH, _N_UBATCH, _N_SEQ_MAX, _OUTPUTS_PER_SEQUENCE = 0, 4, 8, 12, 24
_THREADS, _THREADS_BATCH, _FLASH_ATTENTION, _TYPE_K, _TYPE_V = 28, 32, 52, 104, 108
_GPU_LAYERS = 16
_CONTEXT_DEFAULTS = {_N_CTX: 512, _N_BATCH: 2048, _N_UBATCH: 512, _N_SEQ_MAX: 1, _OUTPUTS_PER_SEQUENCE: 1}
_CONTEXT_DEFAULTS |= {_THREADS: 4, _THREADS_BATCH: 4, _FLASH_ATTENTION: -1, _TYPE_K: 1, _TYPE_V: 1}
_MODEL_DEFAULTS = {_GPU_LAYERS: -1}
_BLOB = 1024  # far larger than either struct (168 and 78 bytes)
_GGML_TYPE_F32 = 0


class _Blob(ctypes.Structure):
    _fields_ = [("data", ctypes.c_uint8 * _BLOB)]

    def get(self, offset: int) -> int:
        return struct.unpack_from("<i", bytes(self.data), offset)[0]

    def set(self, offset: int, value: int) -> None:
        struct.pack_into("<i", self.data, offset, value)


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


_LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_POINTERS = (
    "llama_model_load_from_file",
    "llama_init_from_model",
    "llama_model_get_vocab",
    "llama_get_memory",
    "llama_adapter_lora_init",
)


def library_path() -> Path:
    """Return the path of the shared library in the installed wheel. Raise ValueError if no wheel is installed."""
    spec = importlib.util.find_spec("xllamacpp")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("xllamacpp*.so"))]
    if not files:
        raise ValueError("GGUF export needs llama.cpp: pip install 'code-alignment[gguf]'")
    return files[0]


class LlamaCppLibrary:
    """The wheel's shared library. Loading checks the layout of the parameter structs.

    The attribute `messages` holds the last lines that llama.cpp logged.
    """

    def __init__(self) -> None:
        path = library_path()
        self.wheel = importlib.metadata.version("xllamacpp")
        self.c = ctypes.CDLL(str(path))
        self.messages: list[str] = []
        self._log = _LogCallback(self._record)  # must stay referenced for as long as llama.cpp may call the callback
        self.c.llama_log_set(self._log, None)
        self.c.llama_version.restype = ctypes.c_char_p
        self.version = self.c.llama_version().decode()
        for name in _POINTERS:
            getattr(self.c, name).restype = ctypes.c_void_p
        self.c.llama_get_logits.restype = ctypes.POINTER(ctypes.c_float)
        self.c.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
        self.c.ggml_quantize_chunk.restype = ctypes.c_size_t
        self.c.ggml_quantize_chunk.argtypes = [
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_int64,
            ctypes.c_int64,
            ctypes.c_int64,
            ctypes.c_void_p,
        ]
        self.c.ggml_row_size.restype = ctypes.c_size_t
        self.c.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
        self.c.ggml_validate_row_data.restype = ctypes.c_bool
        self.c.ggml_validate_row_data.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
        self.context_defaults = self._defaults("llama_context_default_params", _CONTEXT_DEFAULTS)
        self.model_defaults = self._defaults("llama_model_default_params", _MODEL_DEFAULTS)

    def _record(self, level: int, text: bytes, data: object) -> None:
        self.messages = [*self.messages[-49:], text.decode(errors="replace")]

    def _defaults(self, function: str, expected: dict[int, int]) -> _Blob:
        """Return the default parameters from llama.cpp's `function`, after checking the values at known offsets."""
        getattr(self.c, function).restype = _Blob
        blob = getattr(self.c, function)()
        values = {offset: blob.get(offset) for offset in expected}
        if values != expected:
            raise ValueError(
                f"unknown parameter layout in xllamacpp {self.wheel} (llama.cpp {self.version}): {function} gives "
                f"{values}, expected {expected}. Install a tested version: pip install 'xllamacpp==2026.10.*'"
            )
        return blob

    def quantize_rows(self, type_number: int, rows: np.ndarray, imatrix: np.ndarray | None) -> np.ndarray:
        """Quantize rows with llama.cpp's kernel. The GIL is released during the call.

        Args:
            type_number: Value of `ggml_type` in llama.cpp that stands for the GGUF type.
            rows: Weights, float32 [rows, columns].
            imatrix: Importance of each column, float32 [columns].

        Returns:
            The encoded rows, uint8 [rows, bytes of a row].

        Raises:
            ValueError: llama.cpp rejects the encoded rows, because the weights hold extreme values.
        """
        count, columns = rows.shape
        out = np.empty((count, self.c.ggml_row_size(type_number, columns)), dtype=np.uint8)
        weights = None if imatrix is None else imatrix.ctypes.data
        written = self.c.ggml_quantize_chunk(type_number, rows.ctypes.data, out.ctypes.data, 0, count, columns, weights)
        if written != out.nbytes or not self.c.ggml_validate_row_data(type_number, out.ctypes.data, out.nbytes):
            raise ValueError("llama.cpp rejects its own quantized rows: the weights hold extreme values")
        return out

    def problem(self) -> str:
        """Return the last lines that llama.cpp logged, as one line."""
        return " | ".join(line.strip() for line in self.messages[-4:] if line.strip()) or "no reason logged"


class GgufModel:
    """A GGUF file that runs in llama.cpp on the CPU.

    Flash attention is off and the key-value cache is float32, so that measurements depend on the file alone.

    Args:
        library: The loaded library.
        path: The file, or the first part of a split file.
        n_ctx: Length of the context in tokens. It is also the batch size, so that all positions can have logits.
        threads: CPU threads.

    Raises:
        ValueError: llama.cpp does not load the file.
    """

    def __init__(self, library: LlamaCppLibrary, path: str | Path, n_ctx: int, threads: int) -> None:
        self.library = library
        c = library.c
        parameters = _Blob.from_buffer_copy(library.model_defaults)
        parameters.set(_GPU_LAYERS, 0)
        self.model = c.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.model:
            raise ValueError(f"llama.cpp can't load {path}: {library.problem()}")
        context = _Blob.from_buffer_copy(library.context_defaults)
        for offset, value in (
            (_N_CTX, n_ctx),
            (_N_BATCH, n_ctx),
            (_N_UBATCH, min(n_ctx, 512)),
            (_OUTPUTS_PER_SEQUENCE, 0),
            (_THREADS, threads),
            (_THREADS_BATCH, threads),
            (_FLASH_ATTENTION, 0),
            (_TYPE_K, _GGML_TYPE_F32),
            (_TYPE_V, _GGML_TYPE_F32),
        ):
            context.set(offset, value)
        self.context = c.llama_init_from_model(ctypes.c_void_p(self.model), context)
        if not self.context:
            raise ValueError(f"llama.cpp can't create a context for {path}: {library.problem()}")
        self._check_context(n_ctx, threads)
        self.vocab = c.llama_model_get_vocab(ctypes.c_void_p(self.model))
        self.n_vocab = c.llama_vocab_n_tokens(ctypes.c_void_p(self.vocab))

    def _check_context(self, n_ctx: int, threads: int) -> None:
        """Raise ValueError if the context that llama.cpp created does not have the parameters that were set."""
        c, context = self.library.c, ctypes.c_void_p(self.context)
        values = c.llama_n_ctx(context), c.llama_n_batch(context), c.llama_n_threads(context)
        if values[0] < n_ctx or values[1:] != (n_ctx, threads):
            raise ValueError(
                f"llama.cpp has context, batch and threads of {values}, although {n_ctx}, {n_ctx} and {threads} were set"
            )

    def tokenize(self, text: str) -> list[int]:
        """Tokenize `text`. Written-out special tokens are recognized; no special tokens are added."""
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 8))()
        count = self.library.c.llama_tokenize(
            ctypes.c_void_p(self.vocab), data, len(data), ids, len(ids), ctypes.c_bool(False), ctypes.c_bool(True)
        )
        if count < 0:
            raise ValueError(f"llama.cpp needs {-count} ids for {len(data)} bytes of text")
        return list(ids[:count])

    def clear(self) -> None:
        """Empty the key-value cache."""
        memory = self.library.c.llama_get_memory(ctypes.c_void_p(self.context))
        self.library.c.llama_memory_clear(ctypes.c_void_p(memory), ctypes.c_bool(True))

    def decode(self, tokens: Sequence[int], position: int = 0, every: bool = True) -> np.ndarray:
        """Run the model on tokens of one sequence.

        Args:
            tokens: Token ids.
            position: Position of the first of these tokens. Earlier positions are in the key-value cache.
            every: Whether to return logits after every token, instead of only after the last.

        Returns:
            Logits, float32 [len(tokens) or 1, vocabulary]. The array is a view that the next call overwrites.
        """
        n = len(tokens)
        zero = (ctypes.c_int32 * 1)(0)
        pointers = (ctypes.POINTER(ctypes.c_int32) * n)(*[ctypes.cast(zero, ctypes.POINTER(ctypes.c_int32))] * n)
        batch = _Batch(
            n,
            (ctypes.c_int32 * n)(*tokens),
            None,
            (ctypes.c_int32 * n)(*range(position, position + n)),
            (ctypes.c_int32 * n)(*[1] * n),
            pointers,
            (ctypes.c_int8 * n)(*[1 if every or i == n - 1 else 0 for i in range(n)]),
        )
        status = self.library.c.llama_decode(ctypes.c_void_p(self.context), batch)
        if status != 0:
            raise ValueError(f"llama.cpp could not decode {n} tokens (status {status}): {self.library.problem()}")
        logits = self.library.c.llama_get_logits(ctypes.c_void_p(self.context))
        return np.ctypeslib.as_array(logits, shape=(n if every else 1, self.n_vocab))

    def apply_adapter(self, path: str | Path, scale: float = 1.0) -> None:
        """Load a LoRA adapter in GGUF form and apply it in all later calls of `decode`."""
        adapter = self.library.c.llama_adapter_lora_init(ctypes.c_void_p(self.model), str(path).encode())
        if not adapter:
            raise ValueError(f"llama.cpp can't load the adapter {path}: {self.library.problem()}")
        adapters = (ctypes.c_void_p * 1)(adapter)
        scales = (ctypes.c_float * 1)(scale)
        self.library.c.llama_set_adapters_lora(ctypes.c_void_p(self.context), adapters, ctypes.c_size_t(1), scales)
