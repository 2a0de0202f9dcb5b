"""For all tests: one thread a process, and an interrupt that interrupts."""

from __future__ import annotations

import os
import signal

# Before torch is imported, which reads it then. Two processes of tests share two cores, with all
# that they start.
os.environ["OMP_NUM_THREADS"] = "1"
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a script's background job
    signal.signal(signal.SIGINT, signal.default_int_handler)
