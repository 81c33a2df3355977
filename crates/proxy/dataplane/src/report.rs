//! The one record that a request or connection leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use carrack_filters::authorize::Ruling;
use carrack_telemetry::access::{Decision, DecisionId, Outcome, Peer, Protocol, Record, Reporter};
use carrack_telemetry::metrics::Open;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::copy::Passed;
use crate::proxy::Proxy;

/// Who calls whom, on which side of the mesh.
#[derive(Clone)]
pub(crate) struct Parties {
    pub(crate) reporter: Reporter,
    pub(crate) source: Arc<Peer>,
    pub(crate) destination: Arc<Peer>,
    pub(crate) port: u16,
}

/// A request or connection underway. Its record is written when the last part of it is dropped,
/// however that comes about; until somebody says otherwise it counts as broken.
pub(crate) struct Exchange {
    proxy: Arc<Proxy>,
    started: Instant,
    pub(crate) passed: Passed,
    record: Mutex<Record>,
    standing: Mutex<Option<Standing>>,
}

/// A connection of bytes that shows in the metrics while it lasts.
struct Standing {
    open: Open,
    counted: u64,
}

impl Exchange {
    pub(crate) fn begin(proxy: &Arc<Proxy>, parties: Parties, protocol: Protocol) -> Arc<Self> {
        let Parties { reporter, source, destination, port } = parties;
        let record = Record {
            id: DecisionId::random(),
            at: Timestamp::now(),
            reporter,
            protocol,
            source,
            destination,
            port,
            method: None,
            path: None,
            status: None,
            outcome: Outcome::Broken,
            reason: None,
            duration_us: 0,
            bytes_in: 0,
            bytes_out: 0,
            trace_id: None,
            decision: None,
            refused_by: None,
        };
        Arc::new(Self {
            proxy: Arc::clone(proxy),
            started: Instant::now(),
            passed: Passed::default(),
            record: Mutex::new(record),
            standing: Mutex::default(),
        })
    }

    pub(crate) fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    pub(crate) fn id(&self) -> DecisionId {
        self.record.lock().id
    }

    /// Bytes pass from here on: shows the connection as open.
    pub(crate) fn stands(&self) {
        let open = self.proxy.metrics.open(&self.record.lock());
        *self.standing.lock() = Some(Standing { open, counted: 0 });
    }

    /// Counts what has passed since it was last counted.
    pub(crate) fn count(&self) {
        if let Some(standing) = &mut *self.standing.lock() {
            let total = read(&self.passed.forth).saturating_add(read(&self.passed.back));
            standing.open.passed(total.saturating_sub(standing.counted));
            standing.counted = total;
        }
    }

    /// Changes what will be written.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record.lock());
    }

    /// Says which workload of the service that was called it went to.
    pub(crate) fn reached(&self, workload: &Arc<Peer>) {
        let mut record = self.record.lock();
        let called = &record.destination;
        if (&called.namespace, &called.service) == (&workload.namespace, &workload.service) {
            record.destination = Arc::clone(workload);
        }
    }

    /// Says how it ended.
    pub(crate) fn end(&self, outcome: Outcome) {
        self.record.lock().outcome = outcome;
    }

    /// Says that it failed, and why.
    pub(crate) fn fail(&self, outcome: Outcome, reason: impl Into<String>) {
        let mut record = self.record.lock();
        record.outcome = outcome;
        record.reason = Some(reason.into());
    }

    /// Says what the policies said: an error with the reason when they refuse.
    pub(crate) fn ruled(&self, ruling: Ruling) -> Result<(), Arc<Decision>> {
        match ruling {
            Ruling::Allowed(decision) => {
                if decision.is_some() {
                    self.record.lock().decision = decision;
                }
                Ok(())
            }
            Ruling::Denied(decision) => {
                let mut record = self.record.lock();
                record.outcome = Outcome::Refused;
                record.decision = Some(Arc::clone(&decision));
                Err(decision)
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let record = self.record.get_mut();
        record.duration_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        record.bytes_in = read(&self.passed.forth);
        record.bytes_out = read(&self.passed.back);
        let counted = self.standing.get_mut().take().map_or(0, |standing| standing.counted);
        self.proxy.metrics.observe_rest(record, counted);
        self.proxy.log.write(record);
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// How records name a caller or callee that is not in the mesh.
pub(crate) fn stranger(service: &'static str, address: Option<std::net::IpAddr>) -> Arc<Peer> {
    Arc::new(Peer { namespace: "".into(), service: service.into(), workload: None, address })
}
