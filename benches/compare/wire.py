"""As much of PostgreSQL's protocol as a cheap client needs."""

import socket
import struct

READY = b"Z\0\0\0\x05I"


def message(tag, body):
    return tag + struct.pack("!I", len(body) + 4) + body


def startup(role="postgres", database="postgres"):
    body = struct.pack("!I", 196608) + f"user\0{role}\0database\0{database}\0\0".encode()
    return struct.pack("!I", len(body) + 4) + body


def query(text):
    return message(b"Q", text.encode() + b"\0")


def error_in(data):
    """The text of the first ErrorResponse among whole messages, or None."""
    at = 0
    while at + 5 <= len(data):
        length = struct.unpack_from("!I", data, at + 1)[0]
        if data[at:at + 1] == b"E":
            for field in data[at + 5:at + 1 + length].split(b"\0"):
                if field[:1] == b"M":
                    return field[1:].decode(errors="replace")
        at += 1 + length
    return None


class Session:
    """A blocking session of one client that trusts all that it is told, and copies nothing."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(60)
        self.buffer = bytearray(1 << 20)
        self.socket.sendall(startup())
        self.drain()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def run(self, text):
        """Runs a statement and throws its answer away. Returns the answer's size in bytes."""
        self.socket.sendall(query(text))
        return self.drain()

    def drain(self, until=READY):
        """Reads until what has come ends as `until` does. Raises ConnectionError with what the server says."""
        total, tail, first = 0, b"", None
        view = memoryview(self.buffer)
        while tail != until:
            count = self.socket.recv_into(view)
            if count == 0:
                raise ConnectionError(error_in(first or b"") or "the connection was closed")
            if first is None or total < 4096:
                first = (first or b"") + bytes(view[:min(count, 4096)])
            total += count
            size = len(until)
            tail = (tail + bytes(view[:count]))[-size:] if count < size else bytes(view[count - size:count])
        # An error stands at the end of an answer, or is all of it.
        said = error_in(first) or (error_in(bytes(view[:count])) if total < 4096 else None)
        if said:
            raise ConnectionError(said)
        return total
