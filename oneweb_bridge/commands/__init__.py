"""Commands that come over MQTT: decoded, obeyed once, and answered.

The only way back against the arrow. Whatever a command holds, it is answered and ends nothing.
"""
