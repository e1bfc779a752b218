"""`python -m oneweb_bridge` is the same command as `oneweb-bridge`."""

import sys

from oneweb_bridge.cli.main import main

sys.exit(main())
