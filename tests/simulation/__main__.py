"""`make simulate`; what the other processes are to import cannot be here."""

import sys

from tests.simulation.many import main

if __name__ == "__main__":
    sys.exit(main())
