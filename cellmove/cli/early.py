"""What takes long, begun while the rest of the program is imported: signing in, and the ways there.

It imports nothing that the command line's help would need.
"""

from __future__ import annotations

import gc
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cellmove.config import load
from cellmove.errors import CellmoveError
from cellmove.services.session import Session, begin_sign_in

if TYPE_CHECKING:
    from cellmove.opening import Ground


@dataclass(frozen=True, slots=True)
class SigningIn:
    """A sign-in under way, and beside it the way to all that asks for no token."""

    request_id: str
    """What every service's log will bear."""
    session: Callable[[], Session]
    """Waits for it; raises what `cellmove.services.session.sign_in` does."""
    ground: Callable[[], Ground]
    """Waits for it; raises what `cellmove.opening.ground_of` does. Whoever asks must close it."""

    def foresee(self, server: str, host: str | None) -> None:
        """Begin to open the way to where this server is, and to the host that it shall come to."""

        def foresee() -> None:
            try:
                ground = self.ground()
            except CellmoveError:
                return  # told to whoever needs it
            ground.foresee(server, host)

        threading.Thread(target=foresee, name="foresee", daemon=True).start()


def begin(config_file: str | None) -> SigningIn | None:
    """Begin to sign in; None when the configuration cannot be used, which is told later."""
    try:
        config = load(config_file, os.environ)
    except CellmoveError:
        return None
    if not config.database.url:
        return None
    _hold_collector()
    request_id = f"req-{uuid.uuid4()}"
    cloud = config.cloud
    begun = begin_sign_in(cloud.name, request_id, cloud.service_name)
    # Imported here and not in a thread: of two who import the same, one may meet half a module.
    from cellmove.opening import begin_ground

    return SigningIn(request_id, lambda: _let_collect(begun()), begin_ground(config))


def _hold_collector() -> None:
    """Keep Python from looking for garbage among modules: a fifth of the time of importing them."""
    gc.disable()


def _let_collect(session: Session) -> Session:
    gc.freeze()
    gc.enable()
    return session
