//! Who is calling: the authority that issues, the client that asks.
