"""The steps of every score: one file per system of record, none of which knows another."""
