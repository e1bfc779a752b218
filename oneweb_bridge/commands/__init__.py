"""Commands that come over MQTT or from the console: decoded, executed once, and answered.

The only way back against the arrow: it knows `polling`, the store and what `mqtt` does on request. Whatever a
command holds, it is answered and ends nothing.
"""
