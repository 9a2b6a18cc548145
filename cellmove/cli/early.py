"""Signing in while the rest of the program is imported: each takes half a second.

It imports little, and nothing that the command line's help would need.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from cellmove.config import load
from cellmove.errors import CellmoveError
from cellmove.services.session import Session, begin_sign_in


@dataclass(frozen=True, slots=True)
class SigningIn:
    """A sign-in under way."""

    request_id: str
    """What every service's log will bear."""
    session: Callable[[], Session]
    """Waits for it; raises what `cellmove.services.session.sign_in` does."""


def begin(config_file: str | None) -> SigningIn | None:
    """Begin to sign in; None when the configuration cannot be used, which is told later."""
    try:
        config = load(config_file, os.environ)
    except CellmoveError:
        return None
    if not config.database.url:
        return None
    request_id = f"req-{uuid.uuid4()}"
    cloud = config.cloud
    return SigningIn(request_id, begin_sign_in(cloud.name, request_id, cloud.service_name))
