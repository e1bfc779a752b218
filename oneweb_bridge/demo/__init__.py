"""`oneweb-bridge demo`: simulator, broker and bridge without configuration, shown as it happens.

Nothing outside of it needs it, but for the tests, which start the same broker.
"""
