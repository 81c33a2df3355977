//! The compiler: follow references, check words, build the shelves.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use carrack_filters::authorize::{self, Authorizer};
use carrack_spiffe::{SpiffeId, TrustDomain};
use carrack_telemetry::access::Peer;
use carrack_xds::{self as xds, Problem, Resources};

use crate::snapshot::{Ingress, Service, Snapshot, Workload};

/// The service account calls from outside the mesh enter with.
const INGRESS_ACCOUNT: &str = "carrack-ingress";

/// Compiles resources, whole or not at all.
///
/// # Errors
///
/// Everything wrong with the resources, not only the first thing. Whoever asked keeps what they
/// had: nothing of a set that is wrong in one place is in force.
pub fn compile(resources: &Resources) -> Result<Arc<Snapshot>, Vec<Problem>> {
    let trust_domain = match TrustDomain::new(resources.trust_domain.clone()) {
        Ok(trust_domain) => trust_domain,
        Err(error) => {
            return Err(vec![problem("resources", "trust_domain", error.to_string())]);
        }
    };
    let mut compiler = Compiler::new(resources, trust_domain);
    compiler.authorizations();
    compiler.workloads();
    compiler.services();
    compiler.ingress();
    compiler.finish()
}

struct Compiler<'a> {
    resources: &'a Resources,
    snapshot: Snapshot,
    authorizations: HashMap<&'a str, Vec<Arc<xds::Authorization>>>,
    services: HashMap<(&'a str, &'a str), Arc<Service>>,
    problems: Vec<Problem>,
}

impl<'a> Compiler<'a> {
    fn new(resources: &'a Resources, trust_domain: TrustDomain) -> Self {
        let mut snapshot = Snapshot::empty(trust_domain);
        snapshot.version.clone_from(&resources.version);
        Self {
            resources,
            snapshot,
            authorizations: HashMap::new(),
            services: HashMap::new(),
            problems: Vec::new(),
        }
    }

    fn finish(mut self) -> Result<Arc<Snapshot>, Vec<Problem>> {
        if self.resources.version.is_empty() {
            self.problem("resources", "version", "is empty, so nobody could ask for it");
        }
        if self.problems.is_empty() { Ok(Arc::new(self.snapshot)) } else { Err(self.problems) }
    }

    fn problem(&mut self, resource: &str, path: &str, message: impl Into<String>) {
        self.problems.push(problem(resource, path, message.into()));
    }

    fn authorizations(&mut self) {
        let uids: HashSet<_> = self.resources.workloads.iter().map(|w| w.uid.as_str()).collect();
        let mut names = HashSet::new();
        for authorization in &self.resources.authorizations {
            let label = format!("authorization {}/{}", authorization.namespace, authorization.name);
            if !names.insert((&authorization.namespace, &authorization.name)) {
                self.problem(&label, "name", "another authorization has this name");
            }
            self.problems.extend(authorize::problems(authorization));
            let shared = Arc::new(authorization.clone());
            for (number, uid) in authorization.workloads.iter().enumerate() {
                if !uids.contains(uid.as_str()) {
                    let path = format!("workloads[{number}]");
                    self.problem(&label, &path, format!("no workload has the uid `{uid}`"));
                }
                self.authorizations.entry(uid).or_default().push(Arc::clone(&shared));
            }
        }
    }

    fn workloads(&mut self) {
        for told in &self.resources.workloads {
            let label = format!("workload {}", told.name);
            let Some(identity) = self.identity(&label, &told.namespace, &told.service_account)
            else {
                continue;
            };
            if told.netns.as_ref().is_some_and(|path| !path.is_absolute()) {
                self.problem(&label, "netns", "is not an absolute path");
            }
            let policies = self.authorizations.remove(told.uid.as_str()).unwrap_or_default();
            let workload = Arc::new(workload(told, identity, Authorizer::new(policies)));
            if workload.netns.is_some() {
                self.snapshot.local.push(Arc::clone(&workload));
            }
            let (uid, address) = (workload.uid.clone(), workload.address);
            if self.snapshot.by_uid.insert(uid, Arc::clone(&workload)).is_some() {
                self.problem(&label, "uid", format!("`{}` is another workload's", told.uid));
            }
            if let Some(other) = self.snapshot.by_address.insert(address, workload) {
                let message =
                    format!("{address} is also the address of workload uid {}", other.uid);
                self.problem(&label, "address", message);
            }
        }
    }

