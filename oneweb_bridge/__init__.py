"""oneweb-bridge: OneWeb's enterprise API on MQTT."""

__version__ = "0.1.0"
CONTRACT = 1
"""Version of the public topics and payloads; raised when a published message changes its meaning."""
