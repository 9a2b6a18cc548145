#!/usr/bin/python3
"""Ansible module: write many small files in one go (one module run instead of one each)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: file_tree
short_description: write many small files
options:
  root: {description: directory that paths are relative to, required: true}
  files: {description: path to content; programs (#!) become executable, type: dict, required: true}
  scripts: {description: directory whose files become those of root/bin, type: path}
  mode: {description: octal mode of the files, default: '0600'}
"""


def wanted(files: dict[str, str], scripts: str | None) -> dict[str, str]:
    """Every path and its content."""
    found = (
        {f"bin/{path.name}": path.read_text() for path in sorted(Path(scripts).iterdir())}
        if scripts
        else {}
    )
    return files | found


def write(path: Path, content: str, mode: int) -> None:
    """Replace a file atomically, with its final mode from the start."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(content)
    shutil.move(fresh, path)


def main() -> None:
    """Write what differs, remove scripts of an earlier version, name both in `changed_files`."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "files": {"type": "dict", "required": True},
            "scripts": {"type": "path"},
            "mode": {"type": "str", "default": "0600"},
        },
    )
    root, mode = Path(module.params["root"]), int(module.params["mode"], 8)
    changed = []
    everything = wanted(module.params["files"], module.params["scripts"])
    for name, content in everything.items():
        path = root / name
        if not path.exists() or path.read_text() != content:
            write(path, content, mode | 0o100 if content.startswith("#!") else mode)
            changed.append(name)
    for path in sorted((root / "bin").iterdir()) if module.params["scripts"] else []:
        if f"bin/{path.name}" not in everything:
            path.unlink()
            changed.append(f"bin/{path.name}")
    module.exit_json(changed=bool(changed), changed_files=changed)


if __name__ == "__main__":
    main()
