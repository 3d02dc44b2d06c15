"""What every test may count on."""

import signal

# A shell that starts a command in the background makes it ignore interrupts, and its children inherit that. The tests
# are about what an interrupt does, so they start from the usual handler wherever they run.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
