//! A whole cluster with a load, from nothing.
