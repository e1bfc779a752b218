"""HTTP to OneWeb: signs in, pages, limits, retries, and says in four errors what to do next.

The only package that uses aiohttp's client. Knows the configuration and the catalogue, and nothing of what is stored
or published.
"""
