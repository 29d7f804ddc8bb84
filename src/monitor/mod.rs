//! Polls the nodes and publishes the topology.