    fn identity(&mut self, label: &str, namespace: &str, account: &str) -> Option<SpiffeId> {
        match SpiffeId::workload(&self.snapshot.trust_domain, namespace, account) {
            Ok(identity) => Some(identity),
            Err(error) => {
                self.problem(label, "namespace, service_account", error.to_string());
                None
            }
        }
    }

    fn services(&mut self) {
        for told in &self.resources.services {
            let label = format!("service {}/{}", told.namespace, told.name);
            let mut endpoints = Vec::with_capacity(told.endpoints.len());
            for (number, uid) in told.endpoints.iter().enumerate() {
                match self.snapshot.by_uid.get(uid) {
                    Some(workload) if workload.ready => endpoints.push(Arc::clone(workload)),
                    Some(_) => {}
                    None => {
                        let path = format!("endpoints[{number}]");
                        self.problem(&label, &path, format!("no workload has the uid `{uid}`"));
                    }
                }
            }
            let service = Arc::new(service(told, endpoints));
            if self.snapshot.by_address.contains_key(&told.vip) {
                self.problem(&label, "vip", format!("{} is a workload's address", told.vip));
            }
            if let Some(other) = self.snapshot.by_vip.insert(told.vip, Arc::clone(&service)) {
                let message = format!("{} is also the address of service {}", told.vip, other.name);
                self.problem(&label, "vip", message);
            }
            if self.services.insert((&told.namespace, &told.name), service).is_some() {
                self.problem(&label, "name", "another service has this name");
            }
        }
    }

    fn ingress(&mut self) {
        let mut taken = HashSet::new();
        for told in &self.resources.ingress {
            let label = format!("ingress {}", told.listen);
            if !taken.insert(told.listen) || told.listen.port() == 0 {
                self.problem(&label, "listen", "is taken by another ingress, or has no port");
            }
            let named = (told.namespace.as_str(), told.service.as_str());
            let Some(service) = self.services.get(&named).cloned() else {
                let message = format!("there is no service {}/{}", told.namespace, told.service);
                self.problem(&label, "service", message);
                continue;
            };
            if let Some(identity) = self.identity(&label, &told.namespace, INGRESS_ACCOUNT) {
                let declared = service.protocols.get(&told.port).copied();
                self.snapshot.ingress.push(Arc::new(Ingress {
                    listen: told.listen,
                    identity,
                    port: told.port,
                    protocol: told.protocol.or(declared),
                    service,
                }));
            }
        }
    }
}

fn workload(told: &xds::Workload, identity: SpiffeId, authorizer: Authorizer) -> Workload {
    Workload {
        uid: told.uid.clone(),
        identity,
        address: told.address,
        netns: told.netns.clone(),
        ready: told.ready,
        protocols: told.protocols.clone(),
        authorizer,
        peer: peer(&told.namespace, &told.service_account, Some(&told.name), Some(told.address)),
    }
}

fn service(told: &xds::Service, endpoints: Vec<Arc<Workload>>) -> Service {
    Service {
        name: told.name.clone(),
        namespace: told.namespace.clone(),
        vip: told.vip,
        endpoints,
        protocols: told.protocols.clone(),
        peer: peer(&told.namespace, &told.name, None, None),
    }
}

fn peer(
    namespace: &str,
    service: &str,
    workload: Option<&str>,
    address: Option<Ipv4Addr>,
) -> Arc<Peer> {
    Arc::new(Peer {
        namespace: namespace.into(),
        service: service.into(),
        workload: workload.map(Into::into),
        address: address.map(Into::into),
    })
}

fn problem(resource: &str, path: &str, message: String) -> Problem {
    Problem { resource: resource.to_owned(), path: path.to_owned(), message }
}
