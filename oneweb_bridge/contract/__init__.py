"""JSON Schema and AsyncAPI of everything that is published, made of the structs and tables that publish it.

Pure, and used by the command line and the tests alone.
"""
