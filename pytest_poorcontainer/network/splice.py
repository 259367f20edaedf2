"""How a carrier (a wire) comes into a cable, and out of it again, with whatever other faults are in force meanwhile."""

from __future__ import annotations

import struct
from _socket import AF_PACKET, SOCK_RAW, socket
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabError
from pytest_poorcontainer.network import messages
from pytest_poorcontainer.network.fabric import fabric_of
from pytest_poorcontainer.network.greeting import greet
from pytest_poorcontainer.network.identity import identities
from pytest_poorcontainer.network.medium import Span
from pytest_poorcontainer.network.program import EVERYTHING
from pytest_poorcontainer.network.topology import Switch

if TYPE_CHECKING:
    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.network.link import Link
    from pytest_poorcontainer.network.medium import Carrier
    from pytest_poorcontainer.network.topology import Cable

__all__ = ["LinkSplice"]

_FAR = (
    400_000_000  # indexes of the second plugs of cables to switches begin here: one for the carrier, one for the bridge
)
_BOTH_ENDS = 3
_ALL_FRAMES = 0x0003  # ETH_P_ALL
_SOL_PACKET, _IGNORE_OUTGOING = 263, 23  # linux/if_packet.h
_SIOCGIFNAME, _IFREQ = 0x8910, struct.Struct("=16si20x")  # netdevice(7)


