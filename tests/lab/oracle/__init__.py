"""The oracle: nova's own move is what cellmove's is compared with, checkpoint by checkpoint."""
