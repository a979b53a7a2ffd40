"""What all tests begin with."""

import signal

# A shell that runs the tests in its background makes them ignore Ctrl-C, and with them the processes they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
