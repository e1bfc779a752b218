"""`python -m oneweb_bridge` is the same command as `oneweb-bridge`."""

import sys

from oneweb_bridge.cli import main

sys.exit(main())
