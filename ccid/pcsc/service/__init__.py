"""PC/SC for programs that know nothing of this library: a service that libpcsclite finds.

``ccid-pcscd`` (:mod:`~ccid.pcsc.service.__main__`) listens at a Unix socket and speaks
libpcsclite's protocol, 4:2 to 4:6, to each client in the client's version. ``ccid-run``
(:mod:`~ccid.pcsc.service.run_program`) starts it for one program alone.

:mod:`~ccid.pcsc.service.client_messages` has the structures,
:mod:`~ccid.pcsc.service.client_session` one client, :mod:`~ccid.pcsc.service.socket_server` the
thread that serves all of them. What PC/SC means decides :mod:`ccid.pcsc.manager`.
"""
