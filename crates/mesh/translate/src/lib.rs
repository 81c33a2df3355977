//! Objects to resources and status, in one pure function.
//!
//! ```text
//! World { workloads, services, policies } ──translate──▶ Translation { resources, statuses, problems }
//! ```
//!
//! There is no error to return: an object that makes no sense is a problem, and
//! the rest go out. Whatever comes out is accepted by `proxy/snapshot`, so one
//! bad object cannot keep the others from the proxy. Two properties are tested
//! besides the golden files: the order of the input does not matter, and
//! removing an object never changes what an unrelated one became.
//!
//! Naming a version of the resources is not here, for it takes a digest: see
//! `mesh/control`. Reading policies is `spec/objects`.

mod authorization;
mod ingress;
mod workload;

use std::fmt;

use carrack_objects::Origin;
use carrack_objects::mesh;
use carrack_objects::policy::AuthorizationPolicy;
use carrack_spiffe::TrustDomain;
use carrack_xds::Resources;

/// The service account of the doors into a namespace. No workload may have it.
pub const INGRESS_SERVICE_ACCOUNT: &str = "carrack-ingress";

/// Everything a translation is made from.
#[derive(Clone, Debug)]
pub struct World {
    /// The domain whose identities are accepted.
    pub trust_domain: TrustDomain,
    /// What runs.
    pub workloads: Vec<mesh::Workload>,
    /// What answers to a name.
    pub services: Vec<mesh::Service>,
    /// Who may call whom.
    pub policies: Vec<AuthorizationPolicy>,
}

/// What came of a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    /// What the proxy is told; its version is empty.
    pub resources: Resources,
    /// One for each policy, in the order of their names.
    pub statuses: Vec<Status>,
    /// What did not make it into the resources, and why.
    pub problems: Vec<Problem>,
}

/// How a policy stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Status {
    /// The policy's namespace.
    pub namespace: String,
    /// The policy's name.
    pub name: String,
    /// Where it was written.
    pub origin: Origin,
    /// Names of the workloads it judges; none is no problem, they may yet come.
    pub workloads: Vec<String>,
}

/// Something that did not make it into the resources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The object, such as `workload shop-api-1` or `service shop/api`.
    pub object: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.message)
    }
}

/// Translates a world: same world, same translation, whatever the order of its lists.
pub fn translate(world: &World) -> Translation {
    let mut problems = Vec::new();
    let workloads = workload::workloads(world, &mut problems);
    let services = workload::services(world, &workloads, &mut problems);
    let ingress = ingress::ingress(world, &services, &mut problems);
    let (authorizations, statuses) =
        authorization::authorizations(world, &workloads, &mut problems);
    problems.sort();
    let resources = Resources {
        version: String::new(),
        trust_domain: world.trust_domain.to_string(),
        workloads: workloads.into_iter().map(|told| told.resource).collect(),
        services,
        authorizations,
        ingress,
    };
    Translation { resources, statuses, problems }
}
