"""`bridge.yaml` and the environment become one checked, immutable configuration.

What is wrong is one sentence that names file and key. Knows the catalogue, because its calls can be changed.
"""
