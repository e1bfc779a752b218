"""The connection to the broker: proves delivery, restores, drains the journal, and receives commands.

A topic never goes back, and the cursor moves only after the broker's answer. Knows the journal, and no poller.
"""
