"""A key-value service on two machines: one leads; the other follows, and takes over when it hears nothing.

Run it as ``python kv.py primary|replica PEER``. Lines over TCP: a client says ``GET key``, ``SET key value``, ``ROLE``.
The leader says ``LEAD term data`` to its peer with every write and every BEAT; the peer answers ``OK term``, or ``NO
term`` when it knows of a later leader. A write counts once the peer has it too; only a node that has just taken over
writes alone, until its peer is back.
"""

import asyncio
import json
import sys

PORT = 7000
BEAT = 0.05  # seconds between two words of the leader
SILENCE = 1.0  # seconds without a word after which the follower takes over
PATIENCE = 0.5  # seconds that one question to the peer may take


class Node:
    """One of the two. ``term`` counts the leaders there have been: the higher one is right."""

    def __init__(self, role, peer):
        self.peer = peer
        self.leads = role == "primary"
        self.term = 1 if self.leads else 0
        self.alone = False
        self.silence = None  # how long the leader has said nothing, from its first word on
        self.data = {}
        self.turn = asyncio.Lock()

    async def ask_peer(self, line):
        """Return the peer's answer in words."""
        reader, writer = await asyncio.open_connection(self.peer, PORT)
        try:
            writer.write(line.encode() + b"\n")
            return (await reader.readline()).decode().split()
        finally:
            writer.close()

    async def offer(self, data):
        """As the leader, make ``data`` the data of both; return whether it now is."""
        line = f"LEAD {self.term} {json.dumps(data, separators=(',', ':'))}"
        try:
            word, term = await asyncio.wait_for(self.ask_peer(line), PATIENCE)
        except (OSError, ValueError, asyncio.TimeoutError):
            word, term = "SILENT", self.term
        if word == "NO":
            self.leads, self.term, self.silence = False, int(term), 0.0  # there is a later leader: step down
        done = word == "OK" or (self.leads and self.alone)
        self.alone = self.alone and word != "OK"
        self.data = data if done else self.data
        return done

    async def answer(self, words):
        """Do what one line asks for; return the line that answers it."""
        match words:
            case ["ROLE"]:
                return f"{'primary' if self.leads else 'replica'} in term {self.term}"
            case ["GET", key]:
                return self.data.get(key, "NONE")
            case ["SET", key, value] if self.leads:
                async with self.turn:
                    return "OK" if await self.offer({**self.data, key: value}) else "ERROR the replica does not answer"
            case ["SET", _, _]:
                return "ERROR not the primary"
            case ["LEAD", term, data] if int(term) > self.term or (int(term) == self.term and not self.leads):
                self.leads, self.term, self.silence, self.data = False, int(term), 0.0, json.loads(data)
                return f"OK {term}"
            case ["LEAD", _, _]:
                return f"NO {self.term}"
        return "ERROR say GET key, SET key value or ROLE"

    async def serve(self, reader, writer):
        """Answer a client, or the leader, line by line."""
        async for line in reader:
            writer.write((await self.answer(line.decode().split()) + "\n").encode())
        writer.close()

    async def live(self):
        """Speak to the follower, or listen for the leader, for ever."""
        while True:
            await asyncio.sleep(BEAT)
            if self.leads:
                async with self.turn:
                    await self.offer(self.data)
            elif self.silence is not None:
                self.silence += BEAT
                if self.silence > SILENCE:
                    self.leads, self.alone, self.term = True, True, self.term + 1


async def main(role, peer):
    node = Node(role, peer)
    async with await asyncio.start_server(node.serve, port=PORT):
        await node.live()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
