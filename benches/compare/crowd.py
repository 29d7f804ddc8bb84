#!/usr/bin/env python3
"""A crowd of clients that log in as fast as they can, all at once or so many at a time, say what they have to say, and
then stay.

`Crowd` is how the cells have one: processes of this file, each with no more clients than it may have files. They hear
commands on their standard input: `say STATEMENT` has every client run that, `count` tells how many have had an answer,
and the end of the input ends them.
"""

import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

from host import Failed, raise_open_files
from wire import READY, error_in, query, startup

# Files that a process needs for itself.
OWN = 100
# Nobody waits longer for a crowd to be in.
PATIENCE = 60


class Crowd:
    """`count` clients of a target that log in, no more than `at_once` at a time, and run each of the statements.

    To be used with `with`.
    """

    def __init__(self, target, count, *statements, nice=0, at_once=None):
        share = raise_open_files() - OWN
        sizes = [min(share, count - at) for at in range(0, count, share)]
        self.children = []
        self.count = count
        for size in sizes:
            turn = min(size, at_once or size)
            command = ["nice", "-n", nice, sys.executable, Path(__file__).resolve(), target.port, size, turn, *statements]
            child = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self.children.append(child)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.leave(5)

    def arrive(self):
        """Waits until all are in: when the first began and when the last was there, as time.time() has it."""
        told = self.hear()
        refused = sum(t["refused"] for t in told)
        if refused:
            why = next(t["why"] for t in told if t["why"])
            raise Failed(f"{refused} of {self.count} clients did not come in: {why}")
        return min(t["began"] for t in told), max(t["ended"] for t in told)

    def say(self, statement):
        self.tell(f"say {statement}")

    def answered(self):
        """How many have had an answer to what they have said last, and how many of those were errors."""
        self.tell("count")
        told = self.hear()
        return sum(t["answered"] for t in told), sum(t["refused"] for t in told)

    def leave(self, limit=PATIENCE):
        for child in self.children:
            if child.stdin and not child.stdin.closed:
                child.stdin.close()
        for child in self.children:
            try:
                child.wait(limit)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            child.stdout.close()

    def tell(self, command):
        for child in self.children:
            child.stdin.write(command + "\n")
            child.stdin.flush()

    def hear(self):
        told = []
        for child in self.children:
            line = child.stdout.readline()
            if not line:
                raise Failed("a crowd has died")
            told.append(json.loads(line))
        return told


class Member:
    """One client: a socket, what it has yet to say, and what it has heard since it spoke last."""

    __slots__ = ("socket", "todo", "heard")

    def __init__(self, port, todo):
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.todo, self.heard = list(todo), b""
        self.socket.connect_ex(("127.0.0.1", port))

    def hear(self):
        """Whether an answer is whole, or the socket at its end. Raises OSError."""
        data = self.socket.recv(65536)
        self.heard += data
        return not data or self.heard.endswith(READY)


class Process:
    """The crowd's part in one process."""

    def __init__(self, port, statements):
        self.port, self.todo = port, [startup(), *map(query, statements)]
        self.poll, self.members = select.epoll(), {}
        self.answered = self.refused = 0
        self.why = ""

    def add(self):
        member = Member(self.port, self.todo)
        self.members[member.socket.fileno()] = member
        self.poll.register(member.socket, select.EPOLLOUT)

    def step(self, wait):
        """Whatever there is to be heard and said within `wait` seconds. Whether there was anything."""
        events = self.poll.poll(wait)
        for number, event in events:
            if number in self.members:
                self.turn(number, self.members[number], event)
        return bool(events)

    def turn(self, number, member, event):
        try:
            if event & select.EPOLLOUT:
                member.socket.send(member.todo.pop(0))
                self.poll.modify(number, select.EPOLLIN)
                return
            if not member.hear():
                return
        except OSError as error:
            return self.lose(number, member, str(error))
        said = error_in(member.heard)
        if said or not member.heard:
            return self.lose(number, member, said or "the connection was closed")
        member.heard = b""
        if member.todo:
            member.socket.send(member.todo.pop(0))
        else:
            self.answered += 1

    def lose(self, number, member, why):
        self.refused += 1
        self.why = self.why or why
        self.poll.unregister(number)
        del self.members[number]
        member.socket.close()

    def all_in(self, count, at_once):
        began, come = time.time(), 0
        while self.answered + self.refused < count and time.time() < began + PATIENCE:
            while come < count and come - self.answered - self.refused < at_once:
                self.add()
                come += 1
            self.step(0.1)
        missing = count - self.answered - self.refused
        if missing:
            self.why = self.why or f"no answer within {PATIENCE} s"
        return {"began": began, "ended": time.time(), "refused": self.refused + missing, "why": self.why}

    def say(self, statement):
        self.answered = self.refused = 0
        for member in self.members.values():
            member.heard = b""
            member.socket.send(query(statement))

    def obey(self):
        """Does what is said on standard input until that ends."""
        os.set_blocking(0, False)
        self.poll.register(0, select.EPOLLIN)
        text = b""
        while True:
            self.step(None)
            try:
                data = os.read(0, 65536)
            except BlockingIOError:
                continue
            if not data:
                return
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                command, _, rest = line.decode().partition(" ")
                if command == "say":
                    self.say(rest)
                else:
                    # What has come already counts.
                    while self.step(0):
                        pass
                    print(json.dumps({"answered": self.answered, "refused": self.refused}), flush=True)


def main():
    port, count, at_once, *statements = sys.argv[1:]
    raise_open_files()
    process = Process(int(port), statements)
    print(json.dumps(process.all_in(int(count), int(at_once))), flush=True)
    process.obey()


if __name__ == "__main__":
    main()
