"""JSON Schema and AsyncAPI of all that is published, and OpenAPI of the console, made of the structs themselves.

Pure. Only the command line and `app`, which gives OpenAPI to the console, use it.
"""
