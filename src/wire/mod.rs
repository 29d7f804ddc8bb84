//! Bytes to frames and back: framing without copying, views of messages, and the frames we originate.
