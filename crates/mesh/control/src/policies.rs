//! The policies that were applied: records of the text, and what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use carrack_objects::Problem;
use carrack_objects::policy::{self, AuthorizationPolicy};
use carrack_store::{Record, RecordStore, Table};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::api::{ApplyRequest, PolicyFile};
use crate::{ApplyError, OpenError};

/// One file of policies as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    project: String,
    file: String,
    text: String,
}

impl Record for Kept {
    const TABLE: &'static str = "policies";
    const VERSION: u32 = 1;
}

/// Project and file.
type Key = (String, String);
type Parsed = BTreeMap<Key, Vec<AuthorizationPolicy>>;

/// What was applied. Records and memory change together, one change at a time.
pub(crate) struct Policies {
    records: Arc<dyn RecordStore>,
    parsed: Mutex<Parsed>,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies").field("parsed", &self.parsed).finish_non_exhaustive()
    }
}

impl Policies {
    pub(crate) fn open(records: Arc<dyn RecordStore>) -> Result<Self, OpenError> {
        let table = Table::<Kept>::new(Arc::clone(&records));
        let mut parsed = Parsed::new();
        for row in table.list().map_err(|source| OpenError::Read { source })? {
            let Kept { project, file, text } = row.record;
            let policies = policy::parse(&text, &file, &project).map_err(|mut problems| {
                OpenError::Policy { project: project.clone(), problem: problems.swap_remove(0) }
            })?;
            parsed.insert((project, file), policies);
        }
        Ok(Self { records, parsed: Mutex::new(parsed) })
    }

    /// Every policy there is.
    pub(crate) fn current(&self) -> Vec<AuthorizationPolicy> {
        self.parsed.lock().values().flatten().cloned().collect()
    }

    pub(crate) fn apply(&self, request: ApplyRequest) -> Result<(), ApplyError> {
        let ApplyRequest { project, files, replace } = request;
        let mut parsed = self.parsed.lock();
        let mut next = parsed.clone();
        if replace {
            next.retain(|(of, _), _| *of != project);
        }
        let mut problems = Vec::new();
        for PolicyFile { file, text } in &files {
            match policy::parse(text, file, &project) {
                Ok(policies) => {
                    next.insert((project.clone(), file.clone()), policies);
                }
                Err(more) => problems.extend(more),
            }
        }
        problems.extend(conflicts(&project, &next));
        if !problems.is_empty() {
            return Err(ApplyError::Problems { project, problems });
        }
        let kept = |file: &PolicyFile| Kept {
            project: project.clone(),
            file: file.file.clone(),
            text: file.text.clone(),
        };
        let written: Vec<_> = files.iter().map(kept).collect();
        self.commit(&project, &parsed, &next, &written)?;
        *parsed = next;
        Ok(())
    }

    pub(crate) fn delete(&self, project: &str, file: Option<&str>) -> Result<(), ApplyError> {
        let mut parsed = self.parsed.lock();
        let mut next = parsed.clone();
        next.retain(|(of, name), _| of != project || file.is_some_and(|file| file != name));
        self.commit(project, &parsed, &next, &[])?;
        *parsed = next;
        Ok(())
    }

    /// Writes what is new and erases what is gone, in one commit.
    fn commit(
        &self,
        project: &str,
        before: &Parsed,
        after: &Parsed,
        written: &[Kept],
    ) -> Result<(), ApplyError> {
        let mut writes = Vec::new();
        for kept in written {
            let key = record_key(&kept.project, &kept.file);
            let write = Table::write(&key, kept)
                .map_err(|source| ApplyError::Keep { project: project.to_owned(), source })?;
            writes.push(write);
        }
        for (project, file) in before.keys().filter(|key| !after.contains_key(*key)) {
            writes.push(Table::<Kept>::erase(&record_key(project, file)));
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.records
            .commit(&[], &writes)
            .map(|_| ())
            .map_err(|source| ApplyError::Commit { project: project.to_owned(), source })
    }
}

/// A file's name may be any path, so the key holds its digest.
fn record_key(project: &str, file: &str) -> String {
    format!("{project}/{}", hex::encode(Sha256::digest(file.as_bytes())))
}

/// Policies of another namespace, and those whose name two files claim.
fn conflicts(project: &str, parsed: &Parsed) -> Vec<Problem> {
    let of_project = parsed.iter().filter(|((of, _), _)| of == project);
    let mut problems = Vec::new();
    let mut names: BTreeMap<&str, &AuthorizationPolicy> = BTreeMap::new();
    let mut told = BTreeSet::new();
    for policy in of_project.flat_map(|(_, policies)| policies) {
        if policy.namespace != project && told.insert(&policy.origin) {
            let message = format!(
                "the policy `{}` is of the namespace `{}`; this project's is `{project}`",
                policy.name, policy.namespace
            );
            problems.push(Problem { origin: policy.origin.clone(), message });
        }
        if let Some(first) = names.insert(&policy.name, policy) {
            let message =
                format!("the policy `{}` is also written at {}", policy.name, first.origin);
            problems.push(Problem { origin: policy.origin.clone(), message });
        }
    }
    problems
}
