"""What drivers cost, measured natively: this library beside libusb from C, pyusb, and pcscd with
libccid, on a stand-in for libusb-1.0. ``tools/bench-native`` runs it.

In the guest that ``tests/vm`` uses, Python costs some twenty times as much as on a real machine
(there is no KVM where the tests usually run), while libusb, pcscd and the bus cost less than that.
So ratios from the guest are those of emulation. Here everything runs natively: only the bus, the
reader and the card are played, by ``standin/`` (``standin/libusb.c`` says what is modelled and what
is not), and what takes time on a bus is slept, as on a real one.

======================  ========================================================================
``standin/``            the stand-in for libusb-1.0, in C
``calibrate.c``         what the real libusb costs on a usbfs that answers at once: to compare
``loops/``              the programs that are measured: one APDU after the other
``programs.py``         builds all of these
``profiles.py``         the times on the bus
``ways.py``             the ways an APDU can go, and which programs they are
``client.py``           a running loop; ``daemon.py`` a running pcscd, in namespaces of its own
``processes.py``        CPU time, memory and context switches of processes
``counters.py``         what the stand-in counted: transfers, waits, APDUs
``apdus.py`` …          the parts: each measures and prints a table
======================  ========================================================================

No figure is ever an assertion: machines differ, and are busy. What is asserted is that each way
gives the right answers (``tests/bench/test_native.py``, and every run).
"""
