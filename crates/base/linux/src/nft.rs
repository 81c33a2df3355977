//! Packet rules over the nf_tables netlink interface.
