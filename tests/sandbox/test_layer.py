"""Changed files over a repository's tree: by an overlay, and by a copy where the kernel refuses overlays."""

import json
import subprocess
import sys

import pytest

from alignment.sandbox.program_run import layer_of

SCRIPT = """
import json, os, sys
from pathlib import Path
from alignment.sandbox.inside import kernel, layer
try:
    user, group = os.getuid(), os.getgid()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
    kernel.map_user(user, user, group)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
except OSError as error:
    print(json.dumps({"refused": str(error)}))
    sys.exit()
layer.ROOT, layer.STAGE = sys.argv[1], sys.argv[1] + ".layer"
kernel.mount(layer.ROOT, layer.ROOT, None, kernel.MS_BIND)
kernel.make_read_only(layer.ROOT)
plain = kernel.mount
def mount(source, target, kind, flags, data=None):
    if kind == "overlay" and sys.argv[2] == "copy":
        raise OSError(19, "no overlays")
    plain(source, target, kind, flags, data)
kernel.mount = mount
data = sys.stdin.buffer.read()
reading, writing = os.pipe()
os.write(writing, data + b"later messages")
layer.mount(layer.read(reading, len(data)))
root = Path(layer.ROOT)
try:
    (root / "kept").write_text("x")
    written = True
except OSError:
    written = False
files = {str(p.relative_to(root)): p.read_text() for p in sorted(root.rglob("*")) if p.is_file()}
print(json.dumps({"files": files, "written": written, "rest": os.read(reading, 99).decode(), "stage": os.path.exists(layer.STAGE)}))
"""


@pytest.mark.parametrize("method", ["overlay", "copy"])
def test_a_program_sees_changed_new_and_deleted_files_and_can_change_none(method, tmp_path):
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    for name in ("kept", "changed", "folder/deleted", "folder/kept"):
        (tree / name).write_text(f"old {name}")
    changes = {"changed": b"new", "folder/deleted": None, "folder/new/deep": b"made", "empty": b""}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tree), method], input=layer_of(changes), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    seen = json.loads(done.stdout)
    if "refused" in seen:
        pytest.skip(f"this machine refuses namespaces: {seen['refused']}")
    assert seen == {
        "files": {"changed": "new", "empty": "", "folder/kept": "old folder/kept", "folder/new/deep": "made", "kept": "old kept"},
        "written": False, "rest": "later messages", "stage": False,
    }  # fmt: skip
    assert (tree / "changed").read_text() == "old changed" and (tree / "folder" / "deleted").exists()
