//! Which endpoint is next.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use carrack_snapshot::{Target, Workload};

use crate::vantage::Vantage;

/// At most this many endpoints are tried for one request or connection.
const ATTEMPTS: usize = 3;

/// The endpoints to try, in turn: each caller goes round the endpoints of what it calls. If it
/// has begun with the one at `begun`, that one is first.
pub(crate) fn order<'a>(
    vantage: &Vantage,
    target: Target<'a>,
    begun: Option<Ipv4Addr>,
) -> impl Iterator<Item = &'a Arc<Workload>> + use<'a> {
    let endpoints: &'a [Arc<Workload>] = match target {
        Target::Service(service) => &service.endpoints,
        Target::Workload(workload) => std::slice::from_ref(workload),
    };
    let begun =
        begun.and_then(|address| endpoints.iter().position(|endpoint| endpoint.address == address));
    let first = match (endpoints.len(), begun) {
        (0 | 1, _) => 0,
        (_, Some(begun)) => begun,
        (many, None) => vantage.turn.fetch_add(1, Ordering::Relaxed) % many,
    };
    let (before, after) = endpoints.split_at(first);
    after.iter().chain(before).take(ATTEMPTS)
}
