//! Interfaces, addresses, ports and names for a container.
