//! Listeners, connections, requests, balancing, upstream pools, admin.
