"""`oneweb-bridge demo`: simulator, broker and bridge without configuration, shown as it happens.

It may know every part of the bridge and the simulator. Only the command line and the tests know it, which start the
same broker.
"""
