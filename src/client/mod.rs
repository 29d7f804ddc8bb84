//! One client: accept, handshake, serve.
