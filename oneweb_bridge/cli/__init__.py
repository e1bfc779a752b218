"""The command line: options, the log, exit codes, and the commands that are no part of the running bridge.

Everything wrong that a user can cause is one sentence and exit code 1 or 2. It may know every other package, and none
knows it.
"""
