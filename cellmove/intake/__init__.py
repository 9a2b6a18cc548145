"""Request -> Move: everything is read once, and what cannot be done is refused before the touch."""

from cellmove.intake.finish import intake_confirm, intake_revert
from cellmove.intake.found import Actor, locate
from cellmove.intake.resize import intake_resize

__all__ = ["Actor", "intake_confirm", "intake_resize", "intake_revert", "locate"]
