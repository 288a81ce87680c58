"""Ways in which a file gets damaged, for tests of checkpoints."""

import os


def flip(file):
    """Flip all bits of the byte in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


DAMAGE = {
    "deleted": lambda file: file.unlink(),
    "empty": lambda file: os.truncate(file, 0),
    "half": lambda file: os.truncate(file, file.stat().st_size // 2),
    "flipped": flip,
}
"""Name of the damage -> function that does it to a file."""
