"""Tests of the console's page in a real Chromium, with the real bridge behind it: `make test-console`."""
