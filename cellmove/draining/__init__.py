"""Emptying a hypervisor or a cell: many moves, in an order, within bounds, by several at once."""
