"""What the other packages hand each other: records, samples, journal rows, messages, states.

Values only: no decisions beyond their shape, no clock, no I/O. Knows nothing of the other packages.
"""
