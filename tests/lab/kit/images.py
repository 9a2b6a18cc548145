"""Images of the tests' own, for servers whose guest need not do anything."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cellmove.services.service import HttpService
from cellmove.services.session import Session

FORMATS = {"disk_format": "raw", "container_format": "bare", "visibility": "public"}
EMPTY = bytes(1 << 20)


@contextmanager
def empty_image(session: Session, content: bytes = EMPTY, **properties: str) -> Iterator[str]:
    """An image of one empty MiB: its guest runs, holds nothing, and is plugged off at once.

    `content`: what else to put into it, which must not boot.

    A guest with an operating system takes one of the lab's two cores for some fifteen seconds at
    each start, and many more to stop when it has not come up yet.
    """
    images = session.service("image")
    assert isinstance(images, HttpService)
    body: dict[str, Any] = {"name": f"empty-{uuid.uuid4().hex[:8]}", "os_shutdown_timeout": "1"}
    made = images.send("POST", "/images", body | FORMATS | properties)
    assert made.ok, made.message
    image = str(made.body["id"])
    try:
        images._adapter.put(
            f"/images/{image}/file",
            data=content,
            headers={"Content-Type": "application/octet-stream"},
        )
        yield image
    finally:
        images.send("DELETE", f"/images/{image}")
