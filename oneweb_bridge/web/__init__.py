"""HTTP of the bridge itself: health, readiness and metrics, and the web console.

It reads the database and the journal through connections of its own and changes nothing but by commands, which go
the same way as those over MQTT. Its connections are bounded, because anybody may open them.
"""
