"""Where a connection goes, and where it dies: TCP traceroute with a verdict.

From bytes to what tests use, each upon those before it:

- ``packet``, ``parse``: probes and answers as bytes; ``flow``: marks and matching; ``wire``: raw sockets
- ``facts``, ``engine``, ``unprivileged``: what was sent and seen, by raw packets or by the kernel's own sockets
- ``trace``: what is sent when; ``codes``, ``verdict``, ``diagnose``: what it means
- ``ask``, ``local``, ``blackbox``: one probe that knows nothing of the network; ``multipath``, ``pmtu``, ``way_out``
- ``sightings``, ``nfnetlink``, ``ruling``, ``neighbours``, ``whitebox``: looking into the hosts on the way
- ``hop``, ``result``, ``told``, ``pcap``, ``dissect``: what comes back; ``probing`` makes it
- ``grounds``, ``sweep``, ``memory``, ``matrix``, ``expect``, ``tcp_probe``: what tests use
- ``classic``, ``reverse``: what the command prints

Only ``dissect`` loads scapy; only what looks into hosts, and ``grounds`` with what is built on it, know hosts of ours.
"""
