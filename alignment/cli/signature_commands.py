"""`align sign` and `align verify`: sign the files of an export with a key, and verify the signature. No network is used.

openssl ecparam -name prime256v1 -genkey -noout -out key.pem
openssl ec -in key.pem -pubout -out key.pub
align sign runs/app/export --key key.pem
align verify runs/app/export --key key.pub
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.cli.shared_options import add_command

if TYPE_CHECKING:
    from alignment.cli.shared_options import Commands

PASSWORD = "ALIGN_KEY_PASSWORD"
"""Environment variable with the password of a private key."""


def add(commands: Commands) -> None:
    """Add the parsers."""
    sign = add_command(commands, "sign", "Sign all files of a folder with a private key.")
    _add_arguments(sign, f"PEM file with a private key on an elliptic curve; a password is read from ${PASSWORD}")
    sign.set_defaults(handler=_sign)
    verify = add_command(commands, "verify", "Verify that a folder has exactly the files that were signed.")
    _add_arguments(verify, "PEM file with the public key")
    verify.set_defaults(handler=_verify)


def _add_arguments(command: argparse.ArgumentParser, key_help: str) -> None:
    command.add_argument("folder", type=Path, help="folder of an export or of a model")
    command.add_argument("--key", type=Path, required=True, help=key_help)
    command.add_argument("--signature", type=Path, help="file of the signature (default: FOLDER/model.sig)")


def _paths(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Return the folder and the file of the signature."""
    from alignment.provenance.signatures import SIGNATURE

    if not arguments.folder.is_dir():
        raise ValueError(f"{arguments.folder} is no folder: name the folder of an export or of a model")
    folder = arguments.folder.resolve()  # a stage's folder in runs/NAME is a link
    return folder, arguments.signature or folder / SIGNATURE


def _sign(arguments: argparse.Namespace) -> int:
    from alignment.provenance.signatures import sign

    folder, signature = _paths(arguments)
    count = sign(folder, arguments.key, signature, os.environ.get(PASSWORD))
    print(f"{signature}: signature of {count} files")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from alignment.provenance.signatures import verify

    folder, signature = _paths(arguments)
    print(f"{arguments.folder}: {verify(folder, arguments.key, signature)} files match the signature")
    return 0
