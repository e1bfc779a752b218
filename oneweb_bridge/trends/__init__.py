"""Years of every sample: one compressed chunk per stream and day in a file of its own, folded from the journal.

Promises that `history`, `replay` and the console see each sample once, with its newest values, whether it stands in
the journal, in a chunk, or in both. Knows the store, and no output.
"""