class LinkSplice:
    """The place of a carrier in a link. Who calls holds the fabric's lock.

    Between two hosts the fabric stops to redirect from plug to plug, and the carrier takes both. A cable to a switch
    gets a second plug: its one end the carrier's, its other the bridge's port in place of the first plug.
    """

    def __init__(self, link: Link) -> None:
        """Be that of this link; nothing is carried yet."""
        self._link = link
        self._fabric = fabric_of(link.lab)
        self.spliced = False
        self._made = False

    @property
    def _cable(self) -> Cable:
        return self._link.cable

    @property
    def _lab(self) -> Lab:
        return self._link.lab

    @property
    def _switch_end(self) -> int | None:
        """The end that is a switch, the second one of two; None when both are hosts."""
        ends = [end for end in (1, 0) if isinstance(self._cable.ends[end], Switch)]
        return ends[0] if ends else None

    @property
    def far(self) -> int:
        """The index of the second plug of a cable to a switch."""
        return _FAR + 2 * self._cable.number

    def _near(self, switch_end: int) -> int:
        """Return the plug at which arrives what comes from the other end than the switch."""
        cable = self._cable
        return cable.plug(1 - switch_end if not isinstance(cable.ends[1 - switch_end], Switch) else switch_end)

    def span(self) -> Span:
        """Return what is to be carried; the second plug is made if need be."""
        cable, end = self._cable, self._switch_end
        plugs = [cable.plug(0), cable.plug(1)]
        if end is not None:
            self._make_far(end)
            plugs[end], plugs[1 - end] = self.far, self._near(end)
        return Span(self._lab, cable.number, (plugs[0], plugs[1]), self._link.names, cable.mtu, self.hosts())

    def hosts(self) -> dict[bytes, str]:
        """Return whose packets may pass, by their addresses."""
        return identities(self._cable)

    def _make_far(self, end: int) -> None:
        if self._made:
            return
        switch = self._cable.ends[end]
        assert isinstance(switch, Switch)  # noqa: S101 - by _switch_end
        what, far = str(self._link), self.far
        mac = bytes((2, 2, *far.to_bytes(4, "big")))
        self._fabric.send(
            [
                messages.veth(far, name=f"p{far + 1}", index=far + 1, mac=mac, mtu=self._cable.mtu, pid=None, of=what),
                messages.clsact(far, what),
                messages.master(far + 1, switch.bridges[self._cable.vlan], what),
                messages.set_up(far, what),
                messages.set_up(far + 1, what),
            ]
        )
        self._made = True
        self._fabric.await_up([far, far + 1], what)

    def detach(self) -> None:
        """Let a carrier take over from the fabric."""
        end, what = self._switch_end, str(self._link)
        if end is None:
            self._fabric.send([messages.stop_redirect(self._cable.plug(one), what) for one in (0, 1)])
        else:
            self._fabric.send([messages.master(self._near(end), 0, what)])
        self._move_rules(spliced=True)

    def attach(self) -> None:
        """Let the fabric take over from a carrier."""
        end, what = self._switch_end, str(self._link)
        if end is None:
            pairs = [(self._cable.plug(one), self._cable.plug(1 - one)) for one in (0, 1)]
            self._fabric.send([messages.redirect(plug, other, what) for plug, other in pairs])
            self._move_rules(spliced=False)
            greet(self._cable)
            return
        switch = self._cable.ends[end]
        assert isinstance(switch, Switch)  # noqa: S101 - by _switch_end
        self._move_rules(spliced=False)
        self._fabric.send([messages.master(self._near(end), switch.bridges[self._cable.vlan], what)])
        if self._made:
            self._fabric.send([messages.delete_link(self.far, what)])
            self._made = False
        greet(self._cable)  # of a carrier that died what was under way is lost

    def _move_rules(self, *, spliced: bool) -> None:
        """Put the link's rules where they strike with, or without, a carrier: it takes frames before their ingress."""
        before = {towards: self._link.hook(towards) for towards in (0, 1)}
        self.spliced = spliced
        moved = [towards for towards, hook in before.items() if self._link.hook(towards) != hook]
        rules = [(towards, self._link.rules(towards)) for towards in moved]
        self._fabric.send([self._link.request(towards, some) for towards, some in rules if some])
        self._fabric.send([messages.undrop(*before[towards], str(self._link)) for towards, some in rules if some])

    def prove(self, carrier: Carrier) -> None:
        """Let a canary fly through the carrier, unless another fault forbids it."""
        silent = any(rule.match is EVERYTHING for towards in (0, 1) for rule in self._link.rules(towards))
        if self._link.state == "unplugged":
            self.pause(carrier)
        elif not silent:
            carrier.prove(self._canary_sockets())

    @staticmethod
    def pause(carrier: Carrier) -> None:
        """Let it send nothing to interfaces that lose their carrier: the kernel would refuse it, then and after."""
        carrier.silence(_BOTH_ENDS)

    def resume(self, carrier: Carrier) -> None:
        """Let it send again, now that the interfaces can be used, and prove it."""
        carrier.silence(0)
        self.prove(carrier)

    def _canary_sockets(self) -> tuple[int, int]:
        from pytest_poorcontainer.network.wire import CANARY_TYPE  # noqa: PLC0415 - few tests need it

        made: list[socket] = []
        try:
            for end, port in enumerate(self._cable.ports):
                host = None if port is None else port.node.host
                if port is not None and host is not None:
                    made.append(socket(AF_PACKET, SOCK_RAW, 0, host.socket_fd(AF_PACKET, SOCK_RAW, 0)))
                    made[-1].bind((_name_of(made[-1], port.index), CANARY_TYPE))
                    continue
                # At the bridge's side; a port's frames are seen by who asks for all of them alone.
                index = self.far + 1 if end == self._switch_end else self._cable.plug(0)
                made.append(socket(AF_PACKET, SOCK_RAW, 0, self._lab.fabric_socket(AF_PACKET, SOCK_RAW, 0)))
                made[-1].setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
                made[-1].bind((f"p{index}", _ALL_FRAMES))
            return made[0].detach(), made[1].detach()
        except BaseException:
            for one in made:
                one.close()
            raise


def _name_of(there: socket, index: int) -> str:
    """Return what an interface is called in the network that a socket is of: its host may have given it a new name."""
    from fcntl import ioctl  # noqa: PLC0415 - only for a wire

    try:
        found = ioctl(there, _SIOCGIFNAME, _IFREQ.pack(b"", index))
    except OSError as error:
        raise LabError("prove the wire", "", error.errno or 0, "its host has no such interface any more") from None
    return found[:16].rstrip(b"\0").decode()
