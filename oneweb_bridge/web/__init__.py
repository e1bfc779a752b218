"""HTTP of the bridge itself: health, readiness and metrics.

It reads and never changes anything. Its connections are bounded, because anybody may open them.
"""
