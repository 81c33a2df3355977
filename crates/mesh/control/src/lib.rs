//! Watches sources, keeps the index, translates, hands out, keeps receipts.
