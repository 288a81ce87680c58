"""Signs the files of a model folder with a key, and verifies such a signature, without a network.

The format is that of OpenSSF Model Signing: a Sigstore bundle with the hash of every file. `model_signing verify key`
verifies the same signatures.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

SIGNATURE = "model.sig"
"""Default name of the signature, in the signed folder."""


def sign(folder: Path, key: Path, signature: Path, password: str | None = None) -> int:
    """Sign all files of a folder. The signature is written to `signature`.

    Args:
        folder: the folder.
        key: PEM file with a private key on an elliptic curve (P-256, P-384 or P-521).
        signature: file to write. It is left out of the signature if it is in the folder.
        password: password of the key, if it has one.

    Returns:
        The number of signed files.

    Raises:
        ValueError: the key can't be read, the folder has no files, or model-signing is not installed.
    """
    model_signing = _model_signing()
    files = _files(folder, signature)
    if not files:
        raise ValueError(f"{folder} has no files to sign")
    config = model_signing.signing.Config().use_elliptic_key_signer(private_key=_existing(key), password=password)
    try:
        config.set_hashing_config(_hashing(model_signing, signature)).sign(folder, signature)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder} was not signed with {key}: {error}") from None
    return len(files)


def verify(folder: Path, key: Path, signature: Path) -> int:
    """Verify that a folder has exactly the files that were signed.

    Args:
        folder: the folder.
        key: PEM file with the public key.
        signature: file with the signature.

    Returns:
        The number of files.

    Raises:
        ValueError: a file was changed, added or removed, the key is another one, or model-signing is not installed.
    """
    model_signing = _model_signing()
    config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=_existing(key))
    try:
        config.set_hashing_config(_hashing(model_signing, signature)).verify(folder, _existing(signature))
    except Exception as error:  # the library raises errors of several packages for damaged signatures and wrong keys
        reason = str(error).strip() or type(error).__name__
        raise ValueError(f"{folder} does not match the signature {signature} and the key {key}: {reason}") from None
    return len(_files(folder, signature))


def _hashing(model_signing: ModuleType, signature: Path) -> object:
    return model_signing.hashing.Config().set_ignored_paths(paths=[signature.resolve()], ignore_git_paths=True)


def _files(folder: Path, signature: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.resolve() != signature.resolve()]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    return path


def _model_signing() -> ModuleType:
    try:
        import model_signing
    except ImportError:
        raise ValueError("signatures need model-signing: pip install 'code-alignment[provenance]'") from None
    return model_signing
