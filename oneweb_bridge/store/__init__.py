"""The bridge's state in SQLite: records, samples, settings, staged listings, the journal and its cursors.

A transaction is whole or not there. All SQL but that of `trends` stands here; nothing here knows the API or the broker.
"""
