"""`python -m countermark` is the command `countermark`."""

import sys

from countermark.cli import main

sys.exit(main())
