"""Records become Home Assistant devices: what discovery must say, and whether it has been said.

It keeps a table of sent devices, and sends through callables; it knows no connection.
"""
