"""The catalogue of API calls, and how the API's JSON becomes records and samples.

Pure: the same bytes give the same values. Whatever one record holds costs that record alone.
"""
