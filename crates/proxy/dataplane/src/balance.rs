//! Which endpoint is next.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use carrack_snapshot::{Target, Workload};

use crate::vantage::Vantage;

/// At most this many endpoints are tried for one request or connection.
const ATTEMPTS: usize = 3;

/// The endpoints to try, in turn: each caller goes round the endpoints of what it calls.
pub(crate) fn order<'a>(
    vantage: &Vantage,
    target: Target<'a>,
) -> impl Iterator<Item = &'a Arc<Workload>> + use<'a> {
    let endpoints: &'a [Arc<Workload>] = match target {
        Target::Service(service) => &service.endpoints,
        Target::Workload(workload) => std::slice::from_ref(workload),
    };
    let first = match endpoints.len() {
        0 | 1 => 0,
        many => vantage.turn.fetch_add(1, Ordering::Relaxed) % many,
    };
    let (before, after) = endpoints.split_at(first);
    after.iter().chain(before).take(ATTEMPTS)
}
