"""The library that the functions share.

The one package that does something when it is imported, as nothing of ours is imported before it: what a
framework has loaded by then stays, so the collections that our own imports set off need not look at it. That is
a tenth of the time those imports take, and a cold start is a user waiting.
"""

import gc

gc.freeze()
